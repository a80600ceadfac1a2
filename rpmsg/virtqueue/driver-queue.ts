import { GuestError } from "../errors.ts";
import type { MemoryWindow } from "../memory/guest-memory.ts";
import type { RingSetup, RingViews } from "./layout.ts";
import {
  DESCRIPTOR_SIZE,
  INDIRECT,
  mapRing,
  NEXT,
  NO_INTERRUPT,
  NO_NOTIFY,
  needsEvent,
  WRITE,
} from "./layout.ts";

const TWO_32 = 2 ** 32;

/** A buffer for the device, by guest-physical address. */
export interface Buffer {
  address: number;
  /** Bytes. */
  length: number;
  /** The device writes it. */
  writable: boolean;
}

/**
 * The driver side of a split virtqueue (virtio 1.3, 2.7): what a guest runs. For the emulated guest and for tests.
 *
 * A buffer, or a chain of buffers, is known by its head: the index of its first descriptor, which `add` returns and
 * `popUsed` gives back. Heads are free to reuse once they came back.
 */
export class DriverQueue {
  readonly size: number;
  /** Bytes that the device wrote to the chain that `popUsed` returned last. */
  usedLength = 0;
  /** Free descriptors. */
  free: number;

  readonly #ring: RingViews;
  readonly #mask: number;
  readonly #eventIndex: boolean;
  readonly #indirect: boolean;
  /** Descriptors that are free, linked by their number. */
  readonly #nextFree: Uint16Array;
  #firstFree = 0;
  /** Descriptors of the chain at a head, 0 where no chain is out. */
  readonly #chainLength: Uint16Array;
  /** Bytes that the device may write to the chain at a head. */
  readonly #writable: Float64Array;
  #nextAvailable = 0;
  #publishedAvailable = 0;
  #nextUsed = 0;
  #seenUsed = 0;
  #callsWanted = true;

  /** @throws FrontendError ring-size, ring-range, ring-alignment */
  constructor(setup: RingSetup) {
    this.#ring = mapRing(setup);
    this.size = setup.size;
    this.free = setup.size;
    this.#mask = setup.size - 1;
    this.#eventIndex = setup.eventIndex;
    this.#indirect = setup.indirect;
    this.#nextFree = Uint16Array.from({ length: setup.size }, (_, i) => i + 1);
    this.#chainLength = new Uint16Array(setup.size);
    this.#writable = new Float64Array(setup.size);
  }

  /**
   * Puts a buffer of one descriptor in the ring; `publish` shows it to the device.
   * @returns its head, -1 when no descriptor is free
   */
  add(address: number, length: number, writable: boolean): number {
    if (this.free === 0) return -1;
    const head = this.#firstFree;
    this.#firstFree = this.#nextFree[head] as number;
    this.free--;
    this.#describe(head, address, length, writable ? WRITE : 0, 0);
    this.#chainLength[head] = 1;
    this.#writable[head] = writable ? length : 0;
    this.#offer(head);
    return head;
  }

