import { chmodSync, lstatSync, unlinkSync } from "node:fs";
import { errno, errnoName } from "./errno.ts";
import type { Libc } from "./libc.ts";
import { CLOEXEC, checked, libc, NONBLOCK } from "./libc.ts";

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CTRUNC = 0x8;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
const BACKLOG = 128;
const F_DUPFD_CLOEXEC = 1030;

/** sizeof(sun_path) is 108 (unix(7)); we keep the final NUL, which some readers of getsockname(2) need. */
const MAX_PATH = 107;
/** Descriptors that one message may bring. vhost-user sends at most 8 (VHOST_MEMORY_BASELINE_NREGIONS). */
const MAX_RECEIVED = 64;
/** SCM_MAX_FD of Linux: more in one message give EINVAL (unix(7)). */
const MAX_SENT = 253;

// The scratch block, offsets in bytes. struct msghdr and struct cmsghdr as in recv(2) and cmsg(3) on LP64. The 64-bit lengths are accessed
// by their low half: the high half stays zero, and for musl, whose fields are 32 bits and padding, that is the layout too.
const MESSAGE = 0;
const MESSAGE_IOV = MESSAGE + 16;
const MESSAGE_IOV_COUNT = MESSAGE + 24;
const MESSAGE_CONTROL = MESSAGE + 32;
const MESSAGE_CONTROL_LENGTH = MESSAGE + 40;
const MESSAGE_FLAGS = MESSAGE + 48;
const IOV = 56;
const IOV_BASE = IOV;
const IOV_LENGTH = IOV + 8;
const ADDRESS = 72; // struct sockaddr_un, 110 bytes; also int[2] of socketpair(2)
const ADDRESS_SIZE = 110;
const CONTROL = 184;
const CMSG_HEADER = 16;
const CONTROL_SIZE = CMSG_HEADER + 4 * MAX_SENT + 4;
/** A little more than 64 descriptors take, so that 65 to 80 are counted by us and more are cut off by the kernel. */
const RECEIVE_CONTROL_SIZE = CMSG_HEADER + 4 * MAX_RECEIVED + 64;
const DATA = CONTROL + CONTROL_SIZE;
const DATA_SIZE = 16384;

interface Scratch {
  readonly c: Libc;
  readonly message: bigint;
  readonly address: bigint;
  readonly bytes: Uint8Array;
  /** The block in words: index it with offset >> 2. */
  readonly words: Int32Array;
}

let scratch: Scratch | undefined;

/**
 * Listens for stream connections (unix(7)). A socket file that nobody listens on any more is replaced; two processes that replace the same
 * one at the same moment are not told apart. Anything else at that path stays and gives -EADDRINUSE.
 *
 * @param path at most 107 bytes, no NUL
 * @param mode permission bits of the socket file, e.g. 0o600, in force before the first connection; without it the umask decides
 * @returns a nonblocking close-on-exec descriptor, or -errno: -ENAMETOOLONG, -EINVAL (empty path, NUL), -EADDRINUSE, -EACCES, -ENOENT,
 *   -ENOTDIR, -EROFS, -EMFILE
 */
export function listenUnix(path: string, mode?: number): number {
  const length = setAddress(path);
  if (length < 0) {
    return length;
  }
  const { c, address } = native();
  const fd = openSocket(c);
  if (fd < 0) {
    return fd;
  }
  let result = checked(c, c.bind(fd, address, length));
  if (result === -errno.EADDRINUSE) {
    result = removeStale(path, c, address, length);
    if (result === 0) {
      result = checked(c, c.bind(fd, address, length));
    }
  }
  if (result < 0) {
    c.close(fd);
    return result;
  }
  // Nobody can connect before listen(2): the permissions are never wider than asked for when it matters.
  result = mode === undefined ? 0 : fileSystemCall(() => chmodSync(path, mode));
  if (result === 0) {
    result = checked(c, c.listen(fd, BACKLOG));
  }
  if (result < 0) {
    c.close(fd);
    fileSystemCall(() => unlinkSync(path));
    return result;
  }
  return fd;
}

/**
 * Connects to a listening stream socket (connect(2), unix(7)); such a connection is there at once or not at all.
 *
 * @param path at most 107 bytes, no NUL
 * @returns a nonblocking close-on-exec descriptor, or -errno: -ENOENT, -ECONNREFUSED (nobody listens), -EAGAIN (the listener's queue is
 *   full), -EACCES, -EPROTOTYPE (not a stream socket), -ENAMETOOLONG, -EINVAL, -EMFILE
 */
export function connectUnix(path: string): number {
  const length = setAddress(path);
  if (length < 0) {
    return length;
  }
  const { c, address } = native();
  const fd = openSocket(c);
  if (fd < 0) {
    return fd;
  }
  const result = checked(c, c.connect(fd, address, length));
  if (result < 0) {
    c.close(fd);
    return result;
  }
  return fd;
}

