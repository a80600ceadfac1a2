import { expect, test } from "vitest";
import { DeviceQueue } from "../../../rpmsg/virtqueue/device-queue.ts";
import { InflightRegion, inflightSize } from "../../../rpmsg/virtqueue/inflight.ts";
import { RawRing } from "../support/raw-ring.ts";

const SIZE = 8;

function offeredRing(...heads: number[]): RawRing {
  const ring = new RawRing({ size: SIZE });
  for (let head = 0; head < SIZE; head++) {
    ring.describe(head, { address: ring.buffer(0), length: 100 + head, flags: 2 });
  }
  ring.offer(...heads);
  return ring;
}

/** What is ahead: the heads and the lengths of the chains. */
function seen(ahead: DeviceQueue): number[][] {
  const chains: number[][] = [];
  while (ahead.peek()) {
    chains.push([ahead.head, ahead.writableLength]);
    ahead.skip();
  }
  return chains;
}

test("a look ahead sees the chains from so many on, and leaves them to the queue", () => {
  const ring = offeredRing(3, 1, 4);
  const queue = ring.device();
  const ahead = queue.lookAhead(1);
  expect(seen(ahead)).toEqual([
    [1, 101],
    [4, 104],
  ]);
  ring.offer(5);
  expect(seen(ahead)).toEqual([[5, 105]]);
  expect(ring.usedIndex).toBe(0);
  const heads: number[] = [];
  while (queue.peek()) {
    heads.push(queue.head);
    queue.complete(0);
  }
  expect(heads).toEqual([3, 1, 4, 5]);
  expect(() => ahead.skip()).toThrow(RangeError);
});

test("it asks for kicks where it stands itself", () => {
  const ring = new RawRing({ size: SIZE, eventIndex: true });
  ring.describe(0, { address: ring.buffer(0), length: 100, flags: 2 });
  ring.offer(0, 0, 0);
  const ahead = ring.device().lookAhead(0);
  seen(ahead);
  ahead.wantKicks(true);
  expect(ring.availableEvent).toBe(3);
});

test.each([
  [0, [2, 6, 3, 1]],
  [1, [6, 3, 1]],
  [2, [3, 1]],
  [3, [1]],
])("what a killed predecessor had taken comes first: %i chains on", (count, expected) => {
  // 2 and 6 were taken, of which nothing is used.
  const ring = offeredRing(2, 6, 3, 1);
  const memory = new ArrayBuffer(inflightSize(SIZE));
  const before = new InflightRegion(memory, 0, SIZE);
  before.recover(0);
  before.take(2);
  before.take(6);
  const queue = new DeviceQueue(ring.setup, 0, new InflightRegion(memory, 0, SIZE));
  expect(seen(queue.lookAhead(count)).map(([head]) => head)).toEqual(expected);
  const heads: number[] = [];
  while (queue.peek()) {
    heads.push(queue.head);
    queue.complete(0);
  }
  expect(heads).toEqual([2, 6, 3, 1]);
});
