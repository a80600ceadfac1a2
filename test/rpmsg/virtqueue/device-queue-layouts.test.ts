import { describe, expect, it } from "vitest";
import type { DeviceQueue } from "../../../rpmsg/virtqueue/device-queue.ts";
import { codeOf } from "../support/coded.ts";
import type { RawDescriptor } from "../support/raw-ring.ts";
import { GUEST_BASE, INDIRECT, NEXT, offsetOf, RawRing, WRITE } from "../support/raw-ring.ts";

const TABLE = GUEST_BASE + offsetOf.tables;
const TEXT = Buffer.from("The quick brown fox jumps over the lazy dog, twice and thrice.");

/** All readable bytes of the current chain. */
function gathered(queue: DeviceQueue, length = queue.readableLength): string {
  const target = new Uint8Array(length);
  queue.gather(target, length);
  return Buffer.from(target).toString("latin1");
}

/** Spreads TEXT over readable descriptors of these lengths, 40 bytes apart. */
function spread(ring: RawRing, lengths: readonly number[], shift = 0): RawDescriptor[] {
  let from = 0;
  return lengths.map((length, i) => {
    const address = ring.buffer(40 * i + shift);
    ring.at(address, length).set(TEXT.subarray(from, from + length));
    from += length;
    return { address, length };
  });
}

