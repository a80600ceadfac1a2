import { errno } from "./errno.ts";
import type { Libc } from "./libc.ts";
import { checked, libc } from "./libc.ts";

const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;
const F_SEAL_SHRINK = 2;
const F_SEAL_GROW = 4;

// statx(2), because fstat(2) is no exported symbol before glibc 2.33 and struct stat differs between the architectures.
const AT_EMPTY_PATH = 0x1000;
const STATX_TYPE = 0x1;
const STATX_SIZE = 0x200;
const STATX_BYTES = 256;
const STX_BLKSIZE = 4;
const STX_MODE = 28;
const STX_SIZE = 40;
const S_IFMT = 0o170000;
const S_IFREG = 0o100000;

const PROT_READ_WRITE = 3;
const MAP_SHARED = 0x1;
const MAP_PRIVATE = 0x2;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;

/** Node 20 aborts on a view of 4 GiB; V8 indexes up to 1 GiB with small integers (31 bits) everywhere. */
const MAX_WINDOW = 2 ** 30;
const DEFAULT_OVERLAP = 2 ** 20;

/** A part of a mapping that JavaScript can address. */
export interface MappingWindow {
  /** Where the window begins, in bytes from the start of the mapping. */
  readonly offset: number;
  /** The bytes. Never transfer or structuredClone it: the memory is released when this object has been collected. */
  readonly buffer: ArrayBuffer;
}

/** Memory that is shared with another process. */
export interface Mapping {
  /** Bytes that the windows cover together: [0, size). */
  readonly size: number;
  /** In the order of their offsets; each begins before the previous one ends, by the overlap. Empty after `unmap`. */
  readonly windows: readonly MappingWindow[];
  /**
   * Lets go of the memory at once and may be called again. Views that are still about stay harmless: they read zeros, and what is written
   * there is seen by nobody. Their address range is returned when the last of them has been collected.
   */
  unmap(): void;
}

/** Address space that is returned when no window over it is left. Must not refer to the windows. */
interface AddressRange {
  readonly address: bigint;
  readonly length: number;
  liveWindows: number;
}

// For the module's life: a registry that is collected calls nobody. Every window of a range is registered with that range, and the last to
// go takes the range along. A typed array, a Buffer or a pending write holds its ArrayBuffer, so "collected" means: no access possible.
const ranges = new FinalizationRegistry<AddressRange>((range) => {
  range.liveWindows--;
  if (range.liveWindows === 0) {
    libc().munmap(range.address, range.length);
  }
});

/**
 * A new file in memory (memfd_create(2)), sealed against a change of its size, so that nobody's access can fault. Further seals stay
 * possible. The memory is taken page by page on first use.
 *
 * @param name for /proc/<pid>/maps only, at most 249 bytes
 * @param size bytes
 * @returns a close-on-exec descriptor, or -errno: -EINVAL (size, name), -EFBIG, -EMFILE, -ENOMEM
 */
export function createMemory(name: string, size: number): number {
  if (!Number.isSafeInteger(size) || size < 0) {
    return -errno.EINVAL;
  }
  const c = libc();
  const fd = checked(c, c.memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (fd < 0) {
    return fd;
  }
  let result = checked(c, c.ftruncate(fd, size));
  if (result === 0) {
    result = checked(c, c.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));
  }
  if (result < 0) {
    c.close(fd);
    return result;
  }
  return fd;
}

/**
 * The size of a file (statx(2)). Pipes, sockets and most devices have the size 0.
 *
 * @returns bytes, or -errno: -EBADF, -EOVERFLOW (2^53 bytes and more)
 */
export function fileSize(fd: number): number {
  const status = statFile(libc(), fd);
  return typeof status === "number" ? status : status.size;
}

/**
 * Forbids everybody to shrink the file (fcntl(2), F_ADD_SEALS): a peer that truncates memory which is mapped here kills the process with
 * SIGBUS. Only memory files created for it can be sealed (a memfd with MFD_ALLOW_SEALING), not for example files of /dev/shm.
 *
 * @returns whether the file cannot shrink now; check `fileSize` after that, not before
 */
export function sealShrink(fd: number): boolean {
  const c = libc();
  c.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK); // fails with EPERM when sealing is sealed; then the seals in force count
  const seals = c.fcntl(fd, F_GET_SEALS, 0);
  return seals >= 0 && (seals & F_SEAL_SHRINK) !== 0;
}

