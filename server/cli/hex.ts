import { CommandError, exitCode } from "./command-error.ts";

/**
 * Reads bytes from hexadecimal digits; white space does not matter.
 * @throws CommandError
 */
export function parseHex(text: string): Buffer {
  const digits = text.replaceAll(/\s/g, "");
  if (digits.length % 2 !== 0 || /[^0-9a-fA-F]/.test(digits)) {
    throw new CommandError(`"${text}" is not bytes in hexadecimal digits`, exitCode.usage);
  }
  return Buffer.from(digits, "hex");
}
