import type { RingAddresses } from "../rpmsg/index.ts";
import { ringSizes } from "../rpmsg/index.ts";
import type { Profile } from "./profiles.ts";

/** Guest-physical address of an emulated guest's memory. */
export const MEMORY_BASE = 0x4000_0000;

const PAGE = 4096;

/** Where everything is in an emulated guest's memory, as guest-physical addresses. */
export interface GuestLayout {
  receiveRing: RingAddresses;
  transmitRing: RingAddresses;
  receiveBuffers: number;
  transmitBuffers: number;
  /** Bytes from `MEMORY_BASE` on, whole pages. */
  size: number;
}

export function layoutOf(profile: Profile): GuestLayout {
  let next = MEMORY_BASE;
  const take = (bytes: number): number => {
    const address = next;
    next += Math.ceil(bytes / PAGE) * PAGE;
    return address;
  };
  const sizes = ringSizes(profile.queueSize);
  const ring = (): RingAddresses => ({
    descriptors: take(sizes.descriptors),
    available: take(sizes.available),
    used: take(sizes.used),
  });
  const buffers = profile.bufferCount * profile.bufferSize;
  return {
    receiveRing: ring(),
    transmitRing: ring(),
    receiveBuffers: take(buffers),
    transmitBuffers: take(buffers),
    size: next - MEMORY_BASE,
  };
}
