import type { ConnectionEnd } from "./connection.ts";
import { RpmsgError } from "./errors.ts";

/** What ends a channel for good: another client has it, or the bridge does not want this one. */
export const FINAL: readonly number[] = [4003, 1008];
/** Why the session is over with the connection, and the messages with it. */
export const GONE: Readonly<Record<number, "guest-gone" | "endpoint-gone">> = {
  4001: "guest-gone",
  4002: "endpoint-gone",
};
/** The bridge goes on in another process, which waits for its clients. */
export const RESTART = 1012;
/** Reasons of 1008 that are codes. */
const policies = ["unauthorized", "forbidden", "read-only"] as const;
export const SLOW_READER = 1013;

/** What a close code means. */
export function errorOf({ code, reason }: ConnectionEnd): RpmsgError {
  const text = `the bridge ended the channel with ${code}${reason === "" ? "" : `: ${reason}`}`;
  const gone = GONE[code];
  if (gone !== undefined) return new RpmsgError(gone, text);
  if (code === 4003) return new RpmsgError("replaced", text);
  if (code === SLOW_READER) return new RpmsgError("slow-reader", text);
  if (code === 1008) return new RpmsgError(policies.find((each) => each === reason) ?? "refused", text);
  return new RpmsgError("connection-lost", text);
}
