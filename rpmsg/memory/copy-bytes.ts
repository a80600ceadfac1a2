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
  let at = fromOffset >> 3;
  let put = toOffset >> 3;
  const end = at + (length >> 3);
  // Eight at a time, for V8 looks at both arrays anew in each turn of a loop. The masks change nothing: they tell it that
  // no sum below overflows.
  for (const last = end - 7; at < last; at += 8, put += 8) {
    const f = at & 0x7ff_ffff;
    const t = put & 0x7ff_ffff;
    target[t] = source[f] as bigint;
    target[t + 1] = source[f + 1] as bigint;
    target[t + 2] = source[f + 2] as bigint;
    target[t + 3] = source[f + 3] as bigint;
    target[t + 4] = source[f + 4] as bigint;
    target[t + 5] = source[f + 5] as bigint;
    target[t + 6] = source[f + 6] as bigint;
    target[t + 7] = source[f + 7] as bigint;
  }
  for (; at < end; at++, put++) target[put] = source[at] as bigint;
  const tail = length & 7;
  if (tail !== 0) copyBytes(from.u8, fromOffset + length - tail, to.u8, toOffset + length - tail, tail);
}
