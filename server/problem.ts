import { STATUS_CODES } from "node:http";
import type { Problem } from "../schemas/index.ts";

/** Codes of the HTTP interface and their statuses. */
const statusOf = {
  "bad-request": 400,
  "origin-forbidden": 403,
  "not-found": 404,
  "guest-unknown": 404,
  "endpoint-unknown": 404,
  "local-in-use": 409,
  "body-too-large": 413,
  "host-unknown": 421,
  "upgrade-required": 426,
  internal: 500,
  draining: 503,
  "no-address": 503,
} as const;

type ProblemCode = keyof typeof statusOf;

export const PROBLEM_TYPE = "application/problem+json";

/** A request that cannot be answered, in the words of RFC 9457. */
export class HttpProblem extends Error {
  readonly code: ProblemCode;
  readonly statusCode: number;

  constructor(code: ProblemCode, detail: string) {
    super(detail);
    this.name = "HttpProblem";
    this.code = code;
    this.statusCode = statusOf[code];
  }

  toProblem(): Problem {
    const title = STATUS_CODES[this.statusCode] ?? "Error";
    return { type: "about:blank", title, status: this.statusCode, code: this.code, detail: this.message };
  }
}