/**
 * Two connected stream sockets, nonblocking and close-on-exec (socketpair(2)).
 *
 * @throws Error when there are no descriptors left
 */
export function socketPair(): [number, number] {
  const { c, address, words } = native();
  const result = checked(c, c.socketpair(AF_UNIX, SOCK_STREAM | NONBLOCK | CLOEXEC, 0, address));
  if (result < 0) {
    throw new Error(`socketpair: ${errnoName(result)}`);
  }
  return [words[ADDRESS >> 2] as number, words[(ADDRESS >> 2) + 1] as number];
}

/**
 * The next waiting connection (accept4(2)).
 *
 * @returns a nonblocking close-on-exec descriptor, or -errno: -EAGAIN when none waits, -EBADF, -EINVAL (not listening), -EMFILE,
 *   -ECONNABORTED
 */
export function accept(fd: number): number {
  const c = libc();
  return checked(c, c.accept4(fd, null, null, NONBLOCK | CLOEXEC));
}

/**
 * Receives bytes and the descriptors that came with them (recvmsg(2), cmsg(3)), without waiting.
 *
 * @param data where the bytes go, from `offset` on
 * @param length at most this many bytes, > 0; one call gives at most 16 KiB
 * @param fds emptied first; then holds the received descriptors, close-on-exec and the caller's to close
 * @returns bytes received, 0 at the end of the stream, or -errno: -EAGAIN when nothing is there, -ECONNRESET, -EBADF, -EINVAL (range outside
 *   `data`), -EMSGSIZE when more than 64 descriptors came or the kernel could not deliver all. The bytes are lost then and all
 *   descriptors closed, so that the connection is of no use any more.
 */
