/**
 * The device side of a split virtqueue once more, plain and slow, to compare with: written from virtio 1.3, 2.7, and
 * sharing nothing with rpmsg/. Addresses are 64-bit integers, memory is bytes, and a loop is a descriptor seen twice.
 */

/** Bytes of guest memory: `size` of them at a guest-physical address are at `offset` of the array. */
export interface PlainRegion {
  address: bigint;
  size: number;
  offset: number;
}

/** A run of bytes in the array. */
export interface Piece {
  offset: number;
  length: number;
}

export interface PlainChain {
  head: number;
  /** Buffers, those of the chain's indirect table included. */
  descriptors: number;
  readable: Piece[];
  writable: Piece[];
}

/** No chain; a chain; or the rules that the driver broke where it broke the first one, by their codes. */
export type Look = "empty" | PlainChain | { broken: Set<string> };

export interface PlainRingOptions {
  /** Offsets of the three parts in the array. */
  descriptors: number;
  available: number;
  used: number;
  size: number;
  indirect: boolean;
  eventIndex: boolean;
  /** First entry of the available ring to take. */
  base: number;
}

interface Descriptor {
  address: bigint;
  length: number;
  next: number;
  hasNext: boolean;
  isWritable: boolean;
  isIndirect: boolean;
}

const DESCRIPTOR = 16;

export class PlainMemory {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly #regions: readonly PlainRegion[];

  constructor(bytes: Uint8Array, regions: readonly PlainRegion[]) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#regions = regions;
  }

  /** Where these bytes are; undefined where not all of them are in memory. */
  range(address: bigint, length: number): Piece[] | undefined {
    const pieces: Piece[] = [];
    let at = address;
    let left = length;
    while (left > 0) {
      const from = at;
      const region = this.#regions.find(
        (each) => from >= each.address && from < each.address + BigInt(each.size),
      );
      if (region === undefined) return undefined;
      const skip = Number(at - region.address);
      const part = Math.min(left, region.size - skip);
      pieces.push({ offset: region.offset + skip, length: part });
      at += BigInt(part);
      left -= part;
    }
    return pieces;
  }
}

export class PlainRing {
  readonly #memory: PlainMemory;
  readonly #options: PlainRingOptions;
  /** Entries taken and given back so far, as 16 bits. */
  #next: number;
  #used: number;
  #shown: number;
  /** Entries that the index promised when it was last read. */
  #promised = 0;
  #kicks: boolean | undefined;

  constructor(memory: PlainMemory, options: PlainRingOptions) {
    this.#memory = memory;
    this.#options = options;
    this.#next = options.base;
    this.#used = memory.view.getUint16(options.used + 2, true);
    this.#shown = this.#used;
  }

