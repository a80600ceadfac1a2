import { expect } from "vitest";
import type { Buffer as RingBuffer } from "../../../rpmsg/virtqueue/driver-queue.ts";
import { CANARY, GUEST_BASE, MEMORY_SIZE, offsetOf, RawRing } from "./raw-ring.ts";
import { windowOf } from "./windows.ts";

/** Bytes of a place for one buffer or one indirect table. */
const BLOCK = 128;

export interface Part {
  /** Bytes, less than a block. */
  length: number;
  writable: boolean;
  /** Bytes from the start of its block: buffers need not be aligned. */
  shift: number;
}

/** What a chain must look like on the other side. */
interface Chain {
  head: number;
  descriptors: number;
  blocks: number[];
  buffers: RingBuffer[];
  readable: number[];
  room: number;
  /** What the device wrote. */
  written: number[];
}

/** What a side knows of the other's notifications: it is at work, it has asked for one and looks again, or it sleeps. */
type Attention = "active" | "asked" | "asleep";

/**
 * A driver queue and a device queue over one ring, and beside them plain arrays that say what both must do. Every method
 * does one thing to the queues and to the arrays and compares.
 */
export class QueuePair {
  readonly #ring: RawRing;
  readonly #driver;
  readonly #device;
  readonly #eventIndex: boolean;
  readonly #blocks: number[] = [];

  /** Chains on their way: added, published, completed by the device, and shown to the driver. */
  readonly #added: Chain[] = [];
  readonly #available: Chain[] = [];
  readonly #completed: Chain[] = [];
  readonly #used: Chain[] = [];
  #current: Chain | undefined;
  #free: number;
  #serial = 0;

  /** Chains so far, without wrap: published by the driver, taken and shown by the device, popped. */
  #publishedAvailable = 0;
  #taken = 0;
  #publishedUsed = 0;
  #popped = 0;
  #kicksWanted = true;
  #callsWanted = true;
  /** Entries that the other side asked to be told of, as 16 bits. */
  #availableEvent = 0;
  #usedEvent = 0;
  #deviceIs: Attention = "active";
  #driverIs: Attention = "active";

  constructor(size: number, eventIndex: boolean) {
    this.#ring = new RawRing({ size, eventIndex });
    this.#driver = this.#ring.driver();
    this.#device = this.#ring.device();
    this.#eventIndex = eventIndex;
    this.#free = size;
    for (let at = offsetOf.buffers; at < MEMORY_SIZE; at += BLOCK) this.#blocks.push(GUEST_BASE + at);
  }

