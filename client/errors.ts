import type { ErrorCode, Problem } from "../schemas/index.ts";

/**
 * Codes that the client gives by itself:
 *  - `unreachable`: nothing answers, or what answers is no bridge
 *  - `refused`: the bridge does not take the connection, and there was no way to learn why
 *  - `connection-lost`: it broke, and it is not known what became of the message
 *  - `closed`: the channel was closed on this side
 */
export type ClientErrorCode = "unreachable" | "refused" | "connection-lost" | "closed";

/** What went wrong, with a stable code: the bridge's, or one of the client's own. */
export class RpmsgError extends Error {
  readonly code: ErrorCode | ClientErrorCode;

  constructor(code: ErrorCode | ClientErrorCode, message: string, options?: { cause: unknown }) {
    super(message, options);
    this.name = "RpmsgError";
    this.code = code;
  }
}

/** The error in an answer of the bridge (RFC 9457), or another for an answer that is not the bridge's. */
export function problemError(status: number, body: string): RpmsgError {
  try {
    const problem = JSON.parse(body) as Partial<Problem> | null;
    if (typeof problem?.code === "string")
      return new RpmsgError(problem.code, problem.detail ?? problem.code);
  } catch {
    // Not JSON, not the bridge.
  }
  return new RpmsgError("unreachable", `what answers is no rpmsg-bridge: status ${status}`);
}
