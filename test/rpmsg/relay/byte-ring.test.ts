import fc from "fast-check";
import { expect, test } from "vitest";
import { ByteRing } from "../../../rpmsg/relay/byte-ring.ts";

test("pieces never overlap, stay inside, and are refused only where there is no room in one part", () => {
  const CAPACITY = 256;
  fc.assert(
    fc.property(fc.array(fc.option(fc.nat(100), { nil: undefined }), { maxLength: 200 }), (steps) => {
      const ring = new ByteRing(CAPACITY);
      const out: { offset: number; bytes: number; end: number }[] = [];
      for (const bytes of steps) {
        const oldest = out[0];
        if (bytes === undefined) {
          if (oldest === undefined) continue;
          ring.give(oldest.offset, oldest.bytes);
          out.shift();
          continue;
        }
        const size = Math.max(16, Math.ceil(bytes / 16) * 16);
        const offset = ring.take(bytes);
        if (offset === -1) {
          // In the order of taking: free is what is between the newest and the oldest, around the end.
          const newest = out.at(-1);
          if (oldest === undefined || newest === undefined) throw new Error("an empty ring refuses a piece");
          const free =
            newest.end > oldest.offset
              ? Math.max(CAPACITY - newest.end, oldest.offset)
              : oldest.offset - newest.end;
          // The room behind a piece that was given back last before the end counts from the next one on.
          expect(free).toBeLessThan(size + 128);
          continue;
        }
        expect(offset % 16).toBe(0);
        expect(offset + size).toBeLessThanOrEqual(CAPACITY);
        for (const piece of out) {
          expect(offset + size <= piece.offset || piece.end <= offset).toBe(true);
        }
        out.push({ offset, bytes, end: offset + size });
      }
      expect(ring.used).toBe(out.reduce((sum, { offset, end }) => sum + end - offset, 0));
    }),
    { numRuns: 500 },
  );
});

test("an empty ring begins anew, and takes a piece as long as itself", () => {
  const ring = new ByteRing(64);
  expect(ring.take(48)).toBe(0);
  ring.give(0, 48);
  expect(ring.take(64)).toBe(0);
  expect(ring.take(0)).toBe(-1);
  ring.give(0, 64);
  expect(ring.take(0)).toBe(0);
});
