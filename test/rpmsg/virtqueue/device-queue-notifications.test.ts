import { describe, expect, it } from "vitest";
import { RawRing } from "../support/raw-ring.ts";

/** Offers `count` chains, completes them, publishes. */
function pass(ring: RawRing, queue: ReturnType<RawRing["device"]>, count: number): boolean {
  for (let i = 0; i < count; i++) {
    ring.describe(0, { address: ring.buffer(0), length: 8 });
    ring.offer(0);
    expect(queue.peek()).toBe(true);
    queue.complete(0);
  }
  return queue.publish();
}

describe("calls to the driver", () => {
  it("are made for something new, unless NO_INTERRUPT is set", () => {
    const ring = new RawRing();
    const queue = ring.device();
    expect(queue.publish()).toBe(false);
    expect(pass(ring, queue, 2)).toBe(true);
    expect(queue.publish()).toBe(false);
    ring.setAvailableFlags(1);
    expect(pass(ring, queue, 1)).toBe(false);
    ring.setAvailableFlags(0xfffe); // other bits mean nothing
    expect(pass(ring, queue, 1)).toBe(true);
  });

  it("do not look at used_event without EVENT_IDX", () => {
    const ring = new RawRing();
    ring.setUsedEvent(1000);
    expect(pass(ring, ring.device(), 1)).toBe(true);
  });

  it("are made with EVENT_IDX when the step passes used_event, whatever NO_INTERRUPT says", () => {
    const ring = new RawRing({ eventIndex: true });
    const queue = ring.device();
    ring.setAvailableFlags(1);
    ring.setUsedEvent(2);
    expect(pass(ring, queue, 1)).toBe(false); // 0 -> 1
    expect(pass(ring, queue, 1)).toBe(false); // 1 -> 2
    expect(pass(ring, queue, 1)).toBe(true); // 2 -> 3: entry 2 was asked for
    expect(pass(ring, queue, 1)).toBe(false); // 3 -> 4
    ring.setUsedEvent(6);
    expect(pass(ring, queue, 5)).toBe(true); // 4 -> 9 in one step
    ring.setUsedEvent(8);
    expect(pass(ring, queue, 5)).toBe(false); // 9 -> 14: too late
  });

  it.each([
    ["the last one before the wrap", 0xffff, [false, true, false]],
    ["the first one behind it", 0, [false, false, true]],
    ["one that was passed", 0xfffd, [false, false, false]],
  ])("wrap at 16 bits, used_event being %s", (_, event, expected) => {
    const ring = new RawRing({ eventIndex: true, start: 0xfffe });
    const queue = ring.device();
    ring.setUsedEvent(event);
    expect([1, 2, 3].map(() => pass(ring, queue, 1))).toEqual(expected);
  });
});

describe("kicks by the driver", () => {
  it("are turned off and on by a flag, which is written once at least: a stop may have left either value", () => {
    for (const left of [0, 1]) {
      const ring = new RawRing();
      ring.bytes[0x4000] = left; // flags of the used ring
      const queue = ring.device();
      queue.wantKicks(true);
      expect(ring.usedFlags).toBe(0);
      queue.wantKicks(false);
      expect(ring.usedFlags).toBe(1);
      queue.wantKicks(true);
      expect(ring.usedFlags).toBe(0);
      expect(ring.availableEvent).toBe(0);
      ring.bytes[0x4000] = left;
      ring.device().wantKicks(false);
      expect(ring.usedFlags).toBe(1);
    }
  });

  it("are asked for with EVENT_IDX by the next entry, and not by the flag", () => {
    const ring = new RawRing({ eventIndex: true, start: 0xffff });
    const queue = ring.device();
    queue.wantKicks(false);
    expect(ring.availableEvent).toBe(0);
    queue.wantKicks(true);
    expect(ring.availableEvent).toBe(0xffff);
    pass(ring, queue, 1);
    expect(ring.availableEvent).toBe(0xffff);
    queue.wantKicks(true);
    expect(ring.availableEvent).toBe(0);
    pass(ring, queue, 3);
    queue.wantKicks(false);
    expect(ring.availableEvent).toBe(0);
    queue.wantKicks(true);
    expect(ring.availableEvent).toBe(3);
    expect(ring.usedFlags).toBe(0);
  });

  it.each([true, false])(
    "that were not made in the race are made up for by peek, with EVENT_IDX %s",
    (eventIndex) => {
      const ring = new RawRing({ eventIndex });
      const queue = ring.device();
      queue.wantKicks(false);
      expect(queue.peek()).toBe(false);
      // The driver adds while kicks are off and makes none; then they are turned on.
      ring.describe(0, { address: ring.buffer(0), length: 8 });
      ring.offer(0);
      queue.wantKicks(true);
      expect(queue.peek()).toBe(true);
      queue.complete(0);
      expect(queue.peek()).toBe(false);
    },
  );

  it.each([true, false])("may be asked for while a chain is current, with EVENT_IDX %s", (eventIndex) => {
    const ring = new RawRing({ eventIndex });
    const queue = ring.device();
    for (const index of [0, 1, 2]) ring.describe(index, { address: ring.buffer(64 * index), length: 8 });
    ring.offer(0, 1);
    expect(queue.peek()).toBe(true);
    queue.wantKicks(true);
    expect(queue.peek()).toBe(true);
    queue.complete(0);
    expect(queue.peek()).toBe(true);
    expect(queue.head).toBe(1);
    queue.wantKicks(true);
    queue.complete(0);
    // What follows in the ring is not available: it must not be taken.
    expect(queue.peek()).toBe(false);
    ring.offer(2);
    expect(queue.peek()).toBe(true);
    expect(queue.head).toBe(2);
  });
});