  /**
   * As `add`, with the descriptor that the caller names: for one who keeps the books of all of them. A queue is filled
   * either with this or with the others.
   * @returns false when that descriptor is out
   */
  addAt(head: number, address: number, length: number, writable: boolean): boolean {
    if (head >= this.size || this.#chainLength[head] !== 0) return false;
    this.free--;
    this.#describe(head, address, length, writable ? WRITE : 0, 0);
    this.#chainLength[head] = 1;
    this.#writable[head] = writable ? length : 0;
    this.#offer(head);
    return true;
  }

  /**
   * Puts a chain in the ring: readable buffers first, then writable ones.
   * @returns its head, -1 when too few descriptors are free
   */
  addChain(buffers: readonly Buffer[]): number {
    if (buffers.length === 0) throw new RangeError("a chain has at least one buffer");
    if (buffers.length > this.free) return -1;
    const head = this.#firstFree;
    let writable = 0;
    for (const [i, buffer] of buffers.entries()) {
      const index = this.#firstFree;
      this.#firstFree = this.#nextFree[index] as number;
      const last = i === buffers.length - 1;
      this.#describe(index, buffer.address, buffer.length, flagsOf(buffer, last), last ? 0 : this.#firstFree);
      if (buffer.writable) writable += buffer.length;
    }
    this.free -= buffers.length;
    this.#chainLength[head] = buffers.length;
    this.#writable[head] = writable;
    this.#offer(head);
    return head;
  }

  /**
   * Puts a chain in the ring through an indirect table, which takes one descriptor of the ring.
   * @param table where the table is written: 16 bytes a buffer, whole in `window`
   * @returns its head, -1 when no descriptor is free
   */
  addIndirect(buffers: readonly Buffer[], window: MemoryWindow, table: number): number {
    if (!this.#indirect) throw new RangeError("indirect descriptors were not negotiated");
    if (buffers.length === 0 || buffers.length > this.size) {
      throw new RangeError("a chain has 1 to as many buffers as the queue has entries");
    }
    if (this.free === 0) return -1;
    const view = new DataView(window.u8.buffer, window.u8.byteOffset + table - window.guestAddress);
    let writable = 0;
    for (const [i, buffer] of buffers.entries()) {
      const last = i === buffers.length - 1;
      const at = i * DESCRIPTOR_SIZE;
      view.setUint32(at, buffer.address, true);
      view.setUint32(at + 4, Math.floor(buffer.address / TWO_32), true);
      view.setUint32(at + 8, buffer.length, true);
      view.setUint16(at + 12, flagsOf(buffer, last), true);
      view.setUint16(at + 14, last ? 0 : i + 1, true);
      if (buffer.writable) writable += buffer.length;
    }
    const head = this.#firstFree;
    this.#firstFree = this.#nextFree[head] as number;
    this.free--;
    this.#describe(head, table, buffers.length * DESCRIPTOR_SIZE, INDIRECT, 0);
    this.#chainLength[head] = 1;
    this.#writable[head] = writable;
    this.#offer(head);
    return head;
  }

  /**
   * Shows the added buffers to the device.
   * @returns whether the device is to be kicked
   */
  publish(): boolean {
    const before = this.#publishedAvailable;
    const after = this.#nextAvailable;
    if (before === after) return false;
    this.#publishedAvailable = after;
    const ring = this.#ring;
    Atomics.store(ring.available, 1, after);
    if (this.#eventIndex) {
      return needsEvent(Atomics.load(ring.used, 2 + 4 * this.size), after, before);
    }
    return (Atomics.load(ring.used, 0) & NO_NOTIFY) === 0;
  }

  /**
   * Takes the next buffer that the device gave back; `usedLength` has the bytes written.
   * @returns its head, -1 when there is none
   * @throws GuestError used-index-jump, used-unknown-id, used-length: the device broke a rule
   */
  popUsed(): number {
    const ring = this.#ring;
    const next = this.#nextUsed;
    if (next === this.#seenUsed) {
      const index = Atomics.load(ring.used, 1);
      if (((index - next) & 0xffff) > this.size) {
        throw new GuestError("used-index-jump", `used index went from ${next} to ${index}`);
      }
      this.#seenUsed = index;
      if (index === next) return -1;
    }
    const element = (next & this.#mask) << 1;
    const head = ring.usedElements[element] as number;
    const length = ring.usedElements[element + 1] as number;
    const descriptors = head < this.size ? (this.#chainLength[head] as number) : 0;
    if (descriptors === 0)
      throw new GuestError("used-unknown-id", `used element names ${head}, which is not out`);
    if (length > (this.#writable[head] as number)) {
      throw new GuestError("used-length", `used element says ${length} bytes of ${this.#writable[head]}`);
    }
    this.#nextUsed = (next + 1) & 0xffff;
    this.usedLength = length;
    this.#chainLength[head] = 0;
    this.free += descriptors;
    // The chain is linked already, up to its last descriptor.
    let last = head;
    for (let i = 1; i < descriptors; i++) last = this.#nextFree[last] as number;
    this.#nextFree[last] = this.#firstFree;
    this.#firstFree = head;
    return head;
  }

  /** Tells the device whether to call when it gives buffers back. After turning calls on, `popUsed` once more. */
  wantCalls(wanted: boolean): void {
    const ring = this.#ring;
    if (this.#eventIndex) {
      if (wanted) Atomics.store(ring.available, 2 + this.size, this.#nextUsed);
    } else if (wanted !== this.#callsWanted) {
      this.#callsWanted = wanted;
      Atomics.store(ring.available, 0, wanted ? 0 : NO_INTERRUPT);
    }
    if (wanted) this.#seenUsed = this.#nextUsed;
  }

  #describe(index: number, address: number, length: number, flags: number, next: number): void {
    const table = this.#ring.descriptors;
    const at = index << 2;
    table[at] = address;
    table[at + 1] = address < TWO_32 ? 0 : Math.floor(address / TWO_32);
    table[at + 2] = length;
    table[at + 3] = (next << 16) | flags;
  }

  #offer(head: number): void {
    const ring = this.#ring;
    ring.available[2 + (this.#nextAvailable & this.#mask)] = head;
    this.#nextAvailable = (this.#nextAvailable + 1) & 0xffff;
  }
}

function flagsOf(buffer: Buffer, last: boolean): number {
  return (buffer.writable ? WRITE : 0) | (last ? 0 : NEXT);
}
