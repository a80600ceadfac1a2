import type { MemoryRegion } from "./guest-memory.ts";
import { memoryWindow } from "./guest-memory.ts";

/** Guest memory on the heap of this process: for emulated guests, without native code. */
export function heapRegion(guestAddress: number, size: number, userAddress = guestAddress): MemoryRegion {
  return {
    guestAddress,
    userAddress,
    size,
    windows: [memoryWindow(guestAddress, userAddress, new ArrayBuffer(size))],
    close() {},
  };
}
