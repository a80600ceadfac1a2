import { STATUS_CODES } from "node:http";
import type { ErrorCode, Problem } from "../schemas/index.ts";

/** The statuses of the codes that HTTP answers may have. */
const statusOf = {
  "bad-request": 400,
  "name-invalid": 400,
  unauthorized: 401,
  forbidden: 403,
  "origin-forbidden": 403,
  "read-only": 403,
  "not-found": 404,
  "guest-unknown": 404,
  "endpoint-unknown": 404,
  "request-timeout": 408,
  "address-in-use": 409,
  "already-announced": 409,
  "endpoint-in-use": 409,
  "endpoint-of-guest": 409,
  "local-in-use": 409,
  "name-service-off": 409,
  "no-peer": 409,
  "too-many-endpoints": 409,
  "endpoint-gone": 410,
  "body-too-large": 413,
  "too-large": 413,
  "media-type-unknown": 415,
  "host-unknown": 421,
  "upgrade-required": 426,
  "queue-full": 429,
  "rate-limited": 429,
  "too-many-connections": 429,
  "head-too-large": 431,
  internal: 500,
  draining: 503,
  "guest-gone": 503,
  "no-address": 503,
  overloaded: 503,
  "no-buffer": 504,
  "no-reply": 504,
} as const satisfies Partial<Record<ErrorCode, number>>;

export type ProblemCode = keyof typeof statusOf;

export const problemCodes = Object.keys(statusOf) as ProblemCode[];

/** What may be answered to any request, before anything is read of it but its head. */
export const doorProblems = [
  "origin-forbidden",
  "host-unknown",
  "rate-limited",
  "too-many-connections",
  "draining",
  "overloaded",
] as const satisfies ProblemCode[];

export const PROBLEM_TYPE = "application/problem+json";

/** A request that cannot be answered, in the words of RFC 9457. */
export class HttpProblem extends Error {
  readonly code: ProblemCode;
  readonly statusCode: number;
  /** Header fields that belong to the answer. */
  readonly headers: Readonly<Record<string, string>>;

  constructor(code: ProblemCode, detail: string, headers: Readonly<Record<string, string>> = {}) {
    super(detail);
    this.name = "HttpProblem";
    this.code = code;
    this.statusCode = statusOf[code];
    this.headers = headers;
  }

  /** `Connection` of the answer. What it offers to upgrade to is an option of the connection, too (RFC 9110, 7.8). */
  connection(keepAlive: boolean): string {
    const stay = keepAlive ? "keep-alive" : "close";
    return "upgrade" in this.headers ? `Upgrade, ${stay}` : stay;
  }

  toProblem(): Problem {
    const title = STATUS_CODES[this.statusCode] ?? "Error";
    return { type: "about:blank", title, status: this.statusCode, code: this.code, detail: this.message };
  }
}
