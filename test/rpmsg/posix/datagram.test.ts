import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { sendDatagram } from "../../../rpmsg/posix/datagram.ts";
import { errno } from "../../../rpmsg/posix/errno.ts";
import { closeFd, listenUnix } from "../../../rpmsg/posix/unix-socket.ts";
import { descriptorCount, titled, unsupported } from "./support.ts";

const hello = Buffer.from("hello");

// Messages that arrive are in test/server/service-manager.test.ts, with a receiver in another language.
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
});
