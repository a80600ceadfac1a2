import { FrontendError } from "../errors.ts";
import { GuestMemory } from "../memory/guest-memory.ts";
import type { MappedRegion } from "../memory/mapped-memory.ts";
import { mappedRegion } from "../memory/mapped-memory.ts";
import { closeFd } from "../posix/unix-socket.ts";
import type { VhostUserMessage } from "./connection.ts";
import { REGION_SIZE, readRegion } from "./messages.ts";

/** Regions of SET_MEM_TABLE (vhost-user.rst: VHOST_MEMORY_BASELINE_NREGIONS). */
export const MAX_TABLE_REGIONS = 8;
/** Regions of ADD_MEM_REG; each keeps one descriptor open. */
export const MAX_MEMORY_SLOTS = 64;

/** Bytes of all regions: each GiB takes time to map, during which nobody else gets a turn. */
const MAX_MEMORY = 2 ** 38;

/** A region, for a hand-over: plain data, with a descriptor of the process that gives it. */
export interface RegionSnapshot {
  readonly fd: number;
  readonly fileOffset: number;
  readonly guestAddress: number;
  readonly userAddress: number;
  readonly size: number;
}

/** The guest's memory as the frontend's messages tell it. Each throws a FrontendError where it cannot be done. */
export class MemoryTable {
  readonly memory = new GuestMemory();
  /** Guest addresses must lie below this one: those that a log covers. */
  limit = Number.POSITIVE_INFINITY;

  /** SET_MEM_TABLE: these regions instead of the old ones, which are gone even when the new ones are not good. */
  set(message: VhostUserMessage): void {
    const { payload, fdCount } = message;
    const count = payload.getUint32(0, true);
    if (count > MAX_TABLE_REGIONS) {
      throw new FrontendError("memory-limit", `a memory table of ${count} regions`);
    }
    if (payload.byteLength < 8 + count * REGION_SIZE) {
      throw new FrontendError("message-size", `${count} memory regions in ${payload.byteLength} bytes`);
    }
    if (fdCount !== count) {
      throw new FrontendError("descriptor-count", `${count} regions came with ${fdCount} descriptors`);
    }
    this.memory.close();
    try {
      for (let i = 0; i < count; i++) this.#map(message, 8 + i * REGION_SIZE);
    } catch (error) {
      this.memory.close();
      throw error;
    }
  }

  /** ADD_MEM_REG */
  add(message: VhostUserMessage): void {
    if (this.memory.regions.length >= MAX_MEMORY_SLOTS) {
      throw new FrontendError("memory-limit", `all ${MAX_MEMORY_SLOTS} memory slots are in use`);
    }
    this.#map(message, 8);
  }

  /** REM_MEM_REG */
  remove(message: VhostUserMessage): void {
    const { guestAddress, userAddress, size } = readRegion(message.payload, 8);
    const region = this.memory.remove(guestAddress, userAddress, size);
    if (region === undefined) {
      throw new FrontendError("memory-range", `no region of ${size} bytes at 0x${guestAddress.toString(16)}`);
    }
    region.close();
  }

  snapshot(): RegionSnapshot[] {
    return (this.memory.regions as MappedRegion[]).map(
      ({ fd, fileOffset, guestAddress, userAddress, size }) => ({
        fd,
        fileOffset,
        guestAddress,
        userAddress,
        size,
      }),
    );
  }

  /**
   * Maps a region of another table; the descriptor is this process's, and taken, on errors too.
   * @throws FrontendError memory-range, memory-map, memory-overlap
   */
  restore({ fd, fileOffset, guestAddress, userAddress, size }: RegionSnapshot): void {
    this.#add(mappedRegion(fd, fileOffset, guestAddress, userAddress, size));
  }

  /** Whether a file can be truncated under our access, which kills the process (posix/shared-memory.ts). */
  get hasUnsealed(): boolean {
    return (this.memory.regions as readonly MappedRegion[]).some((region) => !region.sealed);
  }

  /** End of the highest region. */
  get end(): number {
    return this.memory.regions.reduce((end, region) => Math.max(end, region.guestAddress + region.size), 0);
  }

  close(): void {
    this.memory.close();
  }

  /** Maps the region that the message has at `offset`, with its next descriptor. */
  #map(message: VhostUserMessage, offset: number): void {
    const fd = message.takeFd();
    if (fd === undefined) {
      throw new FrontendError("descriptor-count", "a memory region came without a descriptor");
    }
    const { guestAddress, userAddress, size, fileOffset } = readRegion(message.payload, offset);
    const total = this.memory.regions.reduce((sum, region) => sum + region.size, size);
    if (total > MAX_MEMORY) {
      closeFd(fd);
      throw new FrontendError("memory-limit", `${total} bytes of memory, the most is ${MAX_MEMORY}`);
    }
    if (guestAddress + size > this.limit) {
      closeFd(fd);
      throw new FrontendError("log-range", "a memory region goes beyond the log of the migration");
    }
    this.#add(mappedRegion(fd, fileOffset, guestAddress, userAddress, size));
  }

  #add(mapped: MappedRegion): void {
    try {
      this.memory.add(mapped);
    } catch (error) {
      mapped.close();
      throw error;
    }
  }
}
