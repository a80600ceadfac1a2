import { FrontendError } from "../errors.ts";
import type { Words } from "./copy-bytes.ts";
import { copyBytes, wordsOf } from "./copy-bytes.ts";

/**
 * A piece of guest memory as typed arrays over one ArrayBuffer of at most 1 GiB (a larger view aborts Node 20).
 * Offsets in it therefore stay small integers, which keeps the hot path free of heap numbers.
 */
export interface MemoryWindow extends Words {
  /** Guest-physical address of byte 0. */
  readonly guestAddress: number;
  /** Frontend-virtual address of byte 0. */
  readonly userAddress: number;
  /** Bytes. */
  readonly size: number;
  readonly u16: Uint16Array;
  readonly u32: Uint32Array;
}

/** One region of guest memory, contiguous in guest-physical and in frontend-virtual addresses. */
export interface MemoryRegion {
  readonly guestAddress: number;
  readonly userAddress: number;
  /** Bytes. */
  readonly size: number;
  /** Cover the region; neighbours may overlap, so that anything small lies whole in one of them. */
  readonly windows: readonly MemoryWindow[];
  /** Ends the access: later reads give zeros and later writes are lost. */
  close(): void;
}

/** Makes a window over a buffer; `buffer` starts at an address that is a multiple of 8. */
export function memoryWindow(
  guestAddress: number,
  userAddress: number,
  buffer: ArrayBufferLike,
): MemoryWindow {
  const { u8, i64 } = wordsOf(buffer);
  return {
    guestAddress,
    userAddress,
    size: buffer.byteLength,
    u8,
    i64,
    u16: new Uint16Array(buffer, 0, buffer.byteLength >> 1),
    u32: new Uint32Array(buffer, 0, buffer.byteLength >> 2),
  };
}

/**
 * The memory that a guest shares: regions, and translation of guest-physical addresses (descriptors) and
 * frontend-virtual addresses (rings, vhost-user "SET_VRING_ADDR").
 *
 * All addresses are Numbers: a region that reaches past 2^53 is refused.
 */
export class GuestMemory {
  readonly #regions: MemoryRegion[] = [];
  #windows: MemoryWindow[] = [];

  get regions(): readonly MemoryRegion[] {
    return this.#regions;
  }

  /** @throws FrontendError memory-range, memory-overlap */
  add(region: MemoryRegion): void {
    const { guestAddress, userAddress, size } = region;
    const fits = (start: number) =>
      Number.isSafeInteger(start) && start >= 0 && Number.isSafeInteger(start + size);
    if (!fits(guestAddress) || !fits(userAddress) || size <= 0) {
      throw new FrontendError(
        "memory-range",
        `region of ${size} bytes at ${guestAddress} is out of the address space`,
      );
    }
    for (const other of this.#regions) {
      if (
        overlap(guestAddress, size, other.guestAddress, other.size) ||
        overlap(userAddress, size, other.userAddress, other.size)
      ) {
        throw new FrontendError(
          "memory-overlap",
          `region at ${guestAddress} overlaps that at ${other.guestAddress}`,
        );
      }
    }
    this.#regions.push(region);
    this.#windows = this.#regions.flatMap((each) => each.windows);
  }

  /** Takes the region with exactly these addresses out and returns it, not closed. */
  remove(guestAddress: number, userAddress: number, size: number): MemoryRegion | undefined {
    const index = this.#regions.findIndex(
      (each) => each.guestAddress === guestAddress && each.userAddress === userAddress && each.size === size,
    );
    if (index === -1) return undefined;
    const [region] = this.#regions.splice(index, 1);
    this.#windows = this.#regions.flatMap((each) => each.windows);
    return region;
  }

  /** Closes every region. */
  close(): void {
    for (const region of this.#regions.splice(0)) region.close();
    this.#windows = [];
  }

  /** The window that holds `length` bytes from a guest-physical address whole, if there is one. */
  find(guestAddress: number, length: number): MemoryWindow | undefined {
    for (const window of this.#windows) {
      const offset = guestAddress - window.guestAddress;
      if (offset >= 0 && offset + length <= window.size && length >= 0) return window;
    }
    return undefined;
  }

  /** The window that holds `length` bytes from a frontend-virtual address whole, if there is one. */
  findUser(userAddress: number, length: number): MemoryWindow | undefined {
    for (const window of this.#windows) {
      const offset = userAddress - window.userAddress;
      if (offset >= 0 && offset + length <= window.size && length >= 0) return window;
    }
    return undefined;
  }

  /**
   * The window that holds the most bytes from a guest-physical address on: for ranges that cross windows or
   * regions, walked piece by piece.
   */
  findLongest(guestAddress: number): MemoryWindow | undefined {
    let best: MemoryWindow | undefined;
    for (const window of this.#windows) {
      const offset = guestAddress - window.guestAddress;
      if (offset < 0 || offset >= window.size) continue;
      if (best === undefined || window.size - offset > best.size - (guestAddress - best.guestAddress))
        best = window;
    }
    return best;
  }

  /**
   * Copies `length` bytes from a guest-physical address, across windows and regions.
   * @returns false, with `target` partly written, where the range is not all in memory.
   */
  read(guestAddress: number, target: Uint8Array, targetOffset: number, length: number): boolean {
    let address = guestAddress;
    let at = targetOffset;
    const end = targetOffset + length;
    while (at < end) {
      const window = this.findLongest(address);
      if (window === undefined) return false;
      const offset = address - window.guestAddress;
      const part = Math.min(end - at, window.size - offset);
      copyBytes(window.u8, offset, target, at, part);
      at += part;
      address += part;
    }
    return true;
  }
}

function overlap(a: number, aSize: number, b: number, bSize: number): boolean {
  return a < b + bSize && b < a + aSize;
}
