import { describe, expect, it } from "vitest";
import { heapRegion } from "../../../rpmsg/memory/heap-memory.ts";
import { codeOf } from "../support/coded.ts";
import { GUEST_BASE, MEMORY_SIZE, RawRing, USER_BASE, WRITE } from "../support/raw-ring.ts";
import { windowOf } from "../support/windows.ts";

describe("the position of a device queue", () => {
  it("begins at the base that is given and at the used index in memory", () => {
    const ring = new RawRing({ start: 7 });
    ring.setUsedIndex(5);
    const queue = ring.device(7);
    expect(queue.position).toEqual({ base: 7, used: 5 });
    expect(queue.peek()).toBe(false);
    expect(queue.publish()).toBe(false);
    ring.describe(2, { address: ring.buffer(0), length: 8 });
    ring.offer(2);
    expect(queue.peek()).toBe(true);
    expect(queue.head).toBe(2);
    expect(queue.position).toEqual({ base: 7, used: 5 });
    queue.complete(0);
    expect(queue.position).toEqual({ base: 8, used: 6 });
    queue.publish();
    expect(ring.usedIndex).toBe(6);
    expect(ring.used(5).id).toBe(2);
  });

  it("takes what is available from the base on, a full ring at once", () => {
    const ring = new RawRing({ size: 4, start: 0xfffd });
    for (const index of [0, 1, 2, 3]) ring.describe(index, { address: ring.buffer(0), length: 8 });
    ring.offer(3, 1, 0, 2);
    const heads: number[] = [];
    const queue = ring.device();
    while (queue.peek()) {
      heads.push(queue.head);
      queue.complete(0);
    }
    expect(heads).toEqual([3, 1, 0, 2]);
  });

  it("goes on where a queue before it stopped; a chain that was only looked at is looked at again", () => {
    const ring = new RawRing({ size: 4 });
    for (const index of [0, 1, 2]) ring.describe(index, { address: ring.buffer(0), length: 8 });
    ring.offer(0, 1, 2);
    const first = ring.device();
    first.peek();
    first.complete(0);
    first.peek();
    first.publish();
    const { base, used } = first.position;
    expect([base, used]).toEqual([1, 1]);
    const second = ring.device(base);
    expect(second.position).toEqual({ base, used });
    expect(second.peek()).toBe(true);
    expect(second.head).toBe(1);
  });

  it("has 16 bits", () => {
    expect(new RawRing().device(0x1_0003).position.base).toBe(3);
  });

  it.each([
    ["too far back", 4, 9],
    ["ahead of the driver", 10, 9],
  ])("whose base is %s is noticed", (_, base, index) => {
    const ring = new RawRing({ size: 4 });
    ring.setAvailableIndex(index);
    expect(codeOf(() => ring.device(base).peek())).toBe("avail-index-jump");
  });
});

describe("a device queue after a change of the memory regions", () => {
  /** The same addresses, other bytes: as a region that was taken out and mapped again elsewhere. */
  function replaced(ring: RawRing, size = MEMORY_SIZE) {
    ring.memory.remove(GUEST_BASE, USER_BASE, MEMORY_SIZE);
    const region = heapRegion(GUEST_BASE, size, USER_BASE);
    ring.memory.add(region);
    const { u8 } = windowOf(region);
    u8.set(ring.bytes.subarray(0, size));
    return u8;
  }

  it("finds its ring and its buffers again, at the same position", () => {
    const ring = new RawRing({ size: 4, start: 3 });
    for (const index of [0, 1])
      ring.describe(index, { address: ring.buffer(64 * index), length: 32, flags: WRITE });
    ring.offer(0, 1);
    const queue = ring.device();
    queue.peek();
    queue.complete(16);
    queue.publish();
    queue.peek();
    const bytes = replaced(ring);
    const old = ring.bytes.slice();
    queue.remap();
    expect(queue.position).toEqual({ base: 4, used: 4 });
    // The current chain is looked for anew.
    expect(() => queue.complete(0)).toThrow(RangeError);
    expect(queue.peek()).toBe(true);
    expect(queue.head).toBe(1);
    queue.writeMessage(Uint32Array.of(1, 2, 3, 4), Uint8Array.of(5), 0, 1);
    queue.complete(17);
    queue.publish();
    queue.wantKicks(false);
    expect(Buffer.compare(ring.bytes, old)).toBe(0);
    expect([...bytes.subarray(0x8040, 0x8051)]).toEqual([1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5]);
    expect([bytes[0x4000], bytes[0x4002]]).toEqual([1, 5]);
  });

  it("says so when its ring is gone", () => {
    const ring = new RawRing();
    const queue = ring.device();
    replaced(ring, 0x4000);
    expect(codeOf(() => queue.remap())).toBe("ring-range");
  });

  it("refuses buffers of memory that is gone", () => {
    const ring = new RawRing({ size: 4 });
    ring.describe(0, { address: ring.buffer(0), length: 32 });
    ring.offer(0, 0);
    const queue = ring.device();
    expect(queue.peek()).toBe(true);
    queue.complete(0);
    replaced(ring, 0x8000);
    queue.remap();
    expect(codeOf(() => queue.peek())).toBe("descriptor-range");
  });
});
