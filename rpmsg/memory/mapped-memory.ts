import type { MemoryRegion } from "./guest-memory.ts";
import { memoryWindow } from "./guest-memory.ts";
import { mapFile } from "./mapped-file.ts";

/** A region of a memory file. */
export interface MappedRegion extends MemoryRegion {
  /** The file, open until the region is closed, so that the memory can be handed on. */
  readonly fd: number;
  /** Where in the file the region begins, in bytes. */
  readonly fileOffset: number;
  /** The file cannot shrink any more. */
  readonly sealed: boolean;
}

/**
 * Maps a region of a memory file that a frontend passed, as `mapFile` does. Takes the descriptor, on errors too.
 * @param fileOffset bytes into the file, a multiple of the page size
 * @throws FrontendError memory-range, memory-map
 */
export function mappedRegion(
  fd: number,
  fileOffset: number,
  guestAddress: number,
  userAddress: number,
  size: number,
): MappedRegion {
  const file = mapFile(fd, fileOffset, size);
  return {
    fd,
    fileOffset,
    guestAddress,
    userAddress,
    size,
    sealed: file.sealed,
    windows: file.windows.map(({ offset, buffer }) =>
      memoryWindow(guestAddress + offset, userAddress + offset, buffer),
    ),
    close: () => file.close(),
  };
}
