import { FrontendError } from "../errors.ts";
import { errnoName } from "../posix/errno.ts";
import type { MappingWindow } from "../posix/shared-memory.ts";
import { fileSize, mapShared, sealShrink } from "../posix/shared-memory.ts";
import { closeFd } from "../posix/unix-socket.ts";

/** A part of a memory file that a frontend passed. */
export interface MappedFile {
  /** The file, open until `close`, so that the memory can be handed on. */
  readonly fd: number;
  /** Bytes into the file. */
  readonly fileOffset: number;
  /** Bytes. */
  readonly size: number;
  readonly windows: readonly MappingWindow[];
  /** The file cannot shrink any more. */
  readonly sealed: boolean;
  /** Ends the access and closes the file: later reads give zeros and later writes are lost. */
  close(): void;
}

/**
 * Maps a part of a memory file. Takes the descriptor, on errors too.
 *
 * A peer that truncates its file would kill this process with SIGBUS: the file must be large enough now, and is
 * sealed against shrinking where it allows that (memfd with MFD_ALLOW_SEALING).
 * @param fileOffset bytes into the file, a multiple of the page size
 * @throws FrontendError memory-range, memory-map
 */
export function mapFile(fd: number, fileOffset: number, size: number): MappedFile {
  try {
    // Sealed first: a size that is looked at before may be another one afterwards.
    const sealed = sealShrink(fd);
    const bytes = fileSize(fd);
    if (bytes < 0)
      throw new FrontendError("memory-map", `cannot look at the memory file: ${errnoName(bytes)}`);
    if (!(size > 0) || !(fileOffset + size <= bytes)) {
      throw new FrontendError(
        "memory-range",
        `${size} bytes of memory at ${fileOffset} are beyond their file of ${bytes}`,
      );
    }
    const mapping = mapShared(fd, fileOffset, size);
    if (typeof mapping === "number") {
      throw new FrontendError(
        "memory-map",
        `cannot map ${size} bytes at ${fileOffset}: ${errnoName(mapping)}`,
      );
    }
    const { windows } = mapping;
    let open = true;
    return {
      fd,
      fileOffset,
      size,
      windows,
      sealed,
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
