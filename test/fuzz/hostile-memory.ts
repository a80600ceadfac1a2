import assert from "node:assert/strict";
import { GuestMemory } from "../../rpmsg/memory/guest-memory.ts";
import { windowedRegion } from "../rpmsg/support/windows.ts";
import { Random } from "../support/random.ts";
import type { PlainRegion } from "./plain-ring.ts";
import { PlainMemory } from "./plain-ring.ts";

/** Bytes before, between and behind the regions: nobody may read or write them. */
const GUARD = 256;
const USER_BASE = 0x7f12_0000_0000;

/** What the parts of memory are there for. */
const PARTS = [
  { name: "rings", address: 0x2000_0000, size: 4096, window: 2048, overlap: 1024 },
  { name: "first", address: 0x4000_0000, size: 2048, window: 2048, overlap: 0 },
  { name: "its neighbour", address: 0x4000_0800, size: 1024, window: 512, overlap: 256 },
  { name: "beyond 32 bits", address: 0x1_2345_6000, size: 2048, window: 1024, overlap: 512 },
  { name: "at the end of the numbers", address: 2 ** 53 - 0x2000, size: 1024, window: 1024, overlap: 0 },
] as const;

/** Where a region is, in guest-physical and frontend-virtual addresses and in the array. */
export interface Place {
  address: number;
  user: number;
  offset: number;
  size: number;
}

/**
 * Guest memory twice: what the device under test sees, in several regions and windows with guards around them, and a
 * copy that the oracle works on. Both are the same after each case, byte by byte, guards and all.
 */
export class HostileMemory {
  readonly memory = new GuestMemory();
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** What the oracle works on. */
  readonly plain: PlainMemory;
  /** The same rules over the bytes of the device, to place things in. */
  readonly shared: PlainMemory;
  /** The region for rings, and those for buffers. */
  readonly rings: Place;
  readonly buffers: readonly Place[];
  readonly #before: Uint8Array;

  constructor() {
    const total = PARTS.reduce((sum, { size }) => sum + size + GUARD, GUARD);
    const buffer = new ArrayBuffer(total);
    this.bytes = new Uint8Array(buffer);
    this.view = new DataView(buffer);
    const places: Place[] = [];
    const regions: PlainRegion[] = [];
    let offset = GUARD;
    for (const { address, size, window, overlap } of PARTS) {
      // Elsewhere than the guest has it, so that a mix-up shows.
      const user = USER_BASE + 0x10_0000 * places.length;
      this.memory.add(windowedRegion(address, user, size, window, overlap, buffer, offset));
      places.push({ address, user, offset, size });
      regions.push({ address: BigInt(address), size, offset });
      offset += size + GUARD;
    }
    [this.rings, ...this.buffers] = places as [Place, ...Place[]];
    const random = new Random(1);
    this.#before = Uint8Array.from({ length: total }, () => random.below(256));
    this.plain = new PlainMemory(this.#before.slice(), regions);
    this.shared = new PlainMemory(this.bytes, regions);
  }

  /** What every case starts with: each byte its own value. */
  reset(): void {
    this.bytes.set(this.#before);
  }

  /** The guest has written; the oracle sees it too. */
  copyToOracle(): void {
    this.plain.bytes.set(this.bytes);
  }

  /** @param except offsets of 16-bit fields that the device may have written */
  assertAsOracle(except: readonly number[] = []): void {
    for (const at of except) this.plain.view.setUint16(at, this.view.getUint16(at, true), true);
    if (Buffer.compare(this.bytes, this.plain.bytes) === 0) return;
    const at = this.bytes.findIndex((byte, i) => byte !== this.plain.bytes[i]);
    assert.fail(`memory differs from byte ${at} on, ${this.#placeOf(at)}`);
  }

  #placeOf(at: number): string {
    const places = [this.rings, ...this.buffers];
    const index = places.findIndex(({ offset, size }) => at >= offset && at < offset + size);
    const place = places[index];
    if (place === undefined) return "in no region";
    return `byte ${at - place.offset} of the region "${PARTS[index]?.name}"`;
  }
}
