import { RpmsgError } from "../../rpmsg/index.ts";
import type { ProblemCode } from "../problem.ts";
import { HttpProblem } from "../problem.ts";

/** The core's errors in the words of HTTP. */
const codeOf: Readonly<Record<RpmsgError["code"], ProblemCode>> = {
  "address-in-use": "address-in-use",
  "address-invalid": "bad-request",
  "address-space-full": "no-address",
  "already-announced": "already-announced",
  "device-closed": "draining",
  "name-invalid": "name-invalid",
  "name-service-off": "name-service-off",
  "too-many-endpoints": "too-many-endpoints",
};

/** An error of the core as a problem; any other stays what it is. */
export function toProblem(error: unknown): unknown {
  return error instanceof RpmsgError ? new HttpProblem(codeOf[error.code], error.message) : error;
}
