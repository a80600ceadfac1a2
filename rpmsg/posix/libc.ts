import { createRequire } from "node:module";
import process from "node:process";
import type * as Koffi from "koffi";

/** A block of native memory that is never moved and never freed: scratch space for system calls. */
export interface NativeBlock {
  /** Address of the first byte, aligned to 16 bytes. */
  readonly address: bigint;
  /** The same bytes for JavaScript. */
  readonly buffer: ArrayBuffer;
}

/** A descriptor that libuv watches on the main loop. It keeps the process alive and itself from being collected. */
export interface PollHandle {
  /** Stops watching; the descriptor stays open. Call nothing else on the handle afterwards: koffi would crash. */
  close(): void;
}

/**
 * The functions of the C library that this folder needs, named and ordered as in their man pages (section 2), and the few services of
 * koffi. A call that fails returns -1 (mmap: MAP_FAILED); `error()`, called at once, then gives the negated error number.
 */
export interface Libc {
  socket(domain: number, type: number, protocol: number): number;
  socketpair(domain: number, type: number, protocol: number, pair: bigint): number;
  bind(fd: number, address: bigint, length: number): number;
  listen(fd: number, backlog: number): number;
  connect(fd: number, address: bigint, length: number): number;
  accept4(fd: number, address: null, length: null, flags: number): number;
  recvmsg(fd: number, message: bigint, flags: number): number;
  sendmsg(fd: number, message: bigint, flags: number): number;
  read(fd: number, buffer: bigint, length: number): number;
  write(fd: number, buffer: bigint, length: number): number;
  close(fd: number): number;
  fcntl(fd: number, command: number, argument: number): number;
  eventfd(initial: number, flags: number): number;
  poll(descriptors: bigint, count: number, milliseconds: number): number;
  epoll_create1(flags: number): number;
  epoll_ctl(epoll: number, operation: number, fd: number, event: bigint): number;
  epoll_wait(epoll: number, events: bigint, capacity: number, milliseconds: number): number;
  memfd_create(name: string, flags: number): number;
  ftruncate(fd: number, size: number): number;
  statx(fd: number, path: string, flags: number, mask: number, result: bigint): number;
  mmap(
    address: bigint | null,
    length: number,
    protection: number,
    flags: number,
    fd: number,
    offset: number,
  ): bigint;
  munmap(address: bigint, length: number): number;
  /** Only glibc has it: elsewhere undefined. */
  readonly malloc_trim: ((pad: number) => number) | undefined;

  /** The negated error number of the call just made. */
  error(): number;
  /** A zeroed block of native memory, for the life of the process. */
  allocate(size: number): NativeBlock;
  /** An ArrayBuffer over native memory. It neither owns the memory nor keeps it mapped. Must be less than 4 GiB (Node 20 aborts). */
  view(address: bigint, size: number): ArrayBuffer;
  /** Calls back on the main loop for as long as `fd` is readable. koffi aborts the process on a descriptor that epoll refuses. */
  watch(fd: number, callback: () => void): PollHandle;
}

/** Type flag of socket(2), accept4(2), eventfd(2): O_NONBLOCK, the same on x86-64 and arm64 (asm-generic/fcntl.h). */
export const NONBLOCK = 0o4000;
/** Likewise O_CLOEXEC. (O_DIRECT, O_DIRECTORY, O_NOFOLLOW and O_LARGEFILE are the flags that differ; none is used here.) */
export const CLOEXEC = 0o2000000;

let loaded: Libc | undefined;

/**
 * The C library. koffi is loaded on the first call and not before: a bridge with emulated guests alone runs without native code.
 *
 * @throws Error on anything but Linux on x86-64 or arm64, or when koffi cannot be loaded
 */
export function libc(): Libc {
  loaded ??= load();
  return loaded;
}

/** The C library where somebody has needed it before; this does not load it. */
export function loadedLibc(): Libc | undefined {
  return loaded;
}

/** A result as every function of this folder gives it: the value if it is >= 0, else the negated error number. */
export function checked(c: Libc, result: number): number {
  return result < 0 ? c.error() : result;
}

function load(): Libc {
  if (process.platform !== "linux" || (process.arch !== "x64" && process.arch !== "arm64")) {
    throw new Error("vhost-user needs Linux on x86-64 or arm64; emulated guests work everywhere");
  }
  const koffi = createRequire(import.meta.url)("koffi") as typeof Koffi;
  // null is the program itself, which is linked with the C library: no need to know whether that is glibc or musl.
  const library = koffi.load(null);
  return {
    socket: library.func("int socket(int domain, int type, int protocol)"),
    socketpair: library.func("int socketpair(int domain, int type, int protocol, void *pair)"),
    bind: library.func("int bind(int fd, const void *address, uint32_t length)"),
    listen: library.func("int listen(int fd, int backlog)"),
    connect: library.func("int connect(int fd, const void *address, uint32_t length)"),
    accept4: library.func("int accept4(int fd, void *address, void *length, int flags)"),
    // koffi has no ssize_t; intptr_t is the same type on LP64.
    recvmsg: library.func("intptr_t recvmsg(int fd, void *message, int flags)"),
    sendmsg: library.func("intptr_t sendmsg(int fd, const void *message, int flags)"),
    read: library.func("intptr_t read(int fd, void *buffer, size_t length)"),
    write: library.func("intptr_t write(int fd, const void *buffer, size_t length)"),
    close: library.func("int close(int fd)"),
    // Variadic in C. Linux passes such integers in the same registers on both architectures; 64 bits, as the kernel reads a long.
    fcntl: library.func("int fcntl(int fd, int command, int64_t argument)"),
    eventfd: library.func("int eventfd(uint32_t initial, int flags)"),
    poll: library.func("int poll(void *descriptors, uint64_t count, int milliseconds)"),
    epoll_create1: library.func("int epoll_create1(int flags)"),
    epoll_ctl: library.func("int epoll_ctl(int epoll, int operation, int fd, void *event)"),
    epoll_wait: library.func("int epoll_wait(int epoll, void *events, int capacity, int milliseconds)"),
    memfd_create: library.func("int memfd_create(const char *name, uint32_t flags)"),
    ftruncate: library.func("int ftruncate(int fd, int64_t size)"),
    statx: library.func("int statx(int fd, const char *path, int flags, uint32_t mask, void *result)"),
    mmap: library.func(
      "void *mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)",
    ),
    munmap: library.func("int munmap(void *address, size_t length)"),
    malloc_trim: whereThere(() => library.func("int malloc_trim(size_t pad)")),
    error: () => -koffi.errno(),
    allocate: (size) => {
      const pointer: unknown = koffi.alloc("uint8_t", size);
      const buffer = koffi.view(pointer, size);
      new Uint8Array(buffer).fill(0);
      return { address: koffi.address(pointer), buffer };
    },
    view: koffi.view,
    watch: (fd, callback) => koffi.node.poll(fd, callback),
  };
}

/** A function that not every C library has: looking it up throws where there is none. */
function whereThere<T>(find: () => T): T | undefined {
  try {
    return find();
  } catch {
    return undefined;
  }
}