export function recvmsg(fd: number, data: Uint8Array, offset: number, length: number, fds: number[]): number {
  fds.length = 0;
  if (!isRange(data, offset, length)) {
    return -errno.EINVAL;
  }
  const { c, message, bytes, words } = native();
  words[IOV_LENGTH >> 2] = Math.min(length, DATA_SIZE);
  words[MESSAGE_CONTROL_LENGTH >> 2] = RECEIVE_CONTROL_SIZE;
  words[MESSAGE_FLAGS >> 2] = 0;
  const received = c.recvmsg(fd, message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (received < 0) {
    return c.error();
  }
  collectDescriptors(words, fds);
  if (fds.length > MAX_RECEIVED || ((words[MESSAGE_FLAGS >> 2] as number) & MSG_CTRUNC) !== 0) {
    for (const extra of fds) {
      c.close(extra);
    }
    fds.length = 0;
    return -errno.EMSGSIZE;
  }
  data.set(bytes.subarray(DATA, DATA + received), offset);
  return received;
}

/**
 * Sends bytes, and descriptors with the first of them (sendmsg(2), cmsg(3)), without waiting and without SIGPIPE.
 *
 * @param data where the bytes are, from `offset` on
 * @param length at most this many bytes, > 0; one call takes at most 16 KiB
 * @param fds at most 253 descriptors, which the receiver gets as copies; on any result >= 0 they have been sent, all of them
 * @returns bytes sent, possibly fewer than `length`, or -errno: -EAGAIN when the receiver does not read, -EPIPE when it is gone, -EBADF
 *   (also for one of `fds`), -ETOOMANYREFS, -EINVAL (range outside `data`, too many descriptors)
 */
export function sendmsg(
  fd: number,
  data: Uint8Array,
  offset: number,
  length: number,
  fds?: readonly number[],
): number {
  const count = fds === undefined ? 0 : fds.length;
  if (!isRange(data, offset, length) || count > MAX_SENT) {
    return -errno.EINVAL;
  }
  const { c, message, bytes, words } = native();
  const size = Math.min(length, DATA_SIZE);
  bytes.set(data.subarray(offset, offset + size), DATA);
  words[IOV_LENGTH >> 2] = size;
  words[MESSAGE_CONTROL_LENGTH >> 2] = 0;
  if (fds !== undefined && count > 0) {
    words[MESSAGE_CONTROL_LENGTH >> 2] = CMSG_HEADER + ((4 * count + 7) & ~7);
    words[CONTROL >> 2] = CMSG_HEADER + 4 * count; // cmsg_len
    words[(CONTROL >> 2) + 1] = 0;
    words[(CONTROL >> 2) + 2] = SOL_SOCKET;
    words[(CONTROL >> 2) + 3] = SCM_RIGHTS;
    for (let index = 0; index < count; index++) {
      words[((CONTROL + CMSG_HEADER) >> 2) + index] = fds[index] as number;
    }
  }
  return checked(c, c.sendmsg(fd, message, MSG_NOSIGNAL | MSG_DONTWAIT));
}

/**
 * Closes a descriptor (close(2)).
 *
 * @returns 0 or -errno: -EBADF. On -EINTR and -EIO Linux has closed it too: never try again.
 */
export function closeFd(fd: number): number {
  const c = libc();
  return checked(c, c.close(fd));
}

/**
 * Another descriptor for the same open file, close-on-exec (fcntl(2), F_DUPFD_CLOEXEC).
 *
 * @returns the descriptor, or -errno: -EBADF, -EMFILE
 */
export function duplicateFd(fd: number): number {
  const c = libc();
  return checked(c, c.fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

/** Reads every control block the kernel wrote. Tolerant of odd lengths: a descriptor that is overlooked here is open for ever. */
function collectDescriptors(words: Int32Array, fds: number[]): void {
  const end = CONTROL + Math.min(words[MESSAGE_CONTROL_LENGTH >> 2] as number, RECEIVE_CONTROL_SIZE);
  let block = CONTROL;
  while (block + CMSG_HEADER <= end) {
    const word = block >> 2;
    const length = words[word] as number;
    if (length < CMSG_HEADER) {
      return;
    }
    if (words[word + 2] === SOL_SOCKET && words[word + 3] === SCM_RIGHTS) {
      const stop = Math.min(block + length, end);
      for (let position = block + CMSG_HEADER; position + 4 <= stop; position += 4) {
        fds.push(words[position >> 2] as number);
      }
    }
    block += (length + 7) & ~7;
  }
}

/** Removes a socket file that nobody listens on: 0, or why it must stay as -errno. `address` is that of `path`. */
function removeStale(path: string, c: Libc, address: bigint, length: number): number {
  let isSocket = false;
  const found = fileSystemCall(() => {
    isSocket = lstatSync(path).isSocket();
  });
  if (found === -errno.ENOENT) {
    return 0; // it has just been removed by its owner
  }
  if (found < 0 || !isSocket) {
    return -errno.EADDRINUSE;
  }
  const probe = openSocket(c);
  if (probe < 0) {
    return probe;
  }
  const result = checked(c, c.connect(probe, address, length));
  c.close(probe);
  if (result === -errno.ECONNREFUSED) {
    const removed = fileSystemCall(() => unlinkSync(path));
    return removed === -errno.ENOENT ? 0 : removed;
  }
  // Connected, its queue full, of another type, or not ours to ask: somebody may be there.
  return result === -errno.EACCES ? result : -errno.EADDRINUSE;
}

function openSocket(c: Libc): number {
  return checked(c, c.socket(AF_UNIX, SOCK_STREAM | NONBLOCK | CLOEXEC, 0));
}

/** Writes the struct sockaddr_un of `path` into the scratch block: its length with the final NUL, or -errno. */
function setAddress(path: string): number {
  const encoded = Buffer.from(path);
  // An empty name would be chosen by the kernel, one that starts with NUL is abstract: neither is a file.
  if (encoded.length === 0 || encoded.includes(0)) {
    return -errno.EINVAL;
  }
  if (encoded.length > MAX_PATH) {
    return -errno.ENAMETOOLONG;
  }
  const { bytes } = native();
  bytes.fill(0, ADDRESS, ADDRESS + ADDRESS_SIZE);
  bytes[ADDRESS] = AF_UNIX;
  bytes.set(encoded, ADDRESS + 2);
  return 2 + encoded.length + 1;
}

/** Runs a function of node:fs: 0, or what it threw as -errno. */
function fileSystemCall(call: () => void): number {
  try {
    call();
    return 0;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).errno;
    return code === undefined ? -errno.EIO : code;
  }
}

function isRange(data: Uint8Array, offset: number, length: number): boolean {
  return (
    Number.isInteger(offset) &&
    Number.isInteger(length) &&
    offset >= 0 &&
    length > 0 &&
    offset + length <= data.length
  );
}

function native(): Scratch {
  scratch ??= createScratch();
  return scratch;
}

function createScratch(): Scratch {
  const c = libc();
  const block = c.allocate(DATA + DATA_SIZE);
  const pointers = new DataView(block.buffer);
  pointers.setBigUint64(MESSAGE_IOV, block.address + BigInt(IOV), true);
  pointers.setUint32(MESSAGE_IOV_COUNT, 1, true);
  // Left in place when no control data is sent: a length of 0 says so.
  pointers.setBigUint64(MESSAGE_CONTROL, block.address + BigInt(CONTROL), true);
  pointers.setBigUint64(IOV_BASE, block.address + BigInt(DATA), true);
  return {
    c,
    message: block.address + BigInt(MESSAGE),
    address: block.address + BigInt(ADDRESS),
    bytes: new Uint8Array(block.buffer),
    words: new Int32Array(block.buffer),
  };
}