describe("the device side of a queue takes", () => {
  it("one descriptor", () => {
    const ring = new RawRing();
    const queue = ring.device();
    expect(queue.peek()).toBe(false);
    ring.chain(spread(ring, [62]));
    expect(queue.peek()).toBe(true);
    expect(queue).toMatchObject({ head: 0, readableLength: 62, readableCount: 1, writableLength: 0 });
    expect(queue).toMatchObject({ segmentCount: 1, descriptorCount: 1 });
    expect(gathered(queue)).toBe(TEXT.toString());
    expect(gathered(queue, 5)).toBe("The q");
  });

  it("a chain of as many descriptors as the queue has, in any order of the table", () => {
    const ring = new RawRing({ size: 8 });
    const order = [5, 0, 7, 2, 6, 1, 4, 3];
    for (const [i, descriptor] of spread(ring, [8, 8, 8, 8, 8, 8, 8, 6]).entries()) {
      const last = i === 7;
      ring.describe(order[i] as number, {
        ...descriptor,
        flags: last ? 0 : NEXT,
        next: order[i + 1] ?? 0xffff,
      });
    }
    ring.offer(5);
    const queue = ring.device();
    expect(queue.peek()).toBe(true);
    expect(queue).toMatchObject({ head: 5, descriptorCount: 8, segmentCount: 8 });
    expect(gathered(queue)).toBe(TEXT.toString());
  });

  it.each([0, 1, 2, 3])("a header spread over 16 one-byte descriptors, %d bytes off", (shift) => {
    const ring = new RawRing({ size: 32 });
    ring.chain(spread(ring, [...Array.from({ length: 16 }, () => 1), 46], shift));
    const queue = ring.device();
    expect(queue.peek()).toBe(true);
    expect(queue.readableLength).toBe(62);
    expect(gathered(queue, 16)).toBe(TEXT.toString("latin1", 0, 16));
    expect(gathered(queue)).toBe(TEXT.toString());
  });

  it("an indirect table, unaligned, as long a chain as the queue", () => {
    const ring = new RawRing({ size: 4 });
    const parts = spread(ring, [20, 20, 20, 2]);
    ring.table(
      TABLE + 3,
      parts.map((part, i) => ({ ...part, flags: i < 3 ? NEXT : 0, next: i + 1 })),
    );
    ring.chain([{ address: TABLE + 3, length: 64, flags: INDIRECT }]);
    const queue = ring.device();
    expect(queue.peek()).toBe(true);
    expect(queue).toMatchObject({ head: 0, descriptorCount: 4, readableLength: 62 });
    expect(gathered(queue)).toBe(TEXT.toString());
  });

  it("an indirect table that is longer than its chain, out of order, with WRITE on it ignored", () => {
    const ring = new RawRing({ size: 2 });
    const [first, second] = spread(ring, [30, 32]) as [RawDescriptor, RawDescriptor];
    const junk = { address: 0, length: 1, flags: INDIRECT };
    ring.table(TABLE, [{ ...first, flags: NEXT, next: 5 }, junk, junk, junk, junk, second]);
    ring.chain([{ address: TABLE, length: 96, flags: INDIRECT | WRITE }]);
    const queue = ring.device();
    expect(queue.peek()).toBe(true);
    expect(queue).toMatchObject({ readableLength: 62, writableLength: 0 });
    expect(gathered(queue)).toBe(TEXT.toString());
  });

  it("an indirect table after normal descriptors", () => {
    const ring = new RawRing({ size: 8 });
    const [first, second, third] = spread(ring, [20, 20, 22]) as [
      RawDescriptor,
      RawDescriptor,
      RawDescriptor,
    ];
    ring.table(TABLE, [
      { ...third, flags: NEXT, next: 1 },
      { address: ring.buffer(512), length: 7, flags: WRITE },
    ]);
    ring.chain([first, second, { address: TABLE, length: 32, flags: INDIRECT }]);
    const queue = ring.device();
    expect(queue.peek()).toBe(true);
    expect(queue).toMatchObject({ readableLength: 62, writableLength: 7, readableCount: 3, segmentCount: 4 });
    expect(gathered(queue)).toBe(TEXT.toString());
  });

  it("empty descriptors, whose addresses are never looked at", () => {
    const ring = new RawRing({ size: 8 });
    const [first, second] = spread(ring, [31, 31]) as [RawDescriptor, RawDescriptor];
    const nowhere = { address: 2n ** 64n - 1n, length: 0 };
    ring.chain([nowhere, first, { address: 0, length: 0 }, second, { ...nowhere, flags: WRITE }]);
    const queue = ring.device();
    expect(queue.peek()).toBe(true);
    expect(queue).toMatchObject({
      readableLength: 62,
      writableLength: 0,
      descriptorCount: 5,
      segmentCount: 2,
    });
    expect(gathered(queue)).toBe(TEXT.toString());
  });

  it("a chain without any byte", () => {
    const ring = new RawRing();
    ring.chain([{ address: 0, length: 0 }]);
    const queue = ring.device();
    expect(queue.peek()).toBe(true);
    expect(queue).toMatchObject({ readableLength: 0, writableLength: 0, segmentCount: 0 });
    queue.gather(new Uint8Array(), 0);
    queue.complete(0);
  });

  it("flags and next that mean nothing", () => {
    const ring = new RawRing({ indirect: false });
    ring.describe(0, { ...(spread(ring, [62])[0] as RawDescriptor), flags: 0xfff8, next: 0xffff });
    ring.offer(0);
    const queue = ring.device();
    expect(queue.peek()).toBe(true);
    expect(gathered(queue)).toBe(TEXT.toString());
  });

  it("a full ring, one chain after another, nothing left over from the one before", () => {
    const ring = new RawRing({ size: 8, start: 0xfffc });
    const queue = ring.device();
    for (let i = 0; i < 8; i++)
      ring.describe(i, { address: ring.buffer(64 * i), length: i + 1, flags: i & 1 ? WRITE : 0 });
    ring.offer(7, 6, 5, 4, 3, 2, 1, 0);
    for (let i = 7; i >= 0; i--) {
      expect(queue.peek()).toBe(true);
      expect(queue.peek()).toBe(true);
      expect(queue.head).toBe(i);
      expect([queue.readableLength, queue.writableLength]).toEqual(i & 1 ? [0, i + 1] : [i + 1, 0]);
      expect(queue.descriptorCount).toBe(1);
      queue.complete(0);
    }
    expect(queue.peek()).toBe(false);
    expect(queue.position).toEqual({ base: 4, used: 4 });
  });

  it("2^32 bytes, and not one more", () => {
    for (const [extra, code] of [
      [0, undefined],
      [1, "chain-too-long"],
    ] as const) {
      const ring = new RawRing();
      // Large on paper only: the bytes are not looked at.
      const large = 0x10_0000_0000;
      const nothing = new ArrayBuffer(0);
      const views = {
        u8: new Uint8Array(nothing),
        i64: new BigInt64Array(nothing),
        u16: new Uint16Array(nothing),
        u32: new Uint32Array(nothing),
      };
      const place = { guestAddress: large, userAddress: large, size: 2 ** 32 };
      ring.memory.add({ ...place, windows: [{ ...place, ...views }], close() {} });
      ring.chain([
        { address: large, length: 0x8000_0000 },
        { address: large, length: 0x7fff_ffff, flags: WRITE },
        { address: large, length: 1 + extra, flags: WRITE },
      ]);
      const queue = ring.device();
      expect(codeOf(() => queue.peek())).toBe(code);
      if (code === undefined) expect(queue.readableLength + queue.writableLength).toBe(2 ** 32);
    }
  });
});
