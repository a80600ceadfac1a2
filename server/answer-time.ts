import type { Writable } from "node:stream";
import type { Limits } from "../schemas/index.ts";
import type { ClientCounts } from "./client-counts.ts";

/** Ends the connection of a client that takes too long to take an answer, from now on. */
export function limitTime(
  answer: Pick<Writable, "destroyed" | "destroy" | "once">,
  { limits, counts }: { readonly limits: Limits; readonly counts: ClientCounts },
): void {
  if (answer.destroyed) return;
  const timer = setTimeout(() => {
    counts.limits.add("responseTimeout");
    answer.destroy();
  }, limits.responseTimeout).unref();
  answer.once("close", () => clearTimeout(timer));
}
