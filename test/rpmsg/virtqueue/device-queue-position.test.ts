import { describe, expect, it } from "vitest";
import { codeOf } from "../support/coded.ts";
import { RawRing } from "../support/raw-ring.ts";

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

describe("what waits in a device queue", () => {
  it("is what the driver made available and was not taken yet, over the end of 16 bits too", () => {
    const ring = new RawRing({ size: 4, start: 0xfffe });
    for (const index of [0, 1, 2, 3]) ring.describe(index, { address: ring.buffer(0), length: 8 });
    const queue = ring.device();
    expect(queue.waiting).toBe(0);
    ring.offer(0, 1, 2, 3);
    expect(queue.waiting).toBe(4);
    queue.peek();
    expect(queue.waiting).toBe(4);
    queue.complete(0);
    expect(queue.waiting).toBe(3);
  });

  it("is nothing where the driver's index says nothing", () => {
    const ring = new RawRing({ size: 4 });
    ring.setAvailableIndex(9);
    expect(ring.device(0).waiting).toBe(0);
  });
});
