import { errno } from "./errno.ts";
import type { Libc } from "./libc.ts";
import { CLOEXEC, checked, libc, NONBLOCK } from "./libc.ts";

const POLLIN = 1;
const F_GETFL = 3;
const F_SETFL = 4;
/** A drain is a courtesy to the next reader: somebody who writes faster than we read must not hold the event loop. */
const MAX_READS = 16;
const SINK_SIZE = 512;

interface Scratch {
  readonly c: Libc;
  /** Address of a u64 with the value 1. */
  readonly one: bigint;
  /** struct pollfd { int fd; short events; short revents; } */
  readonly pollfd: bigint;
  readonly pollfdFd: Int32Array;
  /** Where reads go that nobody looks at. */
  readonly sink: bigint;
}

let scratch: Scratch | undefined;

/**
 * A new event counter (eventfd(2)) at zero, nonblocking and close-on-exec.
 *
 * @returns the descriptor, or -errno: -EMFILE, -ENFILE, -ENOMEM
 */
export function createEventfd(): number {
  const c = libc();
  return checked(c, c.eventfd(0, NONBLOCK | CLOEXEC));
}

/**
 * Notifies whoever waits for the descriptor: writes the u64 1 (eventfd(2)).
 * Also for a stream socket or a pipe, which User Mode Linux passes as a call descriptor: eight bytes then wait for the reader.
 * A counter or a buffer that is full already notifies the reader, so EAGAIN is success.
 * The write blocks the event loop when the descriptor is full and not nonblocking: see {@link setNonblocking}.
 *
 * @returns 0 or -errno: -EBADF, -EINVAL (not an eventfd, socket or pipe), -EPIPE (nobody reads the socket any more)
 */
export function signalEventfd(fd: number): number {
  const { c, one } = scratch ?? createScratch();
  if (c.write(fd, one, 8) >= 0) {
    return 0;
  }
  const error = c.error();
  return error === -errno.EAGAIN ? 0 : error;
}

/**
 * Takes back what was signalled: reads until nothing is left, at most 16 times. Works on a descriptor that is not nonblocking too
 * (it asks poll(2) before every read), as a peer's eventfd need not be.
 *
 * @returns the number of reads that gave something (an eventfd: 1 if it was signalled, else 0), or -errno: -EBADF, -EINVAL
 */
export function drainEventfd(fd: number): number {
  const { c, pollfd, pollfdFd, sink } = scratch ?? createScratch();
  if (fd < 0) {
    return -errno.EBADF; // poll(2) ignores negative descriptors
  }
  for (let reads = 0; reads < MAX_READS; reads++) {
    pollfdFd[0] = fd;
    const ready = c.poll(pollfd, 1, 0);
    if (ready === 0) {
      return reads;
    }
    // With POLLNVAL, POLLERR or POLLHUP the read does not block either and says what is wrong.
    const result = ready < 0 ? ready : c.read(fd, sink, SINK_SIZE);
    if (result < 0) {
      const error = c.error();
      return error === -errno.EAGAIN ? reads : error;
    }
    if (result === 0) {
      return reads; // end of a stream
    }
  }
  return MAX_READS;
}

/**
 * Sets O_NONBLOCK (fcntl(2), F_SETFL). For call descriptors that come from a peer: the full pipe or socket of a stopped guest must not
 * stop the bridge. The flag belongs to the open file, so that the peer sees it too if it holds the same end.
 *
 * @returns 0 or -errno: -EBADF
 */
export function setNonblocking(fd: number): number {
  const c = libc();
  const flags = c.fcntl(fd, F_GETFL, 0);
  if (flags < 0) {
    return c.error();
  }
  return (flags & NONBLOCK) !== 0 ? 0 : checked(c, c.fcntl(fd, F_SETFL, flags | NONBLOCK));
}

function createScratch(): Scratch {
  const c = libc();
  const { address, buffer } = c.allocate(16 + SINK_SIZE);
  new Uint32Array(buffer)[0] = 1; // little-endian u64, as both architectures are
  new Int16Array(buffer, 12)[0] = POLLIN;
  scratch = {
    c,
    one: address,
    pollfd: address + 8n,
    pollfdFd: new Int32Array(buffer, 8, 1),
    sink: address + 16n,
  };
  return scratch;
}
