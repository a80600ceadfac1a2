/** Up to this many bytes a loop is faster than the two objects that `set(subarray())` makes (see `npm run bench`). */
const LOOP_LIMIT = 32;

/** Copies bytes between arrays that do not overlap. */
export function copyBytes(
  from: Uint8Array,
  fromOffset: number,
  to: Uint8Array,
  toOffset: number,
  length: number,
): void {
  if (length > LOOP_LIMIT) {
    to.set(from.subarray(fromOffset, fromOffset + length), toOffset);
    return;
  }
  for (let i = 0; i < length; i++) to[toOffset + i] = from[fromOffset + i] as number;
}
