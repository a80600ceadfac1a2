import fc from "fast-check";
import { afterEach, describe, expect, test, vi } from "vitest";
import { DeviceQueue } from "../../../rpmsg/virtqueue/device-queue.ts";
import { InflightRegion, inflightSize } from "../../../rpmsg/virtqueue/inflight.ts";
import { GUEST_BASE, offsetOf, RawRing } from "../support/raw-ring.ts";

const SIZE = 8;

/** Bytes of a descriptor's state: inflight, and its counter's low half. */
function state(region: Buffer, head: number): [inflight: number, counter: number] {
  return [region.readUInt8(16 + 16 * head), region.readUInt32LE(16 + 16 * head + 8)];
}

function inflightHeads(region: Buffer): number[] {
  return Array.from({ length: SIZE }, (_, head) => head).filter((head) => state(region, head)[0] === 1);
}

describe("the region of a queue", () => {
  test("has the size and the layout of the specification", () => {
    expect([1, 3, 4, 16, 256, 32768].map(inflightSize)).toEqual([64, 64, 128, 320, 4160, 524352]);
    const buffer = new ArrayBuffer(inflightSize(SIZE));
    const bytes = Buffer.from(buffer);
    const region = new InflightRegion(buffer, 0, SIZE);
    expect(region.recover(0x1234)).toBeUndefined();
    region.take(5);
    region.take(2);
    region.giveBack(5);
    region.giveBack(2);
    expect(bytes.subarray(0, 16).toString("hex")).toBe(
      "0000000000000000" + // features
        "0100" + // version 1
        "0800" + // desc_num
        "0200" + // last_batch_head
        "3412", // used_idx
    );
    // inflight, padding, next: the batch before began with descriptor 0, counter
    expect(bytes.subarray(16 + 16 * 5, 16 + 16 * 6).toString("hex")).toBe("01000000000000000000000000000000");
    expect(bytes.subarray(16 + 16 * 2, 16 + 16 * 3).toString("hex")).toBe("01000000000005000100000000000000");
    region.settle(0x1236);
    expect(inflightHeads(bytes)).toEqual([]);
    expect(bytes.readUInt16LE(14)).toBe(0x1236);
  });

  test("resubmits in the order of the counters, and counts on from the highest", () => {
    const buffer = new ArrayBuffer(inflightSize(SIZE));
    const bytes = Buffer.from(buffer);
    bytes.writeUInt16LE(1, 8);
    for (const [head, counter] of [
      [6, 0x1_0000_0000n],
      [1, 9n],
      [3, 7n],
    ] as const) {
      bytes.writeUInt8(1, 16 + 16 * head);
      bytes.writeBigUInt64LE(counter, 16 + 16 * head + 8);
    }
    const region = new InflightRegion(buffer, 0, SIZE);
    expect(region.recover(0)).toEqual([3, 1, 6]);
    region.take(0);
    expect(bytes.readBigUInt64LE(16 + 8)).toBe(0x1_0000_0001n);
  });

  test("forgets the last batch where its idx was shown and its marks were not taken back", () => {
    const buffer = new ArrayBuffer(inflightSize(SIZE));
    const before = new InflightRegion(buffer, 0, SIZE);
    before.recover(10);
    for (const head of [4, 7, 0]) before.take(head);
    before.giveBack(4);
    before.settle(11);
    before.giveBack(7);
    // The idx is 12, and the process is killed.
    expect(new InflightRegion(buffer, 0, SIZE).recover(12)).toEqual([0]);
    expect(Buffer.from(buffer).readUInt16LE(14)).toBe(12);
  });

  test("a used ring that began anew leaves nothing in flight", () => {
    const buffer = new ArrayBuffer(inflightSize(SIZE));
    const before = new InflightRegion(buffer, 0, SIZE);
    before.recover(500);
    before.take(3);
    expect(new InflightRegion(buffer, 0, SIZE).recover(0)).toBeUndefined();
    expect(inflightHeads(Buffer.from(buffer))).toEqual([]);
  });

  test("a list of the last batch that leads nowhere, or in a circle, ends", () => {
    const buffer = new ArrayBuffer(inflightSize(SIZE));
    const bytes = Buffer.from(buffer);
    bytes.writeUInt16LE(1, 8);
    bytes.writeUInt16LE(0xffff, 12);
    bytes.writeUInt8(1, 16);
    expect(new InflightRegion(buffer, 0, SIZE).recover(3)).toEqual([0]);
    bytes.writeUInt16LE(2, 12);
    bytes.writeUInt16LE(2, 16 + 16 * 2 + 6);
    expect(new InflightRegion(buffer, 0, SIZE).recover(8)).toEqual([0]);
  });
});

