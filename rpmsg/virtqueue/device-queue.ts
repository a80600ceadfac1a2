import { GuestError } from "../errors.ts";
import { copyBytes } from "../memory/copy-bytes.ts";
import type { QueueLog } from "../memory/dirty-log.ts";
import type { GuestMemory, MemoryWindow } from "../memory/guest-memory.ts";
import type { InflightRegion } from "./inflight.ts";
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

/** Where the device stands in a ring: what survives a stop and a restart. */
export interface QueuePosition {
  /** Next entry of the available ring to take, the vring base of vhost-user. */
  base: number;
  /** Next entry of the used ring to write. */
  used: number;
}

/** A piece of a buffer that lies whole in one window. */
export interface Segment {
  window: MemoryWindow;
  /** Bytes from the start of the window. */
  offset: number;
  length: number;
}

const TWO_32 = 2 ** 32;

/**
 * The device side of a split virtqueue (virtio 1.3, 2.7).
 *
 * One chain at a time is current: `peek` makes the next one current and leaves it in the ring, `complete` gives it
 * back. Used entries become visible with `publish`, so that a batch costs one barrier and at most one call.
 *
 * The guest may change its memory at any time. Each field is read once, what was read is checked, and only the
 * checked copy is used. What breaks a rule throws a GuestError, after which the queue must not be used any more.
 */
export class DeviceQueue {
  /** Index of the current chain's first descriptor. */
  head = 0;
  /** Bytes that the driver gave to read, and how many of `segments` they are: the first ones. */
  readableLength = 0;
  readableCount = 0;
  /** Bytes that the driver gave to write. */
  writableLength = 0;
  /** Descriptors of the current chain: what it cost to look at it. */
  descriptorCount = 0;
  /** Pieces of the current chain, reused from chain to chain; `segmentCount` are valid. */
  readonly segments: Segment[] = [];
  segmentCount = 0;
  /** Where writes are logged; undefined: nowhere. May be changed at any time. */
  log: QueueLog | undefined;

  readonly size: number;
  readonly #setup: RingSetup;
  readonly #memory: GuestMemory;
  readonly #mask: number;
  readonly #indirect: boolean;
  readonly #eventIndex: boolean;
  readonly #ring: RingViews;
  readonly #inflight: InflightRegion | undefined;
  /** Chains that a predecessor had taken and not given back: they come before those of the available ring. */
  #again: number[] | undefined;
  /** Window of the last buffer: nearly always that of the next one. */
  #lastWindow: MemoryWindow | undefined;
  readonly #entry8 = new Uint8Array(DESCRIPTOR_SIZE);
  readonly #entry32 = new Uint32Array(this.#entry8.buffer);

  #current = false;
  #writableSeen = false;
  #nextAvailable: number;
  /** The driver's idx as last read: entries before it need no barrier. */
  #seenAvailable: number;
  #nextUsed: number;
  #publishedUsed: number;
  /** Undefined until the flag was written once: a stop may have left either value in the ring. */
  #kicksWanted: boolean | undefined;

