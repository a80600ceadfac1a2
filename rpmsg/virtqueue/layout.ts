/**
 * Layout of a split virtqueue (virtio 1.3, 2.7):
 *
 *     descriptor table  16 bytes an entry: u64 addr; u32 len; u16 flags; u16 next
 *     available ring    u16 flags; u16 idx; u16 ring[size]; u16 used_event      written by the driver
 *     used ring         u16 flags; u16 idx; {u32 id; u32 len} ring[size]; u16 avail_event      written by the device
 *
 * All little endian: the bridge runs on little-endian machines only, so typed arrays read the rings as they are.
 */
import { FrontendError } from "../errors.ts";
import type { GuestMemory, MemoryWindow } from "../memory/guest-memory.ts";

export const DESCRIPTOR_SIZE = 16;

/** Descriptor flags (virtio 1.3, 2.7.5). */
export const NEXT = 1;
export const WRITE = 2;
export const INDIRECT = 4;

/** Flag of the available ring: the driver wants no calls (2.7.6). Meaningless with EVENT_IDX. */
export const NO_INTERRUPT = 1;
/** Flag of the used ring: the device wants no kicks (2.7.8). Meaningless with EVENT_IDX. */
export const NO_NOTIFY = 1;

/** Largest queue of the specification (2.7). */
const MAX_QUEUE_SIZE = 32768;

/** Where the three parts of a ring are, in frontend-virtual addresses. */
export interface RingAddresses {
  descriptors: number;
  available: number;
  used: number;
}

/** What a queue needs to know of its ring. */
export interface RingSetup {
  memory: GuestMemory;
  /** Entries, a power of two. */
  size: number;
  addresses: RingAddresses;
  /** VIRTIO_F_INDIRECT_DESC was negotiated. */
  indirect: boolean;
  /** VIRTIO_F_EVENT_IDX was negotiated. */
  eventIndex: boolean;
}

/** Views of a ring: each is exactly its part, so that positions in it are small and its bounds are the ring's. */
export interface RingViews {
  /** Four elements an entry. */
  readonly descriptors: Uint32Array;
  /** flags, idx, ring[size], used_event. */
  readonly available: Uint16Array;
  /** flags, idx, ring[size] of four elements each, avail_event. */
  readonly used: Uint16Array;
  /** The ring[size] of the used ring: id and len of each. */
  readonly usedElements: Uint32Array;
}

export function isQueueSize(size: number): boolean {
  return Number.isInteger(size) && size > 0 && size <= MAX_QUEUE_SIZE && (size & (size - 1)) === 0;
}

/** Bytes of the parts of a ring, the event indexes included. */
export function ringSizes(size: number): RingAddresses {
  return { descriptors: DESCRIPTOR_SIZE * size, available: 6 + 2 * size, used: 6 + 8 * size };
}

/**
 * Finds the ring in guest memory.
 * @throws FrontendError ring-size, ring-range, ring-alignment
 */
export function mapRing(setup: RingSetup): RingViews {
  const { memory, size, addresses } = setup;
  if (!isQueueSize(size)) throw new FrontendError("ring-size", `a queue cannot have ${size} entries`);
  const bytes = ringSizes(size);
  const [descriptors, descriptorOffset] = locate(memory, addresses.descriptors, bytes.descriptors, 16);
  const [available, availableOffset] = locate(memory, addresses.available, bytes.available, 2);
  const [used, usedOffset] = locate(memory, addresses.used, bytes.used, 4);
  const [table, driver, device] = [descriptorOffset >> 2, availableOffset >> 1, usedOffset >> 1];
  const elements = (usedOffset >> 2) + 1;
  return {
    descriptors: descriptors.u32.subarray(table, table + 4 * size),
    available: available.u16.subarray(driver, driver + 3 + size),
    used: used.u16.subarray(device, device + 3 + 4 * size),
    usedElements: used.u32.subarray(elements, elements + 2 * size),
  };
}

function locate(
  memory: GuestMemory,
  address: number,
  length: number,
  alignment: number,
): [MemoryWindow, number] {
  const window = memory.findUser(address, length);
  if (window === undefined) {
    throw new FrontendError(
      "ring-range",
      `ring at ${hex(address)}, ${length} bytes, is not whole in one memory region`,
    );
  }
  const offset = address - window.userAddress;
  if (address % alignment !== 0 || offset % alignment !== 0) {
    throw new FrontendError("ring-alignment", `ring at ${hex(address)} is not aligned to ${alignment} bytes`);
  }
  return [window, offset];
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}

/**
 * Whether the peer asked to be told of an index step from `before` to `after` (virtio 1.3, 2.7.10; Linux:
 * vring_need_event). All are 16-bit and wrap.
 */
export function needsEvent(event: number, after: number, before: number): boolean {
  return ((after - event - 1) & 0xffff) < ((after - before) & 0xffff);
}
