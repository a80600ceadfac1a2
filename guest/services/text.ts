/** Longest command that a service reads. */
const LONGEST = 64;

/** A short message as text without white space at its ends; empty for a longer one. */
export function textOf(bytes: Uint8Array, offset: number, length: number): string {
  if (length > LONGEST) return "";
  return Buffer.from(bytes.subarray(offset, offset + length))
    .toString()
    .trim();
}
