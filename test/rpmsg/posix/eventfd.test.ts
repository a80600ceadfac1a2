import { readFileSync } from "node:fs";
import { afterEach, describe, expect, it } from "vitest";
import { errno } from "../../../rpmsg/posix/errno.ts";
import { createEventfd, drainEventfd, setNonblocking, signalEventfd } from "../../../rpmsg/posix/eventfd.ts";
import { CLOEXEC, libc, NONBLOCK } from "../../../rpmsg/posix/libc.ts";
import { closeFd, recvmsg, sendmsg, socketPair } from "../../../rpmsg/posix/unix-socket.ts";
import { flagsOf, titled, unsupported } from "./support.ts";

const opened: number[] = [];

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

afterEach(() => {
  for (const fd of opened.splice(0)) {
    closeFd(fd);
  }
});

describe.skipIf(unsupported !== undefined)(titled("eventfd"), () => {
  it("is nonblocking and close-on-exec", () => {
    expect(flagsOf(open(createEventfd())) & (NONBLOCK | CLOEXEC)).toBe(NONBLOCK | CLOEXEC);
  });

  it("is drained by one read, whatever was signalled", () => {
    const fd = open(createEventfd());
    expect(drainEventfd(fd)).toBe(0);
    expect(signalEventfd(fd)).toBe(0);
    expect(signalEventfd(fd)).toBe(0);
    expect(drainEventfd(fd)).toBe(1);
    expect(drainEventfd(fd)).toBe(0);
  });

  it("adds one with every signal", () => {
    const fd = open(createEventfd());
    for (let count = 0; count < 3; count++) {
      signalEventfd(fd);
    }
    expect(readFileSync(`/proc/self/fdinfo/${fd}`, "latin1")).toMatch(/^eventfd-count:\s+3$/m);
  });

  it("signals a stream socket with eight bytes", () => {
    const [near, far] = openPair();
    expect(signalEventfd(near)).toBe(0);
    const bytes = new Uint8Array(64);
    expect(recvmsg(far, bytes, 0, 64, [])).toBe(8);
    expect([...bytes.subarray(0, 8)]).toEqual([1, 0, 0, 0, 0, 0, 0, 0]);
  });

  it("takes a full socket for signalled", () => {
    const [near, far] = openPair();
    const chunk = new Uint8Array(16384);
    let sent = 0;
    while (sent >= 0) {
      sent = sendmsg(near, chunk, 0, chunk.length);
    }
    expect(sent).toBe(-errno.EAGAIN);
    for (let count = 0; count < 2000; count++) {
      expect(signalEventfd(near)).toBe(0);
    }
    expect(drainEventfd(far)).toBe(16); // bounded, though more is there
  });

  it("reports a socket whose reader is gone, without a signal that ends the process", () => {
    const [near, far] = socketPair();
    opened.push(near);
    closeFd(far);
    expect(signalEventfd(near)).toBe(-errno.EPIPE);
    expect(drainEventfd(near)).toBe(0); // end of the stream
  });

  it("drains a blocking descriptor without blocking, and makes one nonblocking on request", () => {
    const fd = open(libc().eventfd(1, CLOEXEC));
    expect(flagsOf(fd) & NONBLOCK).toBe(0);
    expect(drainEventfd(fd)).toBe(1);
    expect(drainEventfd(fd)).toBe(0);
    expect(setNonblocking(fd)).toBe(0);
    expect(setNonblocking(fd)).toBe(0);
    expect(flagsOf(fd) & NONBLOCK).toBe(NONBLOCK);
  });

  it("gives -EBADF for a closed descriptor", () => {
    const fd = createEventfd();
    expect(closeFd(fd)).toBe(0);
    for (const bad of [fd, -1]) {
      expect(signalEventfd(bad)).toBe(-errno.EBADF);
      expect(drainEventfd(bad)).toBe(-errno.EBADF);
      expect(setNonblocking(bad)).toBe(-errno.EBADF);
      expect(closeFd(bad)).toBe(-errno.EBADF);
    }
  });
});