  /**
   * @param base next entry of the available ring to take; the used index is read from guest memory
   * @param inflight where taken chains are marked, at least as large as the queue. What is marked there is taken up
   *   again, and `base` is where that leads: all that was taken is either used or in flight
   * @throws FrontendError ring-size, ring-range, ring-alignment
   */
  constructor(setup: RingSetup, base: number, inflight?: InflightRegion) {
    this.#ring = mapRing(setup);
    this.#setup = setup;
    this.#memory = setup.memory;
    this.size = setup.size;
    this.#mask = setup.size - 1;
    this.#indirect = setup.indirect;
    this.#eventIndex = setup.eventIndex;
    this.#nextUsed = Atomics.load(this.#ring.used, this.#ring.usedBase + 1);
    this.#publishedUsed = this.#nextUsed;
    this.#inflight = inflight;
    const taken = inflight?.recover(this.#nextUsed)?.filter((head) => head < setup.size);
    this.#again = taken?.length === 0 ? undefined : taken;
    this.#nextAvailable = (taken === undefined ? base : this.#nextUsed + taken.length) & 0xffff;
    this.#seenAvailable = this.#nextAvailable;
  }

  get position(): QueuePosition {
    return { base: this.#nextAvailable, used: this.#nextUsed };
  }

  /** First descriptors of the chains that the driver has made available and that were not given back yet. */
  posted(): number[] {
    const ring = this.#ring;
    const index = Atomics.load(ring.available, ring.availableBase + 1);
    const count = (index - this.#nextAvailable) & 0xffff;
    const heads = [...(this.#again ?? [])];
    // A broken driver's index says nothing.
    for (let i = 0; count <= this.size && i < count; i++) {
      const head = ring.available[
        ring.availableBase + 2 + ((this.#nextAvailable + i) & this.#mask)
      ] as number;
      if (head < this.size) heads.push(head);
    }
    return heads;
  }

  /** How many chains the driver has made available that were not taken yet; 0 where its index says nothing. */
  get waiting(): number {
    const ring = this.#ring;
    const index = Atomics.load(ring.available, ring.availableBase + 1);
    const count = ((index - this.#nextAvailable) & 0xffff) + (this.#again?.length ?? 0);
    return count > this.size ? 0 : count;
  }

  /**
   * Makes the next chain current. Until `complete` it stays in the ring and calling again is free.
   * @returns false when the driver has made no chain available
   * @throws GuestError
   */
  peek(): boolean {
    if (this.#current) return true;
    const ring = this.#ring;
    let head: number;
    if (this.#again === undefined) {
      const next = this.#nextAvailable;
      if (next === this.#seenAvailable && !this.#refresh()) return false;
      head = ring.available[ring.availableBase + 2 + (next & this.#mask)] as number;
      if (head >= this.size) {
        throw new GuestError("descriptor-index", `available entry names descriptor ${head} of ${this.size}`);
      }
    } else {
      head = this.#again[0] as number;
    }
    this.head = head;
    this.readableLength = 0;
    this.readableCount = 0;
    this.writableLength = 0;
    this.segmentCount = 0;
    this.descriptorCount = 0;
    this.#writableSeen = false;
    this.#walk(ring.descriptors, ring.descriptorBase, head);
    this.#current = true;
    return true;
  }

  /**
   * A second view of the ring, `count` chains further on: it looks at what the driver has made available before its turn
   * comes. It only peeks and skips, and it may ask for kicks in place of this one.
   */
  lookAhead(count: number): DeviceQueue {
    const again = this.#again ?? [];
    const ahead = new DeviceQueue(this.#setup, this.#nextAvailable + Math.max(0, count - again.length));
    if (again.length > count) ahead.#again = again.slice(count);
    return ahead;
  }

  /** Goes on to the chain behind the current one, which stays the driver's to give and ours to complete elsewhere. */
  skip(): void {
    if (!this.#current) throw new RangeError("no chain");
    this.#current = false;
    if (this.#again === undefined) {
      this.#nextAvailable = (this.#nextAvailable + 1) & 0xffff;
    } else {
      this.#again.shift();
      if (this.#again.length === 0) this.#again = undefined;
    }
  }

  /**
   * Gives the current chain back.
   * @param written bytes written to its writable part, 0 for one that was only read
   */
  complete(written: number): void {
    if (!this.#current || written > this.writableLength)
      throw new RangeError("no chain, or more written than it holds");
    const ring = this.#ring;
    const used = this.#nextUsed & this.#mask;
    const element = (ring.usedBase >> 1) + 1 + (used << 1);
    ring.used32[element] = this.head;
    ring.used32[element + 1] = written;
    if (this.log !== undefined) this.#logUsed(4 + 8 * used, 8);
    this.#current = false;
    if (this.#inflight === undefined) this.#nextAvailable = (this.#nextAvailable + 1) & 0xffff;
    else this.#track(this.#inflight);
    this.#nextUsed = (this.#nextUsed + 1) & 0xffff;
  }

  /**
   * Shows the completed chains to the driver.
   * @returns whether the driver is to be called
   */
  publish(): boolean {
    const before = this.#publishedUsed;
    const after = this.#nextUsed;
    if (before === after) return false;
    this.#publishedUsed = after;
    const ring = this.#ring;
    // A full fence on both sides: the elements are visible before the index, the index before the flags are read.
    Atomics.store(ring.used, ring.usedBase + 1, after);
    if (this.#inflight !== undefined) this.#inflight.settle(after);
    if (this.log !== undefined) this.#logUsed(2, 2);
    if (this.#eventIndex) {
      return needsEvent(Atomics.load(ring.available, ring.availableBase + 2 + this.size), after, before);
    }
    return (Atomics.load(ring.available, ring.availableBase) & NO_INTERRUPT) === 0;
  }

  /**
   * Tells the driver whether to kick when it makes chains available. After turning kicks on, `peek` must be tried
   * once more: the driver may have looked at the flag just before.
   */
  wantKicks(wanted: boolean): void {
    const ring = this.#ring;
    if (this.#eventIndex) {
      // There is no way to say "never" but to leave the index behind.
      if (!wanted) return;
      Atomics.store(ring.used, ring.usedBase + 2 + 4 * this.size, this.#nextAvailable);
      if (this.log !== undefined) this.#logUsed(4 + 8 * this.size, 2);
    } else if (wanted !== this.#kicksWanted) {
      this.#kicksWanted = wanted;
      Atomics.store(ring.used, ring.usedBase, wanted ? 0 : NO_NOTIFY);
      if (this.log !== undefined) this.#logUsed(0, 2);
    }
  }

  /** Copies the first `length` readable bytes of the current chain; there must be as many. */
  gather(target: Uint8Array, length: number): void {
    let at = 0;
    for (let i = 0; i < this.readableCount && at < length; i++) {
      const { window, offset, length: bytes } = this.segments[i] as Segment;
      const part = Math.min(bytes, length - at);
      copyBytes(window.u8, offset, target, at, part);
      at += part;
    }
  }

  /**
   * Writes 16 bytes of header and `length` bytes of payload to the start of the current chain's writable part, which
   * must hold them. With `complete`, `publish` and `wantKicks` the only places that write guest memory.
   * @param header four 32-bit words
   */
  writeMessage(header: Uint32Array, source: Uint8Array, sourceOffset: number, length: number): void {
    const { window, offset, length: room } = this.segments[this.readableCount] as Segment;
    if (room < 16 + length || (offset & 3) !== 0) {
      this.#scatter(0, new Uint8Array(header.buffer, header.byteOffset, 16), 0, 16);
      this.#scatter(16, source, sourceOffset, length);
      return;
    }
    const words = window.u32;
    const word = offset >> 2;
    words[word] = header[0] as number;
    words[word + 1] = header[1] as number;
    words[word + 2] = header[2] as number;
    words[word + 3] = header[3] as number;
    copyBytes(source, sourceOffset, window.u8, offset + 16, length);
    if (this.log !== undefined) this.log.pages.mark(window.guestAddress + offset, 16 + length);
  }

  /** Copies bytes into the writable part of the current chain, `at` bytes from its start; they must fit. */
  #scatter(at: number, source: Uint8Array, sourceOffset: number, length: number): void {
    let skip = at;
    let from = sourceOffset;
    const end = sourceOffset + length;
    for (let i = this.readableCount; i < this.segmentCount && from < end; i++) {
      const { window, offset, length: bytes } = this.segments[i] as Segment;
      if (skip >= bytes) {
        skip -= bytes;
        continue;
      }
      const part = Math.min(bytes - skip, end - from);
      copyBytes(source, from, window.u8, offset + skip, part);
      if (this.log !== undefined) this.log.pages.mark(window.guestAddress + offset + skip, part);
      from += part;
      skip = 0;
    }
  }

  /** The current chain goes from the available ring to the used ring at once: it is in flight until that is shown. */
  #track(inflight: InflightRegion): void {
    if (this.#again === undefined) {
      inflight.take(this.head);
      this.#nextAvailable = (this.#nextAvailable + 1) & 0xffff;
    } else {
      // Marked already, and counted in the base.
      this.#again.shift();
      if (this.#again.length === 0) this.#again = undefined;
    }
    inflight.giveBack(this.head);
  }

  /** Logs a write of bytes of the used ring. */
  #logUsed(offset: number, length: number): void {
    const { pages, used } = this.log as QueueLog;
    if (used !== undefined) pages.mark(used + offset, length);
  }

  #refresh(): boolean {
    const ring = this.#ring;
    const index = Atomics.load(ring.available, ring.availableBase + 1);
    // A full ring is `size` ahead; more, or less than before, is a broken driver.
    if (((index - this.#nextAvailable) & 0xffff) > this.size) {
      throw new GuestError(
        "avail-index-jump",
        `available index went from ${this.#nextAvailable} to ${index}`,
      );
    }
    this.#seenAvailable = index;
    return index !== this.#nextAvailable;
  }

  /** Walks a chain in the descriptor table (virtio 1.3, 2.7.5). */
  #walk(table: Uint32Array, base: number, head: number): void {
    let index = head;
    for (;;) {
      const at = base + (index << 2);
      const low = table[at] as number;
      const high = table[at + 1] as number;
      const length = table[at + 2] as number;
      const flagsAndNext = table[at + 3] as number;
      const flags = flagsAndNext & 0xffff;
      if ((flags & INDIRECT) !== 0) {
        if (!this.#indirect)
          throw new GuestError("indirect-not-negotiated", "an indirect descriptor was not negotiated");
        if ((flags & NEXT) !== 0)
          throw new GuestError("indirect-with-next", "an indirect descriptor has a next one");
        this.#walkIndirect(high * TWO_32 + low, length);
        return;
      }
      this.#add(high * TWO_32 + low, length, (flags & WRITE) !== 0);
      if ((flags & NEXT) === 0) return;
      index = flagsAndNext >>> 16;
      if (index >= this.size)
        throw new GuestError("descriptor-index", `a chain goes on at ${index} of ${this.size}`);
    }
  }

  /** Walks an indirect table (2.7.5.3). It may lie anywhere, unaligned, across windows: each entry is copied. */
  #walkIndirect(table: number, bytes: number): void {
    if (bytes === 0 || bytes % DESCRIPTOR_SIZE !== 0) {
      throw new GuestError("indirect-length", `an indirect table of ${bytes} bytes`);
    }
    const entries = bytes / DESCRIPTOR_SIZE;
    const entry = this.#entry32;
    let index = 0;
    for (;;) {
      if (!this.#memory.read(table + index * DESCRIPTOR_SIZE, this.#entry8, 0, DESCRIPTOR_SIZE)) {
        throw new GuestError("descriptor-range", "an indirect table is not in guest memory");
      }
      const flagsAndNext = entry[3] as number;
      const flags = flagsAndNext & 0xffff;
      if ((flags & INDIRECT) !== 0)
        throw new GuestError("indirect-nested", "an indirect table holds an indirect one");
      this.#add(
        (entry[1] as number) * TWO_32 + (entry[0] as number),
        entry[2] as number,
        (flags & WRITE) !== 0,
      );
      if ((flags & NEXT) === 0) return;
      index = flagsAndNext >>> 16;
      if (index >= entries)
        throw new GuestError("descriptor-index", `an indirect chain goes on at ${index} of ${entries}`);
    }
  }

  /** Adds one descriptor's buffer to the current chain. */
  #add(address: number, length: number, writable: boolean): void {
    // A legal chain has up to `size` descriptors; a loop has more.
    if (++this.descriptorCount > this.size) {
      throw new GuestError("chain-too-long", `a chain has more than ${this.size} descriptors`);
    }
    if (writable) {
      this.#writableSeen = true;
      this.writableLength += length;
    } else {
      if (this.#writableSeen) {
        throw new GuestError("descriptor-order", "a readable descriptor follows a writable one");
      }
      this.readableLength += length;
    }
    if (this.readableLength + this.writableLength > TWO_32) {
      throw new GuestError("chain-too-long", "a chain has more than 2^32 bytes");
    }
    let at = address;
    let left = length;
    // An empty buffer is never touched, so that its address does not matter.
    while (left > 0) {
      let window = this.#lastWindow;
      let offset = window === undefined ? -1 : at - window.guestAddress;
      if (window === undefined || offset < 0 || offset + left > window.size) {
        window = this.#memory.find(at, left) ?? this.#memory.findLongest(at);
        if (window === undefined) {
          throw new GuestError("descriptor-range", `a buffer at 0x${at.toString(16)} is not in guest memory`);
        }
        this.#lastWindow = window;
        offset = at - window.guestAddress;
      }
      const part = Math.min(left, window.size - offset);
      const segment = this.segments[this.segmentCount];
      if (segment === undefined) {
        this.segments[this.segmentCount] = { window, offset, length: part };
      } else {
        segment.window = window;
        segment.offset = offset;
        segment.length = part;
      }
      this.segmentCount++;
      if (!writable) this.readableCount++;
      at += part;
      left -= part;
    }
  }
}
