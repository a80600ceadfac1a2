/** Up to this many bytes a loop is faster than the two objects that `set(subarray())` makes (see `npm run bench`). */
const LOOP_LIMIT = 32;

/** Up to this many bytes a loop over words is no slower than `set(subarray())`, and makes no garbage. */
const WORDS_LIMIT = 512;

/** Bytes, and as many of them as make whole words of 64 bits. */
export interface Words {
  readonly u8: Uint8Array;
  /**
   * For copies: V8's optimized code moves a word through a register and makes no BigInt of it. A Float64Array is not bound
   * to keep the bits of what is not a number.
   */
  readonly i64: BigInt64Array;
}

/** @param offset bytes into the buffer, a multiple of 8 */
export function wordsOf(
  buffer: ArrayBufferLike,
  offset = 0,
  length: number = buffer.byteLength - offset,
): Words {
  return { u8: new Uint8Array(buffer, offset, length), i64: new BigInt64Array(buffer, offset, length >> 3) };
}

/** Copies bytes between arrays that do not overlap. */
export function copyBytes(
  from: Uint8Array,
  fromOffset: number,
  to: Uint8Array,
  toOffset: number,
  length: number,
): void {
  if (length <= LOOP_LIMIT) {
    for (let i = 0; i < length; i++) to[toOffset + i] = from[fromOffset + i] as number;
  } else if (fromOffset === 0 && length === from.length) {
    to.set(from, toOffset);
  } else {
    to.set(from.subarray(fromOffset, fromOffset + length), toOffset);
  }
}

/**
 * Copies bytes between memory that does not overlap: word by word, without an object, where both begin at multiples of
 * 8 and it is not more than half a kilobyte.
 */
export function copyWords(
  from: Words,
  fromOffset: number,
  to: Words,
  toOffset: number,
  length: number,
): void {
  if (((fromOffset | toOffset) & 7) !== 0 || length > WORDS_LIMIT) {
    copyBytes(from.u8, fromOffset, to.u8, toOffset, length);
    return;
  }
  const source = from.i64;
  const target = to.i64;
  // Eight at a time, for V8 looks at both arrays anew in each turn of a loop. What is left is for another function, so that
  // this one stays small enough to become part of its callers.
  for (let i = 0; i + 63 < length; i += 64) {
    const f = (fromOffset + i) >>> 3;
    const t = (toOffset + i) >>> 3;
    target[t] = source[f] as bigint;
    target[t + 1] = source[f + 1] as bigint;
    target[t + 2] = source[f + 2] as bigint;
    target[t + 3] = source[f + 3] as bigint;
    target[t + 4] = source[f + 4] as bigint;
    target[t + 5] = source[f + 5] as bigint;
    target[t + 6] = source[f + 6] as bigint;
    target[t + 7] = source[f + 7] as bigint;
  }
  if ((length & 63) !== 0) copyRest(from, fromOffset, to, toOffset, length);
}

/** Copies what is left behind the last 64 bytes: words, then bytes. */
function copyRest(from: Words, fromOffset: number, to: Words, toOffset: number, length: number): void {
  const source = from.i64;
  const target = to.i64;
  let i = length & ~63;
  for (; i + 15 < length; i += 16) {
    const f = (fromOffset + i) >>> 3;
    const t = (toOffset + i) >>> 3;
    target[t] = source[f] as bigint;
    target[t + 1] = source[f + 1] as bigint;
  }
  if ((length & 15) === 0) return;
  for (; i < length; i++) to.u8[toOffset + i] = from.u8[fromOffset + i] as number;
}
