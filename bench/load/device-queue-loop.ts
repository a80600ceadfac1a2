import { Session } from "node:inspector/promises";
import { copyWords, wordsOf } from "../../rpmsg/memory/copy-bytes.ts";
import type { MemoryWindow } from "../../rpmsg/memory/guest-memory.ts";
import { GuestMemory } from "../../rpmsg/memory/guest-memory.ts";
import { heapRegion } from "../../rpmsg/memory/heap-memory.ts";
import { DeviceQueue } from "../../rpmsg/virtqueue/device-queue.ts";
import { DriverQueue } from "../../rpmsg/virtqueue/driver-queue.ts";
import { ringSizes } from "../../rpmsg/virtqueue/layout.ts";
import { HEADER_SIZE } from "../../rpmsg/wire/header.ts";
import { median } from "../harness.ts";

const QUEUE_SIZE = 256;
const BUFFER_SIZE = 512;
const BUFFERS = 65_536;
const GUEST_BASE = 0x4000_0000;

export interface QueueLoopOptions {
  /** memcpy: copying as many bytes from the same memory, and nothing else. */
  loop: "memcpy" | "request" | "response";
  size: number;
  measureMs: number;
  /** Counts what the loop allocates instead of the time that it takes. */
  heap: boolean;
}

export interface QueueLoopResult {
  /** Nanoseconds a message: the median over batches of one full ring. */
  ns: number;
  /** What a message allocates, from a sampling heap profile; NaN without one. */
  bytes: number;
  /** Where, most first: function, file and bytes a message. */
  allocations: string[];
}

/**
 * The device side of a queue: a batch is one full ring. What the driver does for it is left out, but for the publishing
 * of one index.
 */
function makeBatch({ loop, size }: QueueLoopOptions): () => void {
  const out = wordsOf(new ArrayBuffer(QUEUE_SIZE * BUFFER_SIZE));
  const { window, queue, offerAll } = makeRing(loop === "response");
  const header = new Uint32Array([1024, 1025, 0, size]);
  for (let i = 0; i < QUEUE_SIZE; i++) window.u32.set(header, (BUFFERS + i * BUFFER_SIZE) >> 2);
  if (loop === "memcpy") {
    return () => {
      for (let i = 0; i < QUEUE_SIZE; i++) {
        copyWords(window, BUFFERS + i * BUFFER_SIZE + HEADER_SIZE, out, i * BUFFER_SIZE, size);
      }
    };
  }
  if (loop === "request") {
    return () => {
      offerAll();
      for (let i = 0; queue.peek(); i++) {
        const segment = queue.first;
        const length = (segment.window.u32[(segment.offset >> 2) + 3] as number) & 0xffff;
        copyWords(segment.window, segment.offset + HEADER_SIZE, out, i * BUFFER_SIZE, length);
        queue.complete(0);
      }
      queue.publish();
    };
  }
  return () => {
    offerAll();
    for (let i = 0; queue.peek(); i++) {
      queue.writeWords(out, i * BUFFER_SIZE, HEADER_SIZE + size);
      queue.complete(HEADER_SIZE + size);
    }
    queue.publish();
  };
}

/** A ring whose driver has made every buffer available once, and offers them again by its index alone. */
function makeRing(writable: boolean): { window: MemoryWindow; queue: DeviceQueue; offerAll: () => void } {
  const region = heapRegion(GUEST_BASE, BUFFERS + QUEUE_SIZE * BUFFER_SIZE);
  const memory = new GuestMemory();
  memory.add(region);
  const [window] = region.windows as [MemoryWindow];
  const sizes = ringSizes(QUEUE_SIZE);
  const at = { available: 8192, used: 16_384 };
  const addresses = {
    descriptors: GUEST_BASE,
    available: GUEST_BASE + at.available,
    used: GUEST_BASE + at.used,
  };
  if (sizes.descriptors > at.available || sizes.available > at.used - at.available)
    throw new RangeError("the layout is too small");
  const setup = { memory, size: QUEUE_SIZE, addresses, indirect: false, eventIndex: false };
  const driver = new DriverQueue(setup);
  for (let i = 0; i < QUEUE_SIZE; i++)
    driver.add(GUEST_BASE + BUFFERS + i * BUFFER_SIZE, BUFFER_SIZE, writable);
  const index = (at.available >> 1) + 1;
  return {
    window,
    queue: new DeviceQueue(setup, 0),
    offerAll: () => void Atomics.add(window.u16, index, QUEUE_SIZE),
  };
}

function time(batch: () => void, measureMs: number): number {
  const times: number[] = [];
  const start = performance.now();
  const end = start + measureMs;
  for (let before = start; before < end; ) {
    batch();
    const after = performance.now();
    if (before > start + measureMs / 4) times.push(after - before);
    before = after;
  }
  return (median(times) * 1e6) / QUEUE_SIZE;
}

/** Runs ten thousand batches under the heap profiler, which sees objects that are gone again, too. */
async function profile(batch: () => void): Promise<Pick<QueueLoopResult, "bytes" | "allocations">> {
  const batches = 10_000;
  for (let i = 0; i < 1000; i++) batch();
  const session = new Session();
  session.connect();
  await session.post("HeapProfiler.startSampling", {
    samplingInterval: 1024,
    // Node's types lack these; V8 knows them.
    ...{ includeObjectsCollectedByMajorGC: true, includeObjectsCollectedByMinorGC: true },
  });
  for (let i = 0; i < batches; i++) batch();
  const { profile: result } = await session.post("HeapProfiler.stopSampling");
  session.disconnect();
  const found = new Map<string, number>();
  const walk = (node: typeof result.head, inBatch: boolean): void => {
    const { functionName, url, lineNumber } = node.callFrame;
    const inside = inBatch || /\/(rpmsg|device-queue-loop)\b/.test(url);
    if (inside && node.selfSize > 0) {
      const where = `${functionName || "anonymous"} (${url.split("/").slice(-2).join("/")}:${lineNumber + 1})`;
      found.set(where, (found.get(where) ?? 0) + node.selfSize / batches / QUEUE_SIZE);
    }
    for (const child of node.children) walk(child, inside);
  };
  walk(result.head, false);
  const sorted = [...found].toSorted(([, a], [, b]) => b - a);
  return {
    bytes: sorted.reduce((sum, [, bytes]) => sum + bytes, 0),
    allocations: sorted.slice(0, 3).map(([where, bytes]) => `${where} ${bytes.toFixed(1)} B`),
  };
}

const options = JSON.parse(process.argv[2] ?? "{}") as QueueLoopOptions;
const batch = makeBatch(options);
const result: QueueLoopResult = options.heap
  ? { ns: Number.NaN, ...(await profile(batch)) }
  : { ns: time(batch, options.measureMs), bytes: Number.NaN, allocations: [] };
process.stdout.write(`${JSON.stringify(result)}\n`);