  get position(): { base: number; used: number } {
    return { base: this.#next, used: this.#used };
  }

  look(): Look {
    const { available, size } = this.#options;
    const { view } = this.#memory;
    if (this.#promised === 0) {
      const ahead = (view.getUint16(available + 2, true) - this.#next + 0x1_0000) % 0x1_0000;
      if (ahead > size) return broken("avail-index-jump");
      this.#promised = ahead;
    }
    if (this.#promised === 0) return "empty";
    return this.#walk(view.getUint16(available + 4 + 2 * (this.#next % size), true));
  }

  /** Writes the used element of the chain that `look` found; `show` moves the index. */
  giveBack(head: number, written: number): void {
    const { used, size } = this.#options;
    const element = used + 4 + 8 * (this.#used % size);
    this.#memory.view.setUint32(element, head, true);
    this.#memory.view.setUint32(element + 4, written, true);
    this.#next = (this.#next + 1) % 0x1_0000;
    this.#used = (this.#used + 1) % 0x1_0000;
    this.#promised--;
  }

  /** @returns whether the driver wants to be called: one of the entries that it sees now is its event (2.7.7) */
  show(): boolean {
    const { available, used, size, eventIndex } = this.#options;
    const { view } = this.#memory;
    const before = this.#shown;
    if (before === this.#used) return false;
    view.setUint16(used + 2, this.#used, true);
    this.#shown = this.#used;
    if (!eventIndex) return view.getUint16(available, true) % 2 === 0;
    const event = view.getUint16(available + 4 + 2 * size, true);
    for (let entry = before; entry !== this.#used; entry = (entry + 1) % 0x1_0000) {
      if (entry === event) return true;
    }
    return false;
  }

  /** The device says whether it wants kicks (2.7.10); a flag is written when it changes, an event each time. */
  wantKicks(wanted: boolean): void {
    const { used, size, eventIndex } = this.#options;
    const { view } = this.#memory;
    if (eventIndex) {
      if (wanted) view.setUint16(used + 4 + 8 * size, this.#next, true);
    } else if (wanted !== this.#kicks) {
      view.setUint16(used, wanted ? 0 : 1, true);
    }
    this.#kicks = wanted;
  }

  #walk(head: number): PlainChain | { broken: Set<string> } {
    const { size, indirect } = this.#options;
    const chain: PlainChain = { head, descriptors: 0, readable: [], writable: [] };
    let table: { address: bigint; entries: number } | undefined;
    let seen = new Set<number>();
    let bytes = 0;
    let readableSeen = false;
    let writableSeen = false;
    let index = head;
    for (;;) {
      if (index >= (table?.entries ?? size)) return broken("descriptor-index");
      // Round and round until there are too many, or until a readable one follows a writable one.
      if (seen.has(index)) {
        return readableSeen && writableSeen
          ? broken("chain-too-long", "descriptor-order")
          : broken("chain-too-long");
      }
      seen.add(index);
      const descriptor = this.#descriptor(index, table?.address);
      if (descriptor === undefined) return broken("descriptor-range");
      const { address, length, next, hasNext, isWritable, isIndirect } = descriptor;
      const faults = new Set<string>();
      if (isIndirect) {
        if (table !== undefined) faults.add("indirect-nested");
        if (!indirect) faults.add("indirect-not-negotiated");
        if (hasNext) faults.add("indirect-with-next");
        if (table === undefined && (length === 0 || length % DESCRIPTOR !== 0)) faults.add("indirect-length");
        if (faults.size > 0) return { broken: faults };
        table = { address, entries: length / DESCRIPTOR };
        seen = new Set();
        index = 0;
        continue;
      }
      chain.descriptors++;
      bytes += length;
      if (chain.descriptors > size || bytes > 2 ** 32) faults.add("chain-too-long");
      if (writableSeen && !isWritable) faults.add("descriptor-order");
      const pieces = this.#memory.range(address, length);
      if (pieces === undefined) faults.add("descriptor-range");
      if (faults.size > 0 || pieces === undefined) return { broken: faults };
      if (isWritable) writableSeen = true;
      else readableSeen = true;
      (isWritable ? chain.writable : chain.readable).push(...pieces);
      if (!hasNext) return chain;
      index = next;
    }
  }

  /** u64 addr; u32 len; u16 flags; u16 next. An indirect table may lie across regions: byte by byte. */
  #descriptor(index: number, table: bigint | undefined): Descriptor | undefined {
    let { view } = this.#memory;
    let at = this.#options.descriptors + DESCRIPTOR * index;
    if (table !== undefined) {
      const pieces = this.#memory.range(table + BigInt(DESCRIPTOR * index), DESCRIPTOR);
      if (pieces === undefined) return undefined;
      view = new DataView(bytesOf(this.#memory, pieces).buffer);
      at = 0;
    }
    const flags = view.getUint16(at + 12, true);
    return {
      address: view.getBigUint64(at, true),
      length: view.getUint32(at + 8, true),
      next: view.getUint16(at + 14, true),
      hasNext: (flags & 1) !== 0,
      isWritable: (flags & 2) !== 0,
      isIndirect: (flags & 4) !== 0,
    };
  }
}

export function lengthOf(pieces: readonly Piece[]): number {
  return pieces.reduce((sum, { length }) => sum + length, 0);
}

/** A copy of the bytes. */
export function bytesOf(memory: PlainMemory, pieces: readonly Piece[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(lengthOf(pieces));
  let at = 0;
  for (const { offset, length } of pieces) {
    bytes.set(memory.bytes.subarray(offset, offset + length), at);
    at += length;
  }
  return bytes;
}

/** Writes bytes one after the other to the start of these pieces. */
export function writeTo(memory: PlainMemory, pieces: readonly Piece[], bytes: Uint8Array): void {
  let at = 0;
  for (const { offset, length } of pieces) {
    for (let i = 0; i < length && at < bytes.length; i++) memory.bytes[offset + i] = bytes[at++] as number;
  }
}

function broken(...codes: string[]): { broken: Set<string> } {
  return { broken: new Set(codes) };
}
