import type { RingSetup } from "../../rpmsg/virtqueue/layout.ts";
import type { Random } from "../support/random.ts";
import type { HostileMemory, Place } from "./hostile-memory.ts";
import type { PlainRingOptions } from "./plain-ring.ts";

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
const DESCRIPTOR = 16;

/** Bytes of buffers. */
export const LENGTHS = [0, 1, 2, 4, 8, 12, 15, 16, 17, 31, 32, 40, 56, 64, 100, 200] as const;
const WILD_LENGTHS = [
  0, 1, 15, 16, 17, 511, 512, 2048, 2049, 0x7fff_ffff, 0x8000_0000, 0xffff_fff0, 0xffff_ffff,
] as const;
const FLAGS = [0, 1, 1, 2, 3, 3, 4, 4, 5, 6, 7, 8, 0xfff8, 0xffff] as const;
/** Upper halves of addresses that are in no region, or in one by mistake. */
const HIGH = [0, 0, 1, 2, 0x1f_ffff, 0x20_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] as const;

/** What a guest writes for one case. */
export interface Shape {
  /** Chance that nothing is as it should be. */
  wild: number;
  /** Chance that a well-formed table has faults put in. */
  faults: number;
  /** Regions that buffers are put in. */
  regions: readonly Place[];
  /** Bytes that a buffer may have. */
  lengths: readonly [number, ...number[]];
  /** Buffers that the device may write: chance that a chain ends in such. */
  writable: number;
}

/** A driver that writes one ring, well-formed, slightly wrong, or at random. */
export class HostileDriver {
  /** Chains that were offered as they should be, by their heads; faults come on top. */
  readonly chains: { head: number; readable: { address: number; length: number }[] }[] = [];
  readonly #memory: HostileMemory;
  readonly #random: Random;
  readonly #ring: PlainRingOptions;
  readonly #shape: Shape;
  /** Offsets of descriptors that were written, in tables too. */
  readonly #written: number[] = [];
  #available: number;

  constructor(memory: HostileMemory, random: Random, ring: PlainRingOptions, shape: Shape) {
    this.#memory = memory;
    this.#random = random;
    this.#ring = ring;
    this.#shape = shape;
    this.#available = ring.base;
  }

  /**
   * Writes descriptors, and makes chains of them available, from where the device stands: what was offered before is
   * taken.
   */
  write({ base, used }: { base: number; used: number }): void {
    const random = this.#random;
    const { available, size } = this.#ring;
    this.#available = base;
    // Of the used entries that come next, the one that the driver wants to be told of.
    this.#memory.view.setUint16(available + 4 + 2 * size, used + random.between(-2, size), true);
    this.chains.length = 0;
    this.#written.length = 0;
    if (random.chance(this.#shape.wild)) {
      this.#wild();
      return;
    }
    this.#wellFormed();
    if (!random.chance(this.#shape.faults)) return;
    for (let left = random.between(1, 3); left > 0; left--) this.#fault();
  }

  #wellFormed(): void {
    const random = this.#random;
    const { size } = this.#ring;
    const free = Array.from({ length: size }, (_, i) => i);
    for (let i = size - 1; i > 0; i--) {
      const j = random.below(i + 1);
      [free[i], free[j]] = [free[j] as number, free[i] as number];
    }
    do {
      this.#chain(free);
    } while (free.length > 0 && random.chance(0.7));
    this.#publish();
  }

  /** A chain: direct, in an indirect table, or first direct and then in a table. */
  #chain(free: number[]): void {
    const random = this.#random;
    const { size, indirect, descriptors } = this.#ring;
    const inTable = indirect && random.chance(0.4) ? random.between(1, Math.min(size, 5)) : 0;
    const most = Math.min(free.length - (inTable > 0 ? 1 : 0), size - inTable, 6);
    const direct = inTable > 0 && random.chance(0.6) ? 0 : Math.min(random.between(1, 6), most);
    const buffers = direct + inTable;
    const readable = random.chance(this.#shape.writable) ? random.below(buffers + 1) : buffers;
    const head = free.at(-1) as number;
    const chain: HostileDriver["chains"][number] = { head, readable: [] };
    for (let i = 0; i < direct; i++) {
      const index = free.pop() as number;
      const more = i < buffers - 1;
      this.#buffer(
        descriptors + DESCRIPTOR * index,
        i >= readable,
        more,
        more ? (free.at(-1) ?? 0) : 0,
        chain,
      );
    }
    if (inTable > 0) {
      const place = this.#place(DESCRIPTOR * inTable);
      this.#describe(
        descriptors + DESCRIPTOR * (free.pop() as number),
        place.address,
        DESCRIPTOR * inTable,
        INDIRECT,
        0,
      );
      for (let i = 0; i < inTable; i++) {
        const more = i < inTable - 1;
        this.#buffer(place.offset + DESCRIPTOR * i, direct + i >= readable, more, more ? i + 1 : 0, chain);
      }
    }
    this.chains.push(chain);
    this.#offer(head);
  }

