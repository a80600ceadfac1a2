import type { ErrorCode } from "../../../rpmsg/errors.ts";
import { CodedError } from "../../../rpmsg/errors.ts";

/** The code of the error that `action` throws, undefined when it throws none. What is not ours goes on up. */
export function codeOf(action: () => unknown): ErrorCode | undefined {
  try {
    action();
  } catch (error) {
    if (error instanceof CodedError) return error.code;
    throw error;
  }
  return undefined;
}