describe("a device that is killed", () => {
  afterEach(() => vi.restoreAllMocks());

  /** A ring of which the driver has offered so many chains of one buffer. */
  function offered(count: number) {
    const ring = new RawRing({ size: SIZE });
    const driver = ring.driver();
    for (let i = 0; i < count; i++) driver.add(GUEST_BASE + offsetOf.buffers + 64 * i, 64, false);
    driver.publish();
    const memory = new ArrayBuffer(inflightSize(SIZE));
    const device = (base = 0) => new DeviceQueue(ring.setup, base, new InflightRegion(memory, 0, SIZE));
    return { ring, driver, memory: Buffer.from(memory), device };
  }

  test("a chain is in flight from the moment that it is taken until the driver sees it", () => {
    const { driver, memory, device } = offered(3);
    const queue = device();
    queue.peek();
    expect(inflightHeads(memory)).toEqual([]);
    queue.complete(0);
    queue.peek();
    queue.complete(0);
    expect(inflightHeads(memory)).toEqual([0, 1]);
    expect(driver.popUsed()).toBe(-1);
    queue.publish();
    expect(inflightHeads(memory)).toEqual([]);
    expect([driver.popUsed(), driver.popUsed(), driver.popUsed()]).toEqual([0, 1, -1]);
  });

  test("its successor takes what was in flight first, whatever base it is told", () => {
    const { driver, device } = offered(4);
    const first = device();
    for (let i = 0; i < 2; i++) {
      first.peek();
      first.complete(0);
    }
    const second = device(3);
    expect(second.position).toEqual({ base: 2, used: 0 });
    expect(second.posted()).toEqual([0, 1, 2, 3]);
    const heads: number[] = [];
    while (second.peek()) {
      heads.push(second.head);
      second.complete(0);
    }
    second.publish();
    expect(heads).toEqual([0, 1, 2, 3]);
    expect(second.position).toEqual({ base: 4, used: 4 });
    while (driver.popUsed() !== -1);
    expect(driver.free).toBe(SIZE);
  });

  test("heads that another device had in flight out of order come back too", () => {
    const { driver, memory, device } = offered(4);
    // It took 0 to 3 and gave 1 and 2 back.
    const other = device();
    for (let i = 0; i < 4; i++) {
      other.peek();
      other.complete(0);
    }
    memory.fill(0, 16);
    memory.writeUInt8(1, 16);
    memory.writeUInt8(1, 16 + 16 * 3);
    memory.writeUInt32LE(9, 16 + 8);
    const queue = device();
    expect(queue.peek() && queue.head).toBe(3);
    queue.complete(0);
    expect(queue.peek() && queue.head).toBe(0);
    queue.complete(0);
    queue.publish();
    expect([driver.popUsed(), driver.popUsed()]).toEqual([3, 0]);
  });

  test("what was taken up again and not finished is in flight for the next one", () => {
    const { device } = offered(3);
    const first = device();
    while (first.peek()) first.complete(0);
    const second = device();
    second.peek();
    second.complete(0);
    expect(second.position).toEqual({ base: 3, used: 1 });
    expect(second.posted()).toEqual([1, 2]);
    // A stop in order, and a start: the same position, so it was a pause.
    second.publish();
    const third = device(3);
    expect(third.position).toEqual(second.position);
    expect(third.posted()).toEqual([1, 2]);
  });

  test("marks that the ring belies break the queue and nothing else", () => {
    const { memory, device } = offered(1);
    device();
    for (let head = 0; head < SIZE; head++) memory.writeUInt8(1, 16 + 16 * head);
    const queue = device();
    for (let i = 0; i < SIZE; i++) {
      expect(queue.peek()).toBe(true);
      queue.complete(0);
    }
    expect(() => queue.peek()).toThrow("avail-index-jump");
  });

  test("no chain is lost and none comes back twice, wherever it is killed", () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant("offer" as const), count: fc.integer({ min: 1, max: SIZE }) }),
      fc.record({ kind: fc.constant("take" as const), count: fc.integer({ min: 1, max: SIZE }) }),
      fc.record({ kind: fc.constant("kill" as const), count: fc.integer({ min: 0, max: 25 }) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.nat(0xffff), (steps, start) => {
        const { ring, driver, device } = offered(0);
        let queue = device();
        for (let i = 0; i < start % 97; i++) {
          driver.add(GUEST_BASE + offsetOf.buffers, 8, false);
          driver.publish();
          queue.peek();
          queue.complete(0);
          queue.publish();
          driver.popUsed();
        }
        let out = 0;
        const take = (count: number): void => {
          for (let i = 0; i < count && queue.peek(); i++) queue.complete(0);
          queue.publish();
        };
        const collect = (): void => {
          while (driver.popUsed() !== -1) out--;
          expect(driver.free).toBe(SIZE - out);
        };
        for (const { kind, count } of steps) {
          if (kind === "offer") {
            for (let i = 0; i < count && driver.free > 0; i++, out++)
              driver.add(GUEST_BASE + offsetOf.buffers, 8, false);
            driver.publish();
          } else if (kind === "take") {
            take(count);
            collect();
          } else {
            killAfter(count, () => take(SIZE));
            // The driver may look before the successor comes.
            if (count % 2 === 0) collect();
            queue = device();
          }
        }
        take(2 * SIZE);
        collect();
        expect(out).toBe(0);
        expect(ring.size).toBe(SIZE);
      }),
      { numRuns: 500 },
    );
  });
});

/** Runs something until its n-th atomic store, after which it does nothing any more. */
function killAfter(stores: number, run: () => void): void {
  const store = Atomics.store as (array: Uint16Array, index: number, value: number) => number;
  let left = stores;
  const killed = new Error("killed");
  const spy = vi.spyOn(Atomics, "store").mockImplementation(((
    array: Uint16Array,
    index: number,
    value: number,
  ) => {
    if (left-- === 0) throw killed;
    return store(array, index, value);
  }) as typeof Atomics.store);
  try {
    run();
  } catch (error) {
    if (error !== killed) throw error;
  } finally {
    spy.mockRestore();
  }
}
