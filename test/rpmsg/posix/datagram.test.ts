import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { sendDatagram } from "../../../rpmsg/posix/datagram.ts";
import { errno } from "../../../rpmsg/posix/errno.ts";
import { libc } from "../../../rpmsg/posix/libc.ts";
import { closeFd, listenUnix, recvmsg } from "../../../rpmsg/posix/unix-socket.ts";
import { descriptorCount, titled, unsupported, withDescriptorLimit } from "./support.ts";

const hello = Buffer.from("hello");

describe.skipIf(unsupported !== undefined)(titled("datagrams"), () => {
  let directory = "";
  let before = 0;

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "rpmsg-"));
    sendDatagram("@nobody", hello);
    before = descriptorCount();
  });

  afterEach(() => {
    expect(descriptorCount()).toBe(before);
    rmSync(directory, { recursive: true });
  });

  it.each([
    ["an empty address", "", hello, errno.EINVAL],
    ["an empty abstract name", "@", hello, errno.EINVAL],
    ["a NUL", "/tmp/a\0b", hello, errno.EINVAL],
    ["an empty message", "/tmp/a", new Uint8Array(), errno.EINVAL],
    ["a path of 108 bytes", `/${"x".repeat(107)}`, hello, errno.ENAMETOOLONG],
    ["a path of 107 bytes that nobody has", `/${"x".repeat(106)}`, hello, errno.ENOENT],
    ["a message of 4097 bytes", "/tmp/a", new Uint8Array(4097), errno.EMSGSIZE],
    ["an abstract name that nobody has", "@nobody/here", hello, errno.ECONNREFUSED],
  ])("%s is refused", (_, address, message, expected) => {
    expect(sendDatagram(address, message)).toBe(-expected);
  });

  it("refuses a file, and a socket for streams", () => {
    const file = join(directory, "file");
    writeFileSync(file, "");
    expect(sendDatagram(file, hello)).toBe(-errno.ECONNREFUSED);
    const path = join(directory, "stream");
    const listener = listenUnix(path);
    expect(sendDatagram(path, hello)).toBe(-errno.EPROTOTYPE);
    closeFd(listener);
  });

  it("is not sent when no descriptor is left", () => {
    expect(withDescriptorLimit(0, () => sendDatagram("@nobody", hello))).toBe(-errno.EMFILE);
  });

  it("arrives whole, one for one, at a path and at an abstract name", () => {
    for (const address of [join(directory, "socket"), `@${directory}`]) {
      const fd = bindDatagram(address);
      expect(sendDatagram(address, hello)).toBe(0);
      expect(sendDatagram(address, Buffer.alloc(4096, 7))).toBe(0);
      const bytes = Buffer.alloc(8192);
      expect(recvmsg(fd, bytes, 0, bytes.length, [])).toBe(5);
      expect(bytes.subarray(0, 5)).toEqual(hello);
      expect(recvmsg(fd, bytes, 0, bytes.length, [])).toBe(4096);
      expect(bytes.subarray(0, 4096)).toEqual(Buffer.alloc(4096, 7));
      closeFd(fd);
    }
  });

  it("is not waited for where the queue of its reader is full", () => {
    const address = `@${directory}`;
    const fd = bindDatagram(address);
    let sent = 0;
    while (sendDatagram(address, hello) === 0) sent++;
    expect(sendDatagram(address, hello)).toBe(-errno.EAGAIN);
    expect(sent).toBeGreaterThan(0);
    closeFd(fd);
  });
});

/** A socket that datagrams can be sent to, with the address as unix(7) has it. */
function bindDatagram(address: string): number {
  const c = libc();
  const fd = c.socket(1, 2, 0);
  const { address: block, buffer } = c.allocate(112);
  const bytes = Buffer.from(buffer);
  bytes.writeUInt16LE(1);
  const length = bytes.write(address, 2);
  if (address.startsWith("@")) bytes[2] = 0;
  expect(c.bind(fd, block, 2 + length)).toBe(0);
  return fd;
}