/**
 * Maps a part of a file for reading and writing (mmap(2), MAP_SHARED). The descriptor may be closed afterwards.
 *
 * The mapping is seen through windows, as one ArrayBuffer cannot hold it all. Anything of up to `overlap` bytes lies in one window.
 *
 * @param fd open for reading and writing
 * @param offset bytes from the start of the file, a multiple of the page size (of the huge page size for hugetlbfs)
 * @param size bytes, > 0; must lie within a regular file: accesses behind its end would kill the process
 * @param windowSize bytes, at most and by default 1 GiB, a multiple of 8
 * @param overlap bytes shared by consecutive windows, less than `windowSize`, a multiple of 8
 * @returns the mapping, or -errno: -EINVAL, -EBADF, -EACCES (not readable and writable), -ENODEV (cannot be mapped), -ENOMEM, -EPERM
 *   (sealed against writing)
 * @throws Error when the runtime does not allow ArrayBuffers over native memory
 */
export function mapShared(
  fd: number,
  offset: number,
  size: number,
  windowSize: number = MAX_WINDOW,
  overlap: number = DEFAULT_OVERLAP,
): Mapping | number {
  if (!Number.isSafeInteger(offset) || offset < 0 || !Number.isSafeInteger(size) || size <= 0) {
    return -errno.EINVAL;
  }
  if (
    !isMultipleOf8(windowSize) ||
    !isMultipleOf8(overlap) ||
    windowSize > MAX_WINDOW ||
    overlap >= windowSize
  ) {
    return -errno.EINVAL;
  }
  const c = libc();
  const status = statFile(c, fd);
  if (typeof status === "number") {
    return status;
  }
  if (status.regular && offset + size > status.size) {
    return -errno.EINVAL;
  }
  // Whole blocks, which matters for hugetlbfs: there munmap and MAP_FIXED take whole huge pages only. Nobody looks behind `size`.
  const length = Math.ceil(size / status.blockSize) * status.blockSize;
  const address = c.mmap(null, length, PROT_READ_WRITE, MAP_SHARED, fd, offset);
  if (address === MAP_FAILED) {
    return c.error();
  }
  return new SharedMapping(c, { address, length, liveWindows: 0 }, size, windowSize, overlap);
}

class SharedMapping implements Mapping {
  readonly size: number;
  readonly #range: AddressRange;
  #windows: readonly MappingWindow[];

  constructor(c: Libc, range: AddressRange, size: number, windowSize: number, overlap: number) {
    this.size = size;
    this.#range = range;
    this.#windows = createWindows(c, range, size, windowSize, overlap);
  }

  get windows(): readonly MappingWindow[] {
    return this.#windows;
  }

  unmap(): void {
    if (this.#windows.length === 0) {
      return;
    }
    // In one step, so that no moment exists in which the range is unmapped or somebody else's. The file is released by that. Should it fail
    // (ENOMEM without overcommit), the file stays mapped until the windows are collected, which is just as safe.
    const flags = MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | MAP_NORESERVE;
    libc().mmap(this.#range.address, this.#range.length, PROT_READ_WRITE, flags, -1, 0);
    this.#windows = [];
  }
}

function createWindows(
  c: Libc,
  range: AddressRange,
  size: number,
  windowSize: number,
  overlap: number,
): MappingWindow[] {
  const windows: MappingWindow[] = [];
  try {
    for (let offset = 0; ; offset += windowSize - overlap) {
      const length = Math.min(windowSize, size - offset);
      const buffer = c.view(range.address + BigInt(offset), length);
      range.liveWindows++;
      ranges.register(buffer, range);
      windows.push({ offset, buffer });
      if (offset + length === size) {
        return windows;
      }
    }
  } catch (error) {
    if (range.liveWindows === 0) {
      c.munmap(range.address, range.length); // else the registry does
    }
    throw error;
  }
}

interface FileStatus {
  readonly regular: boolean;
  readonly size: number;
  readonly blockSize: number;
}

let statBlock: { readonly address: bigint; readonly view: DataView } | undefined;

function statFile(c: Libc, fd: number): FileStatus | number {
  if (statBlock === undefined) {
    const { address, buffer } = c.allocate(STATX_BYTES);
    statBlock = { address, view: new DataView(buffer) };
  }
  const { address, view } = statBlock;
  // A negative descriptor would stand for the current directory (AT_FDCWD).
  const result =
    fd < 0 ? -errno.EBADF : checked(c, c.statx(fd, "", AT_EMPTY_PATH, STATX_TYPE | STATX_SIZE, address));
  if (result < 0) {
    return result;
  }
  const size = view.getUint32(STX_SIZE, true) + view.getUint32(STX_SIZE + 4, true) * 2 ** 32;
  if (!Number.isSafeInteger(size)) {
    return -errno.EOVERFLOW;
  }
  return {
    regular: (view.getUint16(STX_MODE, true) & S_IFMT) === S_IFREG,
    size,
    blockSize: Math.max(view.getUint32(STX_BLKSIZE, true), 1),
  };
}

function isMultipleOf8(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0 && value % 8 === 0;
}
