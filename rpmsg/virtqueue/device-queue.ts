import { GuestError } from "../errors.ts";
import type { Words } from "../memory/copy-bytes.ts";
import { copyBytes, copyWords } from "../memory/copy-bytes.ts";
import type { QueueLog } from "../memory/dirty-log.ts";
import type { GuestMemory, MemoryWindow } from "../memory/guest-memory.ts";
import { memoryWindow } from "../memory/guest-memory.ts";
import type { InflightRegion } from "./inflight.ts";
import type { RingSetup } from "./layout.ts";
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

/** Flags that the descriptor of a chain of one buffer does not have. */
const NOT_PLAIN = ~WRITE & 0xffff;

/** Holds no buffer. */
const NOWHERE = memoryWindow(0, 0, new ArrayBuffer(0));

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
  /** The first of `segments`. */
  readonly first: Segment = { window: NOWHERE, offset: 0, length: 0 };
  /** Pieces of the current chain, reused from chain to chain; `segmentCount` are valid. */
  readonly segments: Segment[] = [this.first];
  segmentCount = 0;
  /** Where writes are logged; undefined: nowhere. May be changed at any time. */
  log: QueueLog | undefined;

  // What is a number is one from the start: V8 then need not look at each use whether it still is.
  readonly size: number = 0;
  readonly #setup: RingSetup;
  readonly #memory: GuestMemory;
  readonly #mask: number = 0;
  readonly #indirect: boolean;
  readonly #eventIndex: boolean;
  readonly #descriptors: Uint32Array;
  readonly #available: Uint16Array;
  readonly #used: Uint16Array;
  readonly #usedElements: Uint32Array;
  readonly #inflight: InflightRegion | undefined;
  /** Chains that a predecessor had taken and not given back: they come before those of the available ring. */
  #again: number[] | undefined;
  /** Window of the last buffer: nearly always that of the next one. */
  #near = NOWHERE;
  /** Where it begins, in halves, and how many bytes of it have addresses with the same upper half. */
  #nearLow = 0;
  #nearHigh = 0;
  #nearSize = 0;
  readonly #entry8 = new Uint8Array(DESCRIPTOR_SIZE);
  readonly #entry32 = new Uint32Array(this.#entry8.buffer);

  /** Whether a chain is current; V8 looks at a number once, and at what may be anything several times. */
  #current: 0 | 1 = 0;
  #writableSeen = false;
  #nextAvailable = 0;
  /** The driver's idx as last read: entries before it need no barrier. */
  #seenAvailable = 0;
  #nextUsed = 0;
  #publishedUsed = 0;
  /** Undefined until the flag was written once: a stop may have left either value in the ring. */
  #kicksWanted: boolean | undefined;

  /**
   * @param base next entry of the available ring to take; the used index is read from guest memory
   * @param inflight where taken chains are marked, at least as large as the queue. What is marked there is taken up
   *   again, and `base` is where that leads: all that was taken is either used or in flight
   * @throws FrontendError ring-size, ring-range, ring-alignment
   */
  constructor(setup: RingSetup, base: number, inflight?: InflightRegion) {
    const ring = mapRing(setup);
    this.#descriptors = ring.descriptors;
    this.#available = ring.available;
    this.#used = ring.used;
    this.#usedElements = ring.usedElements;
    this.#setup = setup;
    this.#memory = setup.memory;
    this.size = setup.size;
    this.#mask = setup.size - 1;
    this.#indirect = setup.indirect;
    this.#eventIndex = setup.eventIndex;
    this.#nextUsed = Atomics.load(this.#used, 1);
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
    const index = Atomics.load(this.#available, 1);
    const count = (index - this.#nextAvailable) & 0xffff;
    const heads = [...(this.#again ?? [])];
    // A broken driver's index says nothing.
    for (let i = 0; count <= this.size && i < count; i++) {
      const head = this.#available[2 + ((this.#nextAvailable + i) & this.#mask)] as number;
      if (head < this.size) heads.push(head);
    }
    return heads;
  }

  /** How many chains the driver has made available that were not taken yet; 0 where its index says nothing. */
  get waiting(): number {
    const index = Atomics.load(this.#available, 1);
    const count = ((index - this.#nextAvailable) & 0xffff) + (this.#again?.length ?? 0);
    return count > this.size ? 0 : count;
  }

  /**
   * Makes the next chain current. Until `complete` it stays in the ring and calling again is free.
   * @returns false when the driver has made no chain available
   * @throws GuestError
   */
  peek(): boolean {
    if (this.#current !== 0) return true;
    const next = this.#nextAvailable;
    const head =
      next === this.#seenAvailable ? this.#look() : (this.#available[2 + (next & this.#mask)] as number);
    if (head < 0) return false;
    if (head >= this.size) throw wrongHead(head, this.size);
    const table = this.#descriptors;
    const at = head << 2;
    const low = table[at] as number;
    const high = table[at | 1] as number;
    const bytes = table[at | 2] as number;
    const flagsAndNext = table[at | 3] as number;
    this.head = head;
    // What nearly every chain is: one buffer, whole in the window of the last one. Offset and length are right where they
    // are within the window, which has at most 1 GiB; what does not fit 32 bits comes out as negative or beyond it.
    const offset = (low - this.#nearLow) | 0;
    const length = bytes | 0;
    if (
      (flagsAndNext & NOT_PLAIN) !== 0 ||
      (high | 0) !== this.#nearHigh ||
      offset < 0 ||
      length <= 0 ||
      offset > this.#nearSize - length
    ) {
      this.#walk(high * TWO_32 + low, bytes, flagsAndNext);
      this.#current = 1;
      return true;
    }
    const segment = this.first;
    segment.window = this.#near;
    segment.offset = offset;
    segment.length = length;
    if ((flagsAndNext & WRITE) === 0) {
      this.readableLength = length;
      this.readableCount = 1;
      this.writableLength = 0;
    } else {
      this.readableLength = 0;
      this.readableCount = 0;
      this.writableLength = length;
    }
    this.segmentCount = 1;
    this.descriptorCount = 1;
    this.#current = 1;
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
    if (this.#current === 0) throw new RangeError("no chain");
    this.#current = 0;
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
    if (this.#current === 0 || written > this.writableLength)
      throw new RangeError("no chain, or more written than it holds");
    const used = this.#nextUsed & this.#mask;
    const element = used << 1;
    this.#usedElements[element] = this.head;
    this.#usedElements[element | 1] = written;
    if (this.log !== undefined) this.#logElement(used);
    this.#current = 0;
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
    // A full fence on both sides: the elements are visible before the index, the index before the flags are read.
    Atomics.store(this.#used, 1, after);
    if (this.#inflight !== undefined) this.#inflight.settle(after);
    if (this.log !== undefined) this.#logUsed(2, 2);
    if (this.#eventIndex) {
      return needsEvent(Atomics.load(this.#available, 2 + this.size), after, before);
    }
    return (Atomics.load(this.#available, 0) & NO_INTERRUPT) === 0;
  }

  /**
   * Tells the driver whether to kick when it makes chains available. After turning kicks on, `peek` must be tried
   * once more: the driver may have looked at the flag just before.
   */
  wantKicks(wanted: boolean): void {
    if (this.#eventIndex) {
      // There is no way to say "never" but to leave the index behind.
      if (!wanted) return;
      Atomics.store(this.#used, 2 + 4 * this.size, this.#nextAvailable);
      if (this.log !== undefined) this.#logUsed(4 + 8 * this.size, 2);
    } else if (wanted !== this.#kicksWanted) {
      this.#kicksWanted = wanted;
      Atomics.store(this.#used, 0, wanted ? 0 : NO_NOTIFY);
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

  /** As `writeMessage`, of `length` bytes with the header, from where they can be read in words. */
  writeWords(source: Words, sourceOffset: number, length: number): void {
    const { window, offset, length: room } = this.segments[this.readableCount] as Segment;
    if (room < length) {
      this.#scatter(0, source.u8, sourceOffset, length);
      return;
    }
    copyWords(source, sourceOffset, window, offset, length);
    if (this.log !== undefined) this.log.pages.mark(window.guestAddress + offset, length);
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

  #logElement(used: number): void {
    this.#logUsed(4 + 8 * used, 8);
  }

  /** Logs a write of bytes of the used ring. */
  #logUsed(offset: number, length: number): void {
    const { pages, used } = this.log as QueueLog;
    if (used !== undefined) pages.mark(used + offset, length);
  }

  /**
   * Looks for more chains than the driver was seen to have made available.
   * @returns the first descriptor of the next one, -1 when there is none
   */
  #look(): number {
    if (this.#again !== undefined) return this.#again[0] as number;
    const index = Atomics.load(this.#available, 1);
    // A full ring is `size` ahead; more, or less than before, is a broken driver.
    if (((index - this.#nextAvailable) & 0xffff) > this.size) {
      throw new GuestError(
        "avail-index-jump",
        `available index went from ${this.#nextAvailable} to ${index}`,
      );
    }
    this.#seenAvailable = index;
    if (index === this.#nextAvailable) return -1;
    return this.#available[2 + (this.#nextAvailable & this.#mask)] as number;
  }

  /** Walks a chain in the descriptor table (virtio 1.3, 2.7.5), whose first descriptor is this. */
  #walk(firstAddress: number, firstLength: number, firstFlagsAndNext: number): void {
    this.readableLength = 0;
    this.readableCount = 0;
    this.writableLength = 0;
    this.segmentCount = 0;
    this.descriptorCount = 0;
    this.#writableSeen = false;
    const table = this.#descriptors;
    let address = firstAddress;
    let length = firstLength;
    let flagsAndNext = firstFlagsAndNext;
    for (;;) {
      const flags = flagsAndNext & 0xffff;
      if ((flags & INDIRECT) !== 0) {
        if (!this.#indirect)
          throw new GuestError("indirect-not-negotiated", "an indirect descriptor was not negotiated");
        if ((flags & NEXT) !== 0)
          throw new GuestError("indirect-with-next", "an indirect descriptor has a next one");
        this.#walkIndirect(address, length);
        return;
      }
      this.#add(address, length, (flags & WRITE) !== 0);
      if ((flags & NEXT) === 0) return;
      const index = flagsAndNext >>> 16;
      if (index >= this.size)
        throw new GuestError("descriptor-index", `a chain goes on at ${index} of ${this.size}`);
      const at = index << 2;
      address = (table[at | 1] as number) * TWO_32 + (table[at] as number);
      length = table[at | 2] as number;
      flagsAndNext = table[at | 3] as number;
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
      let window = this.#near;
      let offset = at - window.guestAddress;
      if (offset < 0 || offset + left > window.size) {
        const found = this.#memory.find(at, left) ?? this.#memory.findLongest(at);
        if (found === undefined) {
          throw new GuestError("descriptor-range", `a buffer at 0x${at.toString(16)} is not in guest memory`);
        }
        window = found;
        this.#approach(window);
        offset = at - window.guestAddress;
      }
      const part = Math.min(left, window.size - offset);
      const segment = this.segments[this.segmentCount];
      if (segment === undefined) {
        this.segments[this.segmentCount] = { window, offset: offset | 0, length: part | 0 };
      } else {
        segment.window = window;
        segment.offset = offset | 0;
        segment.length = part | 0;
      }
      this.segmentCount++;
      if (!writable) this.readableCount++;
      at += part;
      left -= part;
    }
  }

  /** Looks for the next buffers in this window first. */
  #approach(window: MemoryWindow): void {
    const start = window.guestAddress;
    this.#near = window;
    this.#nearLow = start | 0;
    this.#nearHigh = Math.floor(start / TWO_32) | 0;
    this.#nearSize = Math.min(window.size, TWO_32 - (start % TWO_32));
  }
}

function wrongHead(head: number, size: number): GuestError {
  return new GuestError("descriptor-index", `available entry names descriptor ${head} of ${size}`);
}
