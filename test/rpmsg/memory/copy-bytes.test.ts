import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { copyBytes, copyWords, wordsOf } from "../../../rpmsg/memory/copy-bytes.ts";

/** What a target holds before: a byte that nobody wrote still has it. */
const CANARY = 0xee;

describe("copyBytes", () => {
  // Both ways of copying, and the step from one to the other.
  it.each([0, 1, 15, 63, 64, 65, 66, 496, 4096])("copies %d bytes and touches nothing else", (length) => {
    const from = Uint8Array.from({ length: length + 10 }, (_, i) => (i * 13 + 5) & 0xff);
    const to = new Uint8Array(length + 20).fill(CANARY);
    copyBytes(from, 3, to, 7, length);
    expect(to.subarray(0, 7).every((byte) => byte === CANARY)).toBe(true);
    expect(Buffer.compare(to.subarray(7, 7 + length), from.subarray(3, 3 + length))).toBe(0);
    expect(to.subarray(7 + length).every((byte) => byte === CANARY)).toBe(true);
  });

  it.each([1, 32, 33, 496])("copies an array of %d bytes whole", (length) => {
    const from = Uint8Array.from({ length }, (_, i) => i + 1);
    const to = new Uint8Array(length + 2).fill(CANARY);
    copyBytes(from, 0, to, 1, length);
    expect([...to]).toEqual([CANARY, ...from, CANARY]);
  });
});

describe("copyWords", () => {
  const size = 1024;

  it("copies bytes at any places, and touches nothing else", () => {
    // Where both are aligned, words are copied: as often as not.
    const place = fc.oneof(
      fc.nat(24),
      fc.nat(3).map((n) => 8 * n),
    );
    fc.assert(
      fc.property(place, place, fc.nat(600), fc.integer(), (fromOffset, toOffset, length, seed) => {
        const from = wordsOf(new ArrayBuffer(size));
        for (let i = 0, x = seed; i < size; i++, x = Math.imul(x, 1664525) + 1013904223)
          from.u8[i] = x >>> 24;
        const to = wordsOf(new ArrayBuffer(size));
        to.u8.fill(CANARY);
        copyWords(from, fromOffset, to, toOffset, length);
        const expected = Buffer.alloc(size, CANARY);
        expected.set(from.u8.subarray(fromOffset, fromOffset + length), toOffset);
        expect(Buffer.compare(to.u8, expected)).toBe(0);
      }),
    );
  });

  it("reads the last byte of memory whose size is no multiple of 8", () => {
    for (let length = 0; length < 24; length++) {
      const from = wordsOf(new ArrayBuffer(length));
      from.u8.fill(7);
      const to = wordsOf(new ArrayBuffer(length));
      copyWords(from, 0, to, 0, length);
      expect([...to.u8]).toEqual([...from.u8]);
    }
  });

  it("copies a part of a buffer that begins elsewhere", () => {
    const buffer = Uint8Array.from({ length: 64 }, (_, i) => i).buffer;
    const to = wordsOf(new ArrayBuffer(32));
    copyWords(wordsOf(buffer, 8, 40), 8, to, 0, 20);
    expect([...to.u8.subarray(0, 21)]).toEqual([...Array.from({ length: 20 }, (_, i) => 16 + i), 0]);
  });

  // Numbers of 64 bits would lose these; and so it stays when V8 has optimized the loop.
  it("keeps every bit of signalling and other patterns that are not a number", () => {
    const from = wordsOf(new ArrayBuffer(64));
    for (const [i, word] of [
      0x7ff0_0000_0000_0001n,
      0xfff7_ffff_fff7_ffffn,
      0x7ff4_dead_beef_0001n,
      0xffff_ffff_ffff_ffffn,
      0x7fff_ffff_ffff_ffffn,
      0x8000_0000_0000_0000n,
      0x7ff8_0000_0000_0000n,
      0xfff0_0000_0000_0001n,
    ].entries()) {
      from.i64[i] = BigInt.asIntN(64, word);
    }
    const to = wordsOf(new ArrayBuffer(64));
    let kept = 0;
    for (let turn = 0; turn < 20_000; turn++) {
      to.u8.fill(0);
      copyWords(from, 0, to, 0, 64);
      if (Buffer.compare(to.u8, from.u8) === 0) kept++;
    }
    expect(kept).toBe(20_000);
  });
});
