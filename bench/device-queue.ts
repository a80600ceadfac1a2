import { Bench } from "tinybench";
import { copyBytes } from "../rpmsg/memory/copy-bytes.ts";
import type { MemoryWindow } from "../rpmsg/memory/guest-memory.ts";
import { GuestMemory } from "../rpmsg/memory/guest-memory.ts";
import { heapRegion } from "../rpmsg/memory/heap-memory.ts";
import type { Segment } from "../rpmsg/virtqueue/device-queue.ts";
import { DeviceQueue } from "../rpmsg/virtqueue/device-queue.ts";
import { DriverQueue } from "../rpmsg/virtqueue/driver-queue.ts";
import { ringSizes } from "../rpmsg/virtqueue/layout.ts";
import { HEADER_SIZE } from "../rpmsg/wire/header.ts";

const QUEUE_SIZE = 256;
const BUFFER_SIZE = 512;
const BUFFERS = 65_536;

export interface QueueResult {
  size: number;
  /** Nanoseconds a message. */
  memcpy: number;
  request: number;
  response: number;
}

/**
 * Cost of the device side of a queue for messages of `size` bytes, beside copying as many bytes from the same memory
 * and nothing else. A batch is one full ring; what the driver does for it is part of neither figure, but for the
 * publishing of one index.
 */
export async function benchDeviceQueue(size: number): Promise<QueueResult> {
  const out = new Uint8Array(QUEUE_SIZE * BUFFER_SIZE);
  const request = makeRing(false);
  const response = makeRing(true);
  const header = new Uint32Array([1024, 1025, 0, size]);
  for (let i = 0; i < QUEUE_SIZE; i++) {
    const at = BUFFERS + i * BUFFER_SIZE;
    request.window.u32.set(header, at >> 2);
  }
  const bench = new Bench({ time: 1000, warmupTime: 300 });
  bench.add("memcpy", () => {
    const { u8 } = request.window;
    for (let i = 0; i < QUEUE_SIZE; i++) {
      copyBytes(u8, BUFFERS + i * BUFFER_SIZE + HEADER_SIZE, out, i * BUFFER_SIZE, size);
    }
  });
  bench.add("request", () => {
    request.offerAll();
    const { queue } = request;
    for (let i = 0; queue.peek(); i++) {
      const { window, offset } = queue.segments[0] as Segment;
      const length = (window.u32[(offset >> 2) + 3] as number) & 0xffff;
      copyBytes(window.u8, offset + HEADER_SIZE, out, i * BUFFER_SIZE, length);
      queue.complete(0);
    }
    queue.publish();
  });
  bench.add("response", () => {
    response.offerAll();
    const { queue } = response;
    for (let i = 0; queue.peek(); i++) {
      queue.writeMessage(header, out, i * BUFFER_SIZE, size);
      queue.complete(HEADER_SIZE + size);
    }
    queue.publish();
  });
  await bench.run();
  const cost = (name: string): number => {
    const { result } = bench.getTask(name) ?? {};
    if (result === undefined || !("latency" in result)) throw new Error(`${name} did not run`);
    return (result.latency.p50 * 1e6) / QUEUE_SIZE;
  };
  return { size, memcpy: cost("memcpy"), request: cost("request"), response: cost("response") };
}

/** A ring whose driver has made every buffer available once, and offers them again by its index alone. */
function makeRing(writable: boolean): { window: MemoryWindow; queue: DeviceQueue; offerAll(): void } {
  const region = heapRegion(0, BUFFERS + QUEUE_SIZE * BUFFER_SIZE);
  const memory = new GuestMemory();
  memory.add(region);
  const [window] = region.windows as [MemoryWindow];
  const sizes = ringSizes(QUEUE_SIZE);
  const addresses = { descriptors: 0, available: 8192, used: 16_384 };
  if (sizes.descriptors > 8192 || sizes.available > 8192) throw new RangeError("the layout is too small");
  const setup = { memory, size: QUEUE_SIZE, addresses, indirect: false, eventIndex: false };
  const driver = new DriverQueue(setup);
  for (let i = 0; i < QUEUE_SIZE; i++) driver.add(BUFFERS + i * BUFFER_SIZE, BUFFER_SIZE, writable);
  const index = (addresses.available >> 1) + 1;
  return {
    window,
    queue: new DeviceQueue(setup, 0),
    offerAll: () => void Atomics.add(window.u16, index, QUEUE_SIZE),
  };
}
