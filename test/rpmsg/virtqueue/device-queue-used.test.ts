import { afterEach, describe, expect, it, vi } from "vitest";
import type { RawDescriptor } from "../support/raw-ring.ts";
import { CANARY, offsetOf, RawRing, WRITE } from "../support/raw-ring.ts";

const HEADER = Uint32Array.of(0x11111111, 0x22222222, 0, 0x44444444);
const HEADER_BYTES = [...new Uint8Array(HEADER.buffer)];

afterEach(() => {
  vi.restoreAllMocks();
});

/** Places of all bytes that changed. */
function changes(before: Uint8Array, after: Uint8Array): number[] {
  const places: number[] = [];
  for (let i = 0; i < before.length; i++) if (before[i] !== after[i]) places.push(i);
  return places;
}

/** The bytes of the writable descriptors, one after another. */
function written(ring: RawRing, descriptors: readonly RawDescriptor[]): number[] {
  return descriptors
    .filter(({ flags = 0 }) => (flags & WRITE) !== 0)
    .flatMap(({ address, length }) => [...ring.at(Number(address), length)]);
}

describe("used elements of a device queue", () => {
  it("have the head and exactly the length written, in the order of completion", () => {
    const ring = new RawRing({ size: 4 });
    const queue = ring.device();
    for (let i = 0; i < 4; i++) ring.describe(i, { address: ring.buffer(64 * i), length: 64, flags: WRITE });
    ring.offer(2, 0, 3, 1);
    for (const length of [16, 64, 0, 17]) {
      expect(queue.peek()).toBe(true);
      queue.complete(length);
    }
    queue.publish();
    expect(ring.usedIndex).toBe(4);
    expect([0, 1, 2, 3].map((slot) => ring.used(slot))).toEqual([
      { id: 2, length: 16 },
      { id: 0, length: 64 },
      { id: 3, length: 0 },
      { id: 1, length: 17 },
    ]);
  });

  it("wrap around in the ring and at 16 bits", () => {
    const ring = new RawRing({ size: 4, start: 0xfffe });
    const queue = ring.device();
    for (let i = 0; i < 6; i++) {
      ring.describe(i & 3, { address: ring.buffer(0), length: 64, flags: WRITE });
      ring.offer(i & 3);
      expect(queue.peek()).toBe(true);
      queue.complete(20 + i);
      queue.publish();
      expect(ring.usedIndex).toBe((0xfffe + i + 1) & 0xffff);
      expect(ring.used((0xfffe + i) & 3)).toEqual({ id: i & 3, length: 20 + i });
    }
  });

  it("become visible with publish only, all at once", () => {
    const ring = new RawRing();
    const queue = ring.device();
    ring.describe(0, { address: ring.buffer(0), length: 64 });
    ring.offer(0, 0, 0);
    for (let i = 0; i < 3; i++) {
      queue.peek();
      queue.complete(0);
      expect(ring.usedIndex).toBe(0);
    }
    queue.publish();
    expect(ring.usedIndex).toBe(3);
  });

  it("are complete before the index is stored, and the index before the flags are read", () => {
    const ring = new RawRing({ start: 5 });
    const queue = ring.device();
    ring.describe(3, { address: ring.buffer(0), length: 64, flags: WRITE });
    ring.offer(3);
    queue.peek();
    queue.writeMessage(HEADER, new Uint8Array(8).fill(7), 0, 8);
    queue.complete(24);
    const steps: string[] = [];
    const { load, store } = Atomics as unknown as {
      load: (array: Uint16Array, index: number) => number;
      store: (array: Uint16Array, index: number, value: number) => number;
    };
    // The declared types are those of 64-bit integers, the last overload.
    const spied = Atomics as unknown as Record<"load" | "store", (...values: never[]) => number>;
    vi.spyOn(spied, "store").mockImplementation((array: Uint16Array, index: number, value: number) => {
      expect(ring.used(5)).toEqual({ id: 3, length: 24 });
      expect([...ring.at(ring.buffer(0), 24)]).toEqual([...HEADER_BYTES, 7, 7, 7, 7, 7, 7, 7, 7]);
      expect(ring.usedIndex).toBe(5);
      steps.push(`store ${value}`);
      return store(array, index, value);
    });
    vi.spyOn(spied, "load").mockImplementation((array: Uint16Array, index: number) => {
      expect(ring.usedIndex).toBe(6);
      steps.push("load flags");
      return load(array, index);
    });
    queue.publish();
    vi.restoreAllMocks();
    expect(steps).toEqual(["store 6", "load flags"]);
  });

  it("cannot say more than the chain's writable part holds, nor be written without a chain", () => {
    const ring = new RawRing();
    const queue = ring.device();
    expect(() => queue.complete(0)).toThrow(RangeError);
    ring.chain([
      { address: ring.buffer(0), length: 100 },
      { address: ring.buffer(256), length: 20, flags: WRITE },
    ]);
    queue.peek();
    expect(() => queue.complete(21)).toThrow(RangeError);
    queue.complete(20);
    expect(() => queue.complete(0)).toThrow(RangeError);
  });
});