  /** Sends so many single buffers through, so that the indexes stand there. */
  advance(count: number): void {
    for (let i = 0; i < count; i++) {
      this.#driver.add(GUEST_BASE + offsetOf.buffers, 8, false);
      this.#driver.publish();
      if (!this.#device.peek()) throw new Error(`no chain after ${i}`);
      this.#device.complete(0);
      this.#device.publish();
      if (this.#driver.popUsed() === -1) throw new Error(`nothing came back after ${i}`);
    }
    this.#publishedAvailable = this.#taken = this.#publishedUsed = this.#popped = count;
  }

  add(part: Part): void {
    const chain = this.#prepare([part]);
    const [buffer] = chain.buffers as [RingBuffer];
    const head = this.#driver.add(buffer.address, buffer.length, buffer.writable);
    this.#keep(chain, head, 1);
  }

  addChain(parts: readonly Part[]): void {
    const chain = this.#prepare(parts);
    this.#keep(chain, this.#driver.addChain(chain.buffers), parts.length);
  }

  addIndirect(parts: readonly Part[]): void {
    // A chain has no more descriptors than the queue, in a table either (virtio 1.3, 2.7.5.3.1).
    const chain = this.#prepare(parts.slice(0, this.#ring.size));
    const table = this.#block(chain) + (this.#serial % 5);
    const head = this.#driver.addIndirect(chain.buffers, windowOf(this.#ring.region), table);
    this.#keep(chain, head, 1);
  }

  publishAvailable(): void {
    const before = this.#publishedAvailable;
    const count = this.#added.length;
    const kick = this.#driver.publish();
    this.#publishedAvailable += count;
    this.#available.push(...this.#added.splice(0));
    const asked = this.#eventIndex ? inStep(this.#availableEvent, before, count) : this.#kicksWanted;
    expect(kick).toBe(count > 0 && asked);
    if (count > 0 && this.#deviceIs === "asleep") expect(kick).toBe(true);
    if (kick) this.#deviceIs = "active";
  }

  peek(): void {
    const found = this.#device.peek();
    this.#current ??= this.#available.shift();
    const chain = this.#current;
    expect(found).toBe(chain !== undefined);
    if (chain === undefined) {
      if (this.#deviceIs === "asked") this.#deviceIs = "asleep";
      return;
    }
    this.#deviceIs = "active";
    const { head, readableLength, writableLength, descriptorCount } = this.#device;
    expect({ head, readableLength, writableLength, descriptorCount }).toEqual({
      head: chain.head,
      readableLength: chain.readable.length,
      writableLength: chain.room,
      descriptorCount: chain.buffers.length,
    });
    const bytes = new Uint8Array(readableLength);
    this.#device.gather(bytes, readableLength);
    expect([...bytes]).toEqual(chain.readable);
  }

  /** @param share of the chain's room that is written, 0 to 1 */
  complete(share: number): void {
    const chain = this.#current;
    if (chain === undefined) return;
    let written = Math.round(chain.room * share);
    if (written < 16) written = 0;
    if (written > 0) {
      const header = Uint32Array.of(++this.#serial, 0xffff_ffff, 0x80000000, 0x01020304);
      const payload = Uint8Array.from({ length: written - 16 }, (_, i) => i ^ this.#serial);
      this.#device.writeMessage(header, payload, 0, written - 16);
      chain.written = [...new Uint8Array(header.buffer), ...payload];
    }
    this.#device.complete(written);
    this.#taken++;
    this.#current = undefined;
    this.#completed.push(chain);
  }

  publishUsed(): void {
    const before = this.#publishedUsed;
    const count = this.#completed.length;
    const call = this.#device.publish();
    this.#publishedUsed += count;
    this.#used.push(...this.#completed.splice(0));
    const asked = this.#eventIndex ? inStep(this.#usedEvent, before, count) : this.#callsWanted;
    expect(call).toBe(count > 0 && asked);
    if (count > 0 && this.#driverIs === "asleep") expect(call).toBe(true);
    if (call) this.#driverIs = "active";
  }

  pop(): void {
    const head = this.#driver.popUsed();
    const chain = this.#used.shift();
    // The device gives back in order, so this is also: each head once, and none that is not out.
    expect(head).toBe(chain?.head ?? -1);
    if (chain === undefined) {
      if (this.#driverIs === "asked") this.#driverIs = "asleep";
      return;
    }
    this.#driverIs = "active";
    this.#popped++;
    this.#free += chain.descriptors;
    expect(this.#driver.free).toBe(this.#free);
    expect(this.#driver.usedLength).toBe(chain.written.length);
    const bytes = chain.buffers.flatMap(({ address, length }) => [...this.#ring.at(address, length)]);
    const untouched = Array.from({ length: chain.room - chain.written.length }, () => CANARY);
    expect(bytes).toEqual([...chain.readable, ...chain.written, ...untouched]);
    this.#blocks.push(...chain.blocks);
  }

  wantKicks(wanted: boolean): void {
    this.#device.wantKicks(wanted);
    this.#kicksWanted = wanted;
    if (wanted) this.#availableEvent = this.#taken & 0xffff;
    this.#deviceIs = wanted && this.#current === undefined ? "asked" : "active";
  }

  wantCalls(wanted: boolean): void {
    this.#driver.wantCalls(wanted);
    this.#callsWanted = wanted;
    if (wanted) this.#usedEvent = this.#popped & 0xffff;
    this.#driverIs = wanted ? "asked" : "active";
  }

  /** Lets everything through and checks that nothing is left. */
  finish(): void {
    this.publishAvailable();
    while (this.#available.length > 0 || this.#current !== undefined) {
      this.peek();
      this.complete(1);
    }
    this.peek();
    this.publishUsed();
    while (this.#used.length > 0) this.pop();
    this.pop();
    expect(this.#driver.free).toBe(this.#ring.size);
    expect(this.#device.position).toEqual({ base: this.#taken & 0xffff, used: this.#taken & 0xffff });
  }

  #block(chain: Chain): number {
    const block = this.#blocks.shift();
    if (block === undefined) throw new Error("the test has too little memory");
    chain.blocks.push(block);
    return block;
  }

  /** Places the buffers in memory: content in readable ones, canaries in writable ones, which come last. */
  #prepare(parts: readonly Part[]): Chain {
    const chain: Chain = {
      head: -1,
      descriptors: 0,
      blocks: [],
      buffers: [],
      readable: [],
      room: 0,
      written: [],
    };
    const order = [...parts.filter(({ writable }) => !writable), ...parts.filter(({ writable }) => writable)];
    for (const { length, writable, shift } of order) {
      const address = this.#block(chain) + shift;
      const bytes = this.#ring.at(address, length);
      bytes.fill(CANARY);
      if (writable) chain.room += length;
      else {
        this.#serial++;
        for (let i = 0; i < length; i++) bytes[i] = this.#serial * 31 + i;
        chain.readable.push(...bytes);
      }
      chain.buffers.push({ address, length, writable });
    }
    return chain;
  }

  #keep(chain: Chain, head: number, descriptors: number): void {
    expect(head !== -1).toBe(descriptors <= this.#free);
    if (head === -1) {
      this.#blocks.unshift(...chain.blocks);
      return;
    }
    const out = [...this.#added, ...this.#available, ...this.#completed, ...this.#used, this.#current];
    expect(out.some((other) => other?.head === head)).toBe(false);
    this.#free -= descriptors;
    expect(this.#driver.free).toBe(this.#free);
    this.#added.push({ ...chain, head, descriptors });
  }
}

/** Whether one of `count` entries from `before` on is the event: what needsEvent computes, counted. */
function inStep(event: number, before: number, count: number): boolean {
  for (let i = before; i < before + count; i++) if ((i & 0xffff) === event) return true;
  return false;
}
