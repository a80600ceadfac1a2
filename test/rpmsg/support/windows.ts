import { wordsOf } from "../../../rpmsg/memory/copy-bytes.ts";
import type { MemoryRegion, MemoryWindow } from "../../../rpmsg/memory/guest-memory.ts";

/**
 * A region that is seen through windows of `windowSize` bytes, `overlap` of them shared with the next: as mapped memory,
 * but small.
 * @param buffer where its bytes are, from `at` on, a multiple of 8, as the windows are
 */
export function windowedRegion(
  guestAddress: number,
  userAddress: number,
  size: number,
  windowSize: number,
  overlap: number,
  buffer: ArrayBufferLike = new ArrayBuffer(size),
  at = 0,
): MemoryRegion & { readonly bytes: Uint8Array } {
  const windows: MemoryWindow[] = [];
  for (let offset = 0; ; offset += windowSize - overlap) {
    const length = Math.min(windowSize, size - offset);
    windows.push({
      guestAddress: guestAddress + offset,
      userAddress: userAddress + offset,
      size: length,
      ...wordsOf(buffer, at + offset, length),
      u16: new Uint16Array(buffer, at + offset, length >> 1),
      u32: new Uint32Array(buffer, at + offset, length >> 2),
    });
    if (offset + length === size) break;
  }
  return { guestAddress, userAddress, size, windows, bytes: new Uint8Array(buffer, at, size), close() {} };
}

/** The index-th window of a region. */
export function windowOf(region: MemoryRegion, index = 0): MemoryWindow {
  const window = region.windows[index];
  if (window === undefined) throw new Error(`no window ${index}`);
  return window;
}
