import assert from "node:assert/strict";
import { Worker } from "node:worker_threads";

/** Where the guest's things are, in bytes from the start of the shared memory. */
export interface MutatorMap {
  /** Two rings: offsets of their parts. */
  rings: readonly { descriptors: number; available: number; used: number }[];
  /** Entries of each ring. */
  size: number;
  /** Buffers of the first half of the descriptors, which never get WRITE, and of the second half, which always have it. */
  readable: { offset: number; address: number; size: number };
  writable: { offset: number; address: number; size: number };
}

const PAUSED = 0;
const RUNNING = 1;
const ENDED = 2;

/** A guest's processor: a thread that goes on changing rings, headers and payloads while the device looks at them. */
export class MutatingThread {
  /** State, whether the thread has paused, and mutations so far. */
  readonly #control = new Int32Array(new SharedArrayBuffer(12));
  readonly #worker: Worker;

  /**
   * @param shadow gets whatever the thread writes to `memory`, so that other writers show
   */
  constructor(memory: SharedArrayBuffer, shadow: SharedArrayBuffer, map: MutatorMap, seed: number) {
    const workerData = { memory, shadow, map, seed, control: this.#control };
    // By its text: a worker of Node 20 cannot be started from TypeScript.
    this.#worker = new Worker(`(${mutate.toString()})(require("node:worker_threads").workerData)`, {
      eval: true,
      workerData,
    });
  }

  /** Mutations since the start. */
  get count(): number {
    return Atomics.load(this.#control, 2);
  }

  resume(): void {
    Atomics.store(this.#control, 1, 0);
    Atomics.store(this.#control, 0, RUNNING);
    Atomics.notify(this.#control, 0);
  }

  /** Lets the thread run, for a moment. */
  yield(): void {
    Atomics.wait(this.#control, 1, 0, 0.1);
  }

  /** Waits until the thread writes no more. */
  pause(): void {
    Atomics.store(this.#control, 0, PAUSED);
    assert.notEqual(Atomics.wait(this.#control, 1, 0, 20_000), "timed-out", "the mutating thread is gone");
  }

  async close(): Promise<void> {
    Atomics.store(this.#control, 0, ENDED);
    Atomics.notify(this.#control, 0);
    await this.#worker.terminate();
  }
}

interface MutatorData {
  memory: SharedArrayBuffer;
  shadow: SharedArrayBuffer;
  map: MutatorMap;
  seed: number;
  control: Int32Array;
}

/** The thread. It is started by its text, so it names nothing from outside. Every byte that it writes to a buffer is below 0x80. */
function mutate({ memory, shadow, map, seed, control }: MutatorData): void {
  const views = [new DataView(memory), new DataView(shadow)] as const;
  const { size, rings, readable, writable } = map;
  const half = size / 2;
  let state = seed;

  /** mulberry32, as test/support/random.ts has it. */
  function below(bound: number): number {
    state = (state + 0x6d2b_79f5) | 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * bound);
  }
  function put16(at: number, value: number): void {
    for (const view of views) view.setUint16(at, value, true);
  }
  function put32(at: number, value: number): void {
    for (const view of views) view.setUint32(at, value, true);
  }

  function descriptor(at: number, index: number): void {
    const part = index < half ? readable : writable;
    const address = part.address + 64 * below(part.size / 64) + (below(8) === 0 ? below(64) : 0);
    const flag = index < half ? 0 : 2;
    const more = below(8) === 0 ? 1 : 0;
    switch (below(4)) {
      case 0:
        put32(at, address);
        break;
      case 1:
        put32(at + 8, [0, 16, 56, 64, 64, 64, 128, below(part.size)][below(8)] as number);
        break;
      case 2:
        put16(at + 12, flag | more);
        break;
      default:
        put16(at + 14, below(256) === 0 ? below(0x1_0000) : below(size));
    }
  }

  function header(at: number): void {
    switch (below(4)) {
      case 0:
        put32(at, below(0x80));
        break;
      case 1:
        put32(at + 4, [1030, 1030, 53, 7][below(4)] as number);
        break;
      case 2:
        put16(at + 12, [0, 1, 32, 40, 48, 112, 0x7f7f, below(0x80)][below(8)] as number);
        break;
      default:
        put16(at + 16 + 2 * below(24), below(0x80) | (below(0x80) << 8));
    }
  }

  function mutation(): void {
    const ring = rings[below(2)] as MutatorMap["rings"][number];
    let index = below(size);
    switch (below(4)) {
      case 0:
        descriptor(ring.descriptors + 16 * index, index);
        break;
      case 1:
        // Buffers to write, for the most part, where the device is to write.
        if (ring === rings[0] && below(64) > 0) index |= half;
        put16(ring.available + 4 + 2 * below(size), below(1024) === 0 ? below(0x1_0000) : index);
        break;
      case 2: {
        const [view] = views;
        const next = view.getUint16(ring.available + 2, true);
        const used = view.getUint16(ring.used + 2, true);
        const out = (next - used) & 0xffff;
        // As fast as the device gives back, for the most part; what has jumped comes back.
        if (out > size) put16(ring.available + 2, used);
        else if (out < size) put16(ring.available + 2, next + 1);
        else if (below(1024) === 0) put16(ring.available + 2, below(0x1_0000));
        break;
      }
      default:
        header(readable.offset + 64 * below(readable.size / 64));
    }
  }

  for (;;) {
    Atomics.wait(control, 0, 0);
    if (Atomics.load(control, 0) === 2) return;
    while (Atomics.load(control, 0) === 1) {
      mutation();
      Atomics.add(control, 2, 1);
    }
    Atomics.store(control, 1, 1);
    Atomics.notify(control, 1);
  }
}