describe("what a device queue writes", () => {
  const layouts: {
    name: string;
    parts: readonly (readonly [offset: number, length: number, flags: number])[];
  }[] = [
    { name: "one aligned buffer", parts: [[0, 64, WRITE]] },
    { name: "one that is just large enough", parts: [[0, 46, WRITE]] },
    {
      name: "the header and a part of the payload in the first buffer",
      parts: [
        [0, 40, WRITE],
        [100, 64, WRITE],
      ],
    },
    { name: "one that is unaligned by 1", parts: [[1, 64, WRITE]] },
    { name: "one that is unaligned by 2", parts: [[2, 46, WRITE]] },
    {
      name: "a buffer of its own for the header",
      parts: [
        [0, 16, WRITE],
        [100, 64, WRITE],
      ],
    },
    {
      name: "a header in two halves",
      parts: [
        [0, 8, WRITE],
        [100, 64, WRITE],
      ],
    },
    {
      name: "16 buffers of one byte for the header",
      parts: [...Array.from({ length: 16 }, (_, i) => [3 * i, 1, WRITE] as const), [100, 30, WRITE]],
    },
    {
      name: "a readable buffer first",
      parts: [
        [0, 64, 0],
        [100, 46, WRITE],
      ],
    },
    {
      name: "an empty writable buffer first",
      parts: [
        [300, 0, WRITE],
        [100, 46, WRITE],
      ],
    },
    {
      name: "readable and several writable ones",
      parts: [
        [0, 3, 0],
        [10, 3, 0],
        [20, 15, WRITE],
        [41, 16, WRITE],
        [61, 40, WRITE],
      ],
    },
  ];

  it.each(layouts)("is the message, the used ring and nothing else: $name", ({ parts }) => {
    const ring = new RawRing({ size: 32 });
    const descriptors = parts.map(([offset, length, flags]) => ({
      address: ring.buffer(offset),
      length,
      flags,
    }));
    ring.chain(descriptors);
    const queue = ring.device();
    const before = ring.bytes.slice();
    expect(queue.peek()).toBe(true);
    const source = Uint8Array.from({ length: 34 }, (_, i) => i + 1);
    queue.writeMessage(HEADER, source, 2, 30);
    queue.complete(46);
    queue.publish();
    queue.wantKicks(false);
    queue.wantKicks(true);
    const room = written(ring, descriptors);
    expect(room.slice(0, 46)).toEqual([...HEADER_BYTES, ...source.subarray(2, 32)]);
    expect(room.slice(46).every((byte) => byte === CANARY)).toBe(true);
    const allowed = new Set<number>();
    let left = 46;
    for (const [offset, length, flags] of parts) {
      for (let i = 0; i < length && flags === WRITE && left > 0; i++, left--)
        allowed.add(offsetOf.buffers + offset + i);
    }
    for (let i = 0; i < 6 + 8 * ring.size; i++) allowed.add(offsetOf.used + i);
    expect(changes(before, ring.bytes).filter((place) => !allowed.has(place))).toEqual([]);
  });

  it.each([0, 1, 2])("is a header alone for an empty message, at %d", (offset) => {
    const ring = new RawRing();
    ring.chain([{ address: ring.buffer(offset), length: 16, flags: WRITE }]);
    const queue = ring.device();
    queue.peek();
    queue.writeMessage(HEADER, new Uint8Array(), 0, 0);
    expect([...ring.at(ring.buffer(offset), 17)]).toEqual([...HEADER_BYTES, CANARY]);
  });

  it.each([true, false])("is not the available ring, with EVENT_IDX %s", (eventIndex) => {
    const ring = new RawRing({ size: 4, eventIndex });
    const queue = ring.device();
    ring.describe(1, { address: ring.buffer(0), length: 8 });
    ring.offer(1);
    const available = ring.bytes.slice(offsetOf.available, offsetOf.available + 14);
    queue.wantKicks(false);
    queue.wantKicks(true);
    queue.peek();
    queue.complete(0);
    queue.publish();
    expect([...ring.bytes.slice(offsetOf.available, offsetOf.available + 14)]).toEqual([...available]);
    // Around the used ring: its event index is its last field.
    expect(ring.bytes[offsetOf.used + 6 + 8 * 4]).toBe(CANARY);
    expect(ring.bytes[offsetOf.used - 1]).toBe(CANARY);
  });
});
