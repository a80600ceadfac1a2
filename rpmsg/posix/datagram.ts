import { errno } from "./errno.ts";
import type { NativeBlock } from "./libc.ts";
import { CLOEXEC, checked, libc, NONBLOCK } from "./libc.ts";

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
/** sizeof(sun_path), unix(7); of a path one byte is its final NUL. */
const PATH_SIZE = 108;
/** struct sockaddr_un, and the message behind it. */
const DATA = 112;
const DATA_SIZE = 4096;

let scratch: NativeBlock | undefined;

/**
 * Sends one datagram to a Unix socket and waits for nothing (unix(7)).
 *
 * @param address a path of at most 107 bytes, or `@` and an abstract name of as many
 * @param message 1 to 4096 bytes
 * @returns 0 or -errno: -ENOENT, -ECONNREFUSED (nobody listens), -EPROTOTYPE (not a datagram socket), -EAGAIN (its queue is full),
 *   -EACCES, -ENAMETOOLONG, -EINVAL (an empty address, NUL, an empty message), -EMSGSIZE, -EMFILE
 */
export function sendDatagram(address: string, message: Uint8Array): number {
  const name = Buffer.from(address);
  const isAbstract = name[0] === 0x40;
  if (name.length < (isAbstract ? 2 : 1) || name.includes(0) || message.length === 0) return -errno.EINVAL;
  if (name.length >= PATH_SIZE) return -errno.ENAMETOOLONG;
  if (message.length > DATA_SIZE) return -errno.EMSGSIZE;
  const c = libc();
  scratch ??= c.allocate(DATA + DATA_SIZE);
  const bytes = new Uint8Array(scratch.buffer);
  bytes.fill(0, 0, DATA);
  new DataView(scratch.buffer).setUint16(0, AF_UNIX, true);
  bytes.set(name, 2);
  if (isAbstract) bytes[2] = 0;
  bytes.set(message, DATA);
  const fd = checked(c, c.socket(AF_UNIX, SOCK_DGRAM | NONBLOCK | CLOEXEC, 0));
  if (fd < 0) return fd;
  // Every byte counts in an abstract name: no NUL at its end.
  const length = 2 + name.length + (isAbstract ? 0 : 1);
  let result = checked(c, c.connect(fd, scratch.address, length));
  if (result === 0) result = checked(c, c.write(fd, scratch.address + BigInt(DATA), message.length));
  c.close(fd);
  return Math.min(result, 0);
}
