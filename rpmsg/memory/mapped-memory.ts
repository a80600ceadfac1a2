import { FrontendError } from "../errors.ts";
import { errnoName } from "../posix/errno.ts";
import { fileSize, mapShared, sealShrink } from "../posix/shared-memory.ts";
import { closeFd } from "../posix/unix-socket.ts";
import type { MemoryRegion } from "./guest-memory.ts";
import { memoryWindow } from "./guest-memory.ts";

/** A region of a memory file. */
export interface MappedRegion extends MemoryRegion {
  /** The file, open until the region is closed, so that the memory can be handed on. */
  readonly fd: number;
  /** Where in the file the region begins, in bytes. */
  readonly fileOffset: number;
}

/**
 * Maps a region of a memory file that a frontend passed. Takes the descriptor, on errors too.
 *
 * A peer that truncates its file would kill this process with SIGBUS: the file must be large enough now, and is
 * sealed against shrinking where it allows that (memfd with MFD_ALLOW_SEALING).
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
  try {
    // Sealed first: a size that is looked at before may be another one afterwards.
    sealShrink(fd);
    const bytes = fileSize(fd);
    if (bytes < 0)
      throw new FrontendError("memory-map", `cannot look at the memory file: ${errnoName(bytes)}`);
    if (!(size > 0) || !(fileOffset + size <= bytes)) {
      throw new FrontendError(
        "memory-range",
        `a region of ${size} bytes at ${fileOffset} is beyond its file of ${bytes}`,
      );
    }
    const mapping = mapShared(fd, fileOffset, size);
    if (typeof mapping === "number") {
      throw new FrontendError(
        "memory-map",
        `cannot map ${size} bytes at ${fileOffset}: ${errnoName(mapping)}`,
      );
    }
    let open = true;
    return {
      fd,
      fileOffset,
      guestAddress,
      userAddress,
      size,
      windows: mapping.windows.map(({ offset, buffer }) =>
        memoryWindow(guestAddress + offset, userAddress + offset, buffer),
      ),
      close() {
        if (!open) return;
        open = false;
        mapping.unmap();
        closeFd(fd);
      },
    };
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}
