import {
  existsSync,
  fstatSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type * as Koffi from "koffi";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { errno } from "../../../rpmsg/posix/errno.ts";
import { createEventfd } from "../../../rpmsg/posix/eventfd.ts";
import { CLOEXEC, libc, NONBLOCK } from "../../../rpmsg/posix/libc.ts";
import {
  accept,
  closeFd,
  connectUnix,
  listenUnix,
  recvmsg,
  sendmsg,
  socketPair,
} from "../../../rpmsg/posix/unix-socket.ts";
import { descriptorCount, flagsOf, titled, unsupported, withDescriptorLimit } from "./support.ts";

let directory = "";
let opened: number[] = [];
let before = 0;

function open(fd: number): number {
  expect(fd).toBeGreaterThanOrEqual(0);
  opened.push(fd);
  return fd;
}

function openPair(): [number, number] {
  const pair = socketPair();
  opened.push(...pair);
  return pair;
}

/** Descriptors of distinct files: their inode tells that the right ones arrive in the right order. */
function openFiles(count: number): number[] {
  return Array.from({ length: count }, (_, index) => {
    const c = libc();
    return open(c.memfd_create(`file ${index}`, 1));
  });
}

function inodes(fds: readonly number[]): number[] {
  return fds.map((fd) => fstatSync(fd).ino);
}

/** Makes the kernel put a block of 32 bytes before the descriptors (SO_PASSCRED, unix(7)). */
function passCredentials(fd: number): void {
  const koffi = createRequire(import.meta.url)("koffi") as typeof Koffi;
  const setsockopt = koffi
    .load(null)
    .func("int setsockopt(int fd, int level, int name, const void *value, uint32_t size)");
  expect(setsockopt(fd, 1, 16, Int32Array.of(1), 4)).toBe(0);
}

describe.skipIf(unsupported !== undefined)(titled("unix socket"), () => {
  beforeEach(() => {
    closeFd(createEventfd()); // loads what is loaded once
    directory = mkdtempSync(join(tmpdir(), "rpmsg-posix-"));
    opened = [];
    before = descriptorCount();
  });

  afterEach(() => {
    for (const fd of opened) {
      closeFd(fd);
    }
    expect(descriptorCount()).toBe(before);
    rmSync(directory, { recursive: true });
  });

  describe("listening and connecting", () => {
    it("connects both ends, nonblocking and close-on-exec", () => {
      const path = join(directory, "socket");
      const listener = open(listenUnix(path));
      expect(accept(listener)).toBe(-errno.EAGAIN);
      const client = open(connectUnix(path));
      const server = open(accept(listener));
      for (const fd of [listener, client, server]) {
        expect(flagsOf(fd) & (NONBLOCK | CLOEXEC)).toBe(NONBLOCK | CLOEXEC);
      }
      const bytes = new Uint8Array(8);
      expect(sendmsg(client, Uint8Array.of(1, 2, 3), 0, 3)).toBe(3);
      expect(recvmsg(server, bytes, 2, 6, [])).toBe(3);
      expect([...bytes]).toEqual([0, 0, 1, 2, 3, 0, 0, 0]);
    });

    it("gives the socket file the mode asked for, whatever the umask", () => {
      const path = join(directory, "socket");
      open(listenUnix(path, 0o666)); // a usual umask takes 0o022 away
      expect(statSync(path).mode & 0o777).toBe(0o666);
      const other = join(directory, "other");
      open(listenUnix(other, 0o600));
      expect(statSync(other).mode & 0o777).toBe(0o600);
    });

    it("takes paths of 107 bytes and no longer ones", () => {
      const longest = join(directory, "x".repeat(107 - directory.length - 1));
      expect(longest).toHaveLength(107);
      open(listenUnix(longest));
      open(connectUnix(longest));
      expect(listenUnix(`${longest}x`)).toBe(-errno.ENAMETOOLONG);
      expect(connectUnix(`${longest}x`)).toBe(-errno.ENAMETOOLONG);
      // 54 characters, 108 bytes
      expect(listenUnix("ä".repeat(54))).toBe(-errno.ENAMETOOLONG);
    });

    it.each(["", "\0abstract", "a\0b"])("refuses %j, which names no file", (path) => {
      expect(listenUnix(path)).toBe(-errno.EINVAL);
      expect(connectUnix(path)).toBe(-errno.EINVAL);
    });

    it("replaces a stale socket file", () => {
      const path = join(directory, "socket");
      closeFd(listenUnix(path));
      expect(existsSync(path)).toBe(true);
      expect(connectUnix(path)).toBe(-errno.ECONNREFUSED);
      const listener = open(listenUnix(path));
      open(connectUnix(path));
      open(accept(listener));
    });

    it("leaves a live socket alone, also when its queue is full", () => {
      const path = join(directory, "socket");
      const listener = open(listenUnix(path));
      expect(listenUnix(path)).toBe(-errno.EADDRINUSE);
      closeFd(accept(listener)); // the probe
      let fd = 0;
      while (fd >= 0) {
        fd = connectUnix(path);
        if (fd >= 0) {
          open(fd);
        }
      }
      expect(fd).toBe(-errno.EAGAIN);
      expect(listenUnix(path)).toBe(-errno.EADDRINUSE);
      expect(existsSync(path)).toBe(true);
    });

    it("never removes what is not a socket", () => {
      const file = join(directory, "file");
      writeFileSync(file, "precious");
      expect(listenUnix(file)).toBe(-errno.EADDRINUSE);
      expect(readFileSync(file, "utf8")).toBe("precious");
      const stale = join(directory, "stale");
      closeFd(listenUnix(stale));
      const link = join(directory, "link");
      symlinkSync(stale, link);
      expect(listenUnix(link)).toBe(-errno.EADDRINUSE);
      expect(existsSync(stale)).toBe(true);
      expect(listenUnix(directory)).toBe(-errno.EADDRINUSE);
    });

    it("gives the reason when it cannot", () => {
      const path = join(directory, "missing", "socket");
      expect(listenUnix(path)).toBe(-errno.ENOENT);
      expect(connectUnix(path)).toBe(-errno.ENOENT);
      expect(accept(-1)).toBe(-errno.EBADF);
      const [fd] = openPair();
      expect(accept(fd)).toBe(-errno.EINVAL);
    });

    it("fail when no descriptor is left, and leave nothing behind", () => {
      const path = join(directory, "socket");
      expect(withDescriptorLimit(0, () => listenUnix(path))).toBe(-errno.EMFILE);
      expect(existsSync(path)).toBe(false);
      const listener = open(listenUnix(path));
      expect(withDescriptorLimit(0, () => connectUnix(path))).toBe(-errno.EMFILE);
      expect(withDescriptorLimit(0, () => accept(listener))).toBe(-errno.EMFILE);
      expect(() => withDescriptorLimit(0, () => socketPair())).toThrow("socketpair: EMFILE");
    });

    it("keep a stale socket file that they have no descriptor to ask about", () => {
      const path = join(directory, "stale");
      closeFd(listenUnix(path));
      const free = open(createEventfd());
      closeFd(free);
      opened = opened.filter((fd) => fd !== free);
      expect(withDescriptorLimit(free + 1, () => listenUnix(path))).toBe(-errno.EMFILE);
      expect(existsSync(path)).toBe(true);
    });

    it("leave no socket file where its permissions cannot be set", () => {
      const path = join(directory, "socket");
      expect(listenUnix(path, -1)).toBe(-errno.EIO);
      expect(existsSync(path)).toBe(false);
    });
  });

  describe("messages", () => {
    it.each([0, 1, 8, 64])("carry %i descriptors, both ways", (count) => {
      const [near, far] = openPair();
      const files = openFiles(count);
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        expect(sendmsg(from, Uint8Array.of(9, 42, 9), 1, 1, files)).toBe(1);
        const bytes = new Uint8Array(4);
        const received = [77];
        expect(recvmsg(to, bytes, 0, 4, received)).toBe(1);
        opened.push(...received);
        expect(bytes[0]).toBe(42);
        expect(inodes(received)).toEqual(inodes(files));
        for (const fd of received) {
          expect(flagsOf(fd) & CLOEXEC).toBe(CLOEXEC);
        }
      }
    });

    // 65 to 80 reach us and are counted; the kernel cuts off more (MSG_CTRUNC)
    it.each([65, 80, 81, 100, 253])("with %i descriptors give -EMSGSIZE and leave none open", (sent) => {
      const [near, far] = openPair();
      const file = openFiles(1)[0] as number;
      expect(
        sendmsg(
          near,
          Uint8Array.of(1),
          0,
          1,
          Array.from({ length: sent }, () => file),
        ),
      ).toBe(1);
      const count = descriptorCount();
      const fds = [77];
      expect(recvmsg(far, new Uint8Array(8), 0, 8, fds)).toBe(-errno.EMSGSIZE);
      expect(fds).toEqual([]);
      expect(descriptorCount()).toBe(count);
    });

    it("give -EMSGSIZE when this process may not open as many descriptors", () => {
      const [near, far] = openPair();
      const files = openFiles(8);
      expect(sendmsg(near, Uint8Array.of(1), 0, 1, files)).toBe(1);
      const count = descriptorCount();
      const fds: number[] = [];
      // The two lowest free numbers are allowed, so that the kernel delivers two of eight.
      const [first, second] = [createEventfd(), createEventfd()];
      closeFd(first);
      closeFd(second);
      const result = withDescriptorLimit(second + 1, () => recvmsg(far, new Uint8Array(8), 0, 8, fds));
      expect(result).toBe(-errno.EMSGSIZE);
      expect(fds).toEqual([]);
      expect(descriptorCount()).toBe(count);
    });

    it("cannot be sent with more descriptors than Linux takes, or with bad ones", () => {
      const [near, far] = openPair();
      expect(
        sendmsg(
          near,
          Uint8Array.of(1),
          0,
          1,
          Array.from({ length: 254 }, () => near),
        ),
      ).toBe(-errno.EINVAL);
      expect(sendmsg(near, Uint8Array.of(1), 0, 1, [near, -1])).toBe(-errno.EBADF);
      expect(recvmsg(far, new Uint8Array(8), 0, 8, [])).toBe(-errno.EAGAIN);
    });

    it("keep the descriptors of consecutive messages apart", () => {
      const [near, far] = openPair();
      const files = openFiles(3);
      expect(sendmsg(near, Uint8Array.of(1, 2), 0, 2, files.slice(0, 1))).toBe(2);
      expect(sendmsg(near, Uint8Array.of(3), 0, 1)).toBe(1);
      expect(sendmsg(near, Uint8Array.of(4), 0, 1, files.slice(1))).toBe(1);
      const bytes = new Uint8Array(64);
      const fds: number[] = [];
      const seen: number[][] = [];
      for (
        let received = recvmsg(far, bytes, 0, 64, fds);
        received > 0;
        received = recvmsg(far, bytes, 0, 64, fds)
      ) {
        opened.push(...fds);
        seen.push([...bytes.subarray(0, received), ...inodes(fds)]);
      }
      const [first, second, third] = inodes(files) as [number, number, number];
      expect(seen.flat()).toEqual([1, 2, first, 3, 4, second, third]);
    });

    it("bring 64 descriptors also in the second control block, after credentials", () => {
      const [near, far] = openPair();
      passCredentials(far);
      const files = openFiles(64);
      expect(sendmsg(near, Uint8Array.of(1), 0, 1, files)).toBe(1);
      const fds: number[] = [];
      expect(recvmsg(far, new Uint8Array(1), 0, 1, fds)).toBe(1);
      opened.push(...fds);
      expect(inodes(fds)).toEqual(inodes(files));
    });

    it("arrive in parts when the reader asks for less", () => {
      const [near, far] = openPair();
      const data = Uint8Array.from({ length: 1000 }, (_, index) => index);
      expect(sendmsg(near, data, 0, 1000)).toBe(1000);
      const result = new Uint8Array(1000);
      expect(recvmsg(far, result, 0, 12, [])).toBe(12);
      expect(recvmsg(far, result, 12, 988, [])).toBe(988);
      expect(result).toEqual(data);
    });

    it("are capped at 16 KiB a call", () => {
      const [near, far] = openPair();
      const data = new Uint8Array(40_000).fill(7);
      expect(sendmsg(near, data, 0, data.length)).toBe(16384);
      expect(recvmsg(far, data, 0, data.length, [])).toBe(16384);
    });

    it("end with 0 at the end of the stream, after what was sent before", () => {
      const [near, far] = socketPair();
      opened.push(far);
      const files = openFiles(2);
      expect(sendmsg(near, Uint8Array.of(5), 0, 1, files)).toBe(1);
      closeFd(near);
      const fds: number[] = [];
      expect(recvmsg(far, new Uint8Array(8), 0, 8, fds)).toBe(1);
      opened.push(...fds);
      expect(fds).toHaveLength(2);
      expect(recvmsg(far, new Uint8Array(8), 0, 8, fds)).toBe(0);
      expect(fds).toEqual([]);
      expect(sendmsg(far, Uint8Array.of(1), 0, 1)).toBe(-errno.EPIPE);
    });

    it("give -EAGAIN when there is nothing to read or no room to write, also on a blocking socket", () => {
      const [near, far] = openPair();
      const c = libc();
      expect(c.fcntl(near, 4, 0)).toBe(0); // F_SETFL: not nonblocking
      expect(c.fcntl(far, 4, 0)).toBe(0);
      expect(recvmsg(far, new Uint8Array(8), 0, 8, [])).toBe(-errno.EAGAIN);
      const chunk = new Uint8Array(16384);
      let sent = 0;
      while (sent >= 0) {
        sent = sendmsg(near, chunk, 0, chunk.length);
      }
      expect(sent).toBe(-errno.EAGAIN);
    });

    it.each([
      [0, 0],
      [0, 9],
      [8, 1],
      [-1, 4],
      [0, -1],
      [0.5, 1],
      [0, Number.NaN],
    ])("are refused for the range %d, %d of 8 bytes", (offset, length) => {
      const [near] = openPair();
      expect(sendmsg(near, new Uint8Array(8), offset, length)).toBe(-errno.EINVAL);
      const fds = [77];
      expect(recvmsg(near, new Uint8Array(8), offset, length, fds)).toBe(-errno.EINVAL);
      expect(fds).toEqual([]);
    });

    it("give -EBADF on a closed descriptor and -ENOTSOCK on a file", () => {
      const [file] = openFiles(1) as [number];
      expect(recvmsg(-1, new Uint8Array(8), 0, 8, [])).toBe(-errno.EBADF);
      expect(sendmsg(-1, new Uint8Array(8), 0, 8)).toBe(-errno.EBADF);
      expect(recvmsg(file, new Uint8Array(8), 0, 8, [])).toBe(-errno.ENOTSOCK);
    });
  });
});
