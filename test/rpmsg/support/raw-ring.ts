import { GuestMemory } from "../../../rpmsg/memory/guest-memory.ts";
import { heapRegion } from "../../../rpmsg/memory/heap-memory.ts";
import { DeviceQueue } from "../../../rpmsg/virtqueue/device-queue.ts";
import { DriverQueue } from "../../../rpmsg/virtqueue/driver-queue.ts";
import type { RingSetup } from "../../../rpmsg/virtqueue/layout.ts";
import { windowOf } from "./windows.ts";

/** Guest-physical and frontend-virtual address of the memory: different, so that no test passes with the wrong one. */
export const GUEST_BASE = 0x4000_0000;
const USER_BASE = 0x7f12_3400_0000;
export const MEMORY_SIZE = 0x40000;

/** Offsets of the three parts; every queue of up to 256 entries fits. */
export const offsetOf = {
  descriptors: 0x1000,
  available: 0x3000,
  used: 0x4000,
  tables: 0x6000,
  buffers: 0x8000,
};

/** What memory holds before anybody writes: a byte that nobody wrote still has it. */
export const CANARY = 0xa5;

export const NEXT = 1;
export const WRITE = 2;
export const INDIRECT = 4;

export interface RawDescriptor {
  address: number | bigint;
  length: number;
  flags?: number;
  next?: number;
}

export interface RawRingOptions {
  size?: number;
  indirect?: boolean;
  eventIndex?: boolean;
  /** Where both indexes start. */
  start?: number;
}

/** A split virtqueue in memory, written byte by byte as any driver may, a hostile one too (virtio 1.3, 2.7). */
export class RawRing {
  readonly memory = new GuestMemory();
  readonly region = heapRegion(GUEST_BASE, MEMORY_SIZE, USER_BASE);
  readonly bytes = windowOf(this.region).u8;
  readonly view = new DataView(this.bytes.buffer);
  readonly setup: RingSetup;
  readonly size: number;
  readonly start: number;
  #available: number;

  constructor(options: RawRingOptions = {}) {
    const { size = 8, indirect = true, eventIndex = false, start = 0 } = options;
    this.size = size;
    this.start = start;
    this.#available = start;
    this.memory.add(this.region);
    this.bytes.fill(CANARY);
    this.bytes.fill(0, offsetOf.descriptors, offsetOf.descriptors + 16 * size);
    this.bytes.fill(0, offsetOf.available, offsetOf.available + 6 + 2 * size);
    this.bytes.fill(0, offsetOf.used, offsetOf.used + 6 + 8 * size);
    this.view.setUint16(offsetOf.available + 2, start, true);
    this.view.setUint16(offsetOf.used + 2, start, true);
    this.setup = {
      memory: this.memory,
      size,
      addresses: {
        descriptors: USER_BASE + offsetOf.descriptors,
        available: USER_BASE + offsetOf.available,
        used: USER_BASE + offsetOf.used,
      },
      indirect,
      eventIndex,
    };
  }

  device(base = this.start): DeviceQueue {
    return new DeviceQueue(this.setup, base);
  }

  driver(): DriverQueue {
    return new DriverQueue(this.setup);
  }

  /** Guest-physical address of a place among the buffers. */
  buffer(offset: number): number {
    return GUEST_BASE + offsetOf.buffers + offset;
  }

  /** The bytes from a guest-physical address on. */
  at(address: number, length: number): Uint8Array {
    return this.bytes.subarray(address - GUEST_BASE, address - GUEST_BASE + length);
  }

  describe(index: number, descriptor: RawDescriptor): void {
    this.#write(offsetOf.descriptors + 16 * index, descriptor);
  }

  /** Writes an indirect table at a guest-physical address. */
  table(address: number, descriptors: readonly RawDescriptor[]): void {
    for (const [i, descriptor] of descriptors.entries())
      this.#write(address - GUEST_BASE + 16 * i, descriptor);
  }

  /** Makes descriptors 0, 1, ... a chain, whatever their flags, and offers it. */
  chain(descriptors: readonly RawDescriptor[]): void {
    for (const [i, descriptor] of descriptors.entries()) {
      const more = i < descriptors.length - 1;
      this.describe(i, {
        ...descriptor,
        flags: (descriptor.flags ?? 0) | (more ? NEXT : 0),
        next: more ? i + 1 : 0,
      });
    }
    this.offer(0);
  }

  /** Puts heads in the available ring and moves its index. */
  offer(...heads: number[]): void {
    for (const head of heads) {
      const slot = this.#available & (this.size - 1);
      this.view.setUint16(offsetOf.available + 4 + 2 * slot, head, true);
      this.#available = (this.#available + 1) & 0xffff;
    }
    this.setAvailableIndex(this.#available);
  }

  setAvailableIndex(index: number): void {
    this.view.setUint16(offsetOf.available + 2, index, true);
  }

  /** NO_INTERRUPT or 0. */
  setAvailableFlags(flags: number): void {
    this.view.setUint16(offsetOf.available, flags, true);
  }

  setUsedEvent(event: number): void {
    this.view.setUint16(offsetOf.available + 4 + 2 * this.size, event, true);
  }

  get availableIndex(): number {
    return this.view.getUint16(offsetOf.available + 2, true);
  }

  get usedFlags(): number {
    return this.view.getUint16(offsetOf.used, true);
  }

  get usedIndex(): number {
    return this.view.getUint16(offsetOf.used + 2, true);
  }

  get availableEvent(): number {
    return this.view.getUint16(offsetOf.used + 4 + 8 * this.size, true);
  }

  /** The used element of a slot: u32 id, u32 len. */
  used(slot: number): { id: number; length: number } {
    const at = offsetOf.used + 4 + 8 * slot;
    return { id: this.view.getUint32(at, true), length: this.view.getUint32(at + 4, true) };
  }

  /** Writes a used element as a device, a broken one too, would, and moves the index. */
  giveBack(id: number, length: number): void {
    const index = this.usedIndex;
    const at = offsetOf.used + 4 + 8 * (index & (this.size - 1));
    this.view.setUint32(at, id, true);
    this.view.setUint32(at + 4, length, true);
    this.setUsedIndex((index + 1) & 0xffff);
  }

  setUsedIndex(index: number): void {
    this.view.setUint16(offsetOf.used + 2, index, true);
  }

  /** u64 addr; u32 len; u16 flags; u16 next */
  #write(offset: number, { address, length, flags = 0, next = 0 }: RawDescriptor): void {
    this.view.setBigUint64(offset, BigInt(address), true);
    this.view.setUint32(offset + 8, length, true);
    this.view.setUint16(offset + 12, flags, true);
    this.view.setUint16(offset + 14, next, true);
  }
}