  #buffer(
    at: number,
    writable: boolean,
    more: boolean,
    next: number,
    chain: HostileDriver["chains"][number],
  ): void {
    const length = this.#random.pick(this.#shape.lengths);
    const { address } = this.#place(length);
    if (!writable) chain.readable.push({ address, length });
    this.#describe(at, address, length, (writable ? WRITE : 0) | (more ? NEXT : 0), next);
  }

  /** Puts one thing wrong. */
  #fault(): void {
    const random = this.#random;
    const { view } = this.#memory;
    const { size, available } = this.#ring;
    const at = this.#written[random.below(this.#written.length)] as number;
    switch (random.below(8)) {
      case 0:
        this.#wildAddress(at);
        break;
      case 1:
        view.setUint32(at + 8, random.pick(WILD_LENGTHS), true);
        break;
      case 2:
        view.setUint16(at + 12, random.pick(FLAGS), true);
        break;
      // A loop, or a chain that goes on in another one or behind the table.
      case 3:
        view.setUint16(at + 12, view.getUint16(at + 12, true) | NEXT, true);
        view.setUint16(at + 14, random.below(size + 1), true);
        break;
      case 4:
        view.setUint16(at + 14, random.pick([size, size - 1, 0xffff, random.below(0x1_0000)]), true);
        break;
      case 5:
        view.setUint16(
          available + 4 + 2 * random.below(size),
          random.pick([size, 0xffff, random.below(size)]),
          true,
        );
        break;
      case 6:
        if (random.chance(0.5)) this.#moveIndex();
        break;
      // A table in a table, and a table with a next one.
      default:
        view.setUint16(at + 12, random.pick([INDIRECT, INDIRECT | NEXT, INDIRECT | WRITE]), true);
        view.setUint32(at + 8, DESCRIPTOR * random.below(size + 2) + random.pick([0, 0, 0, 1, 15]), true);
    }
  }

  #wild(): void {
    const random = this.#random;
    const { size, descriptors } = this.#ring;
    for (let i = 0; i < size; i++) {
      const at = descriptors + DESCRIPTOR * i;
      const length = random.chance(0.7) ? random.pick(LENGTHS) : random.pick(WILD_LENGTHS);
      const next = random.chance(0.95) ? random.below(size) : random.below(0x1_0000);
      this.#describe(at, this.#place(length).address, length, random.pick(FLAGS), next);
      if (random.chance(0.2)) this.#wildAddress(at);
    }
    for (let left = random.between(1, size); left > 0; left--) {
      this.#offer(random.chance(0.97) ? random.below(size) : random.below(0x1_0000));
    }
    this.#publish();
    if (random.chance(0.05)) this.#moveIndex();
  }

  /** One more or less, a ring more, backwards, or anywhere. */
  #moveIndex(): void {
    const random = this.#random;
    const { size, available } = this.#ring;
    const step = random.pick([1, size, size + 1, -1, 0x8000, random.below(0x1_0000)]);
    this.#memory.view.setUint16(available + 2, this.#available + step, true);
  }

  /** A place in a region with so many bytes behind it, where the region has them. */
  #place(length: number): { address: number; offset: number } {
    const random = this.#random;
    const region = this.#shape.regions[random.below(this.#shape.regions.length)] as Place;
    const skip = random.below(Math.max(region.size - length, 0) + 1);
    return { address: region.address + skip, offset: region.offset + skip };
  }

  /** An address near an edge of a region, or anywhere in 64 bits. */
  #wildAddress(at: number): void {
    const random = this.#random;
    const { view } = this.#memory;
    const region = this.#shape.regions[random.below(this.#shape.regions.length)] as Place;
    const edge = BigInt(
      region.address + random.pick([0, region.size, region.size >> 1]) + random.between(-20, 20),
    );
    view.setBigUint64(at, edge, true);
    if (random.chance(0.5)) view.setUint32(at + 4, random.pick(HIGH), true);
    if (random.chance(0.2))
      view.setUint32(at, random.pick([0, 0xffff_fff0, 0xffff_ffff, random.below(2 ** 32)]), true);
  }

  #describe(at: number, address: number, length: number, flags: number, next: number): void {
    const { view } = this.#memory;
    view.setUint32(at, address % 2 ** 32, true);
    view.setUint32(at + 4, Math.floor(address / 2 ** 32), true);
    view.setUint32(at + 8, length, true);
    view.setUint16(at + 12, flags, true);
    view.setUint16(at + 14, next, true);
    this.#written.push(at);
  }

  #offer(head: number): void {
    const { available, size } = this.#ring;
    this.#memory.view.setUint16(available + 4 + 2 * (this.#available % size), head, true);
    this.#available = (this.#available + 1) % 0x1_0000;
  }

  #publish(): void {
    this.#memory.view.setUint16(this.#ring.available + 2, this.#available, true);
  }
}

const SIZES = [1, 2, 4, 8, 8, 16, 32] as const;

/** Puts an empty ring of random size at an offset of the region for rings: less than 1024 bytes. */
export function placeRing(
  memory: HostileMemory,
  random: Random,
  at: number,
): { plain: PlainRingOptions; setup: RingSetup } {
  const { rings, view } = memory;
  const size = random.pick(SIZES);
  const descriptors = at;
  const available = descriptors + DESCRIPTOR * size + 16 * random.below(2);
  const used = available + 16 * Math.ceil((6 + 2 * size) / 16);
  const base = random.pick([0, 0, 1, size, 0xffff, 0xfff0, random.below(0x1_0000)]);
  const indirect = random.chance(0.7);
  const eventIndex = random.chance(0.5);
  view.setUint16(rings.offset + available, random.pick([0, 0, 1, 0xfffe]), true);
  view.setUint16(rings.offset + available + 2, base, true);
  // Chains that an earlier device has not given back stand between the two.
  view.setUint16(rings.offset + used + 2, random.chance(0.8) ? base : random.below(0x1_0000), true);
  const addresses = {
    descriptors: rings.user + descriptors,
    available: rings.user + available,
    used: rings.user + used,
  };
  return {
    setup: { memory: memory.memory, size, addresses, indirect, eventIndex },
    plain: {
      descriptors: rings.offset + descriptors,
      available: rings.offset + available,
      used: rings.offset + used,
      size,
      indirect,
      eventIndex,
      base,
    },
  };
}
