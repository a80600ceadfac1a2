import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Poller } from "../../../rpmsg/posix/poller.ts";
import { closeFd, connectUnix, listenUnix, recvmsg, sendmsg } from "../../../rpmsg/posix/unix-socket.ts";
import type { Serve, Transport } from "../../../rpmsg/vhost-user/transport.ts";
import { connectTransport, listenTransport } from "../../../rpmsg/vhost-user/transport.ts";
import { descriptorCount, titled, unsupported } from "../posix/support.ts";
import { turns } from "../support/device-driver.ts";

/** What serves a connection here: keeps it open until its `end`. */
interface Served {
  fd: number;
  end(): void;
}

describe.skipIf(unsupported !== undefined)(titled("transports"), () => {
  let directory = "";
  let path = "";
  let poller: Poller;
  let before = 0;
  let served: Served[] = [];
  let errors: string[] = [];
  const transports: Transport[] = [];
  let ours: number[] = [];

  const serve: Serve = (fd, closed) => {
    const one = {
      fd,
      end() {
        if (one.fd === -1) return;
        closeFd(one.fd);
        one.fd = -1;
        closed();
      },
    };
    served.push(one);
    return { close: () => one.end() };
  };
  const onError = (error: Error) => errors.push(error.message);
  const listen = (): Transport => keep(listenTransport(path, poller, serve, onError));
  const connectOut = (): Transport => keep(connectTransport(path, serve, onError));
  const keep = (transport: Transport): Transport => {
    transports.push(transport);
    return transport;
  };
  const connect = (): number => {
    const fd = connectUnix(path);
    expect(fd).toBeGreaterThanOrEqual(0);
    ours.push(fd);
    return fd;
  };

  beforeEach(() => {
    before = descriptorCount();
    directory = mkdtempSync(join(tmpdir(), "transport-"));
    path = join(directory, "socket");
    poller = new Poller();
  });
  afterEach(() => {
    vi.useRealTimers();
    for (const transport of transports.splice(0)) transport.close();
    for (const one of served.splice(0)) expect(one.fd).toBe(-1);
    for (const fd of ours.splice(0)) closeFd(fd);
    poller.close();
    errors = [];
    served = [];
    rmSync(directory, { recursive: true });
    expect(descriptorCount()).toBe(before);
  });

  test("the second frontend waits until the first is gone, and what it said meanwhile is there", async () => {
    listen();
    connect();
    const second = connect();
    sendmsg(second, Buffer.from("hello"), 0, 5);
    await turns();
    expect(served).toHaveLength(1);
    served[0]?.end();
    await turns();
    expect(served).toHaveLength(2);
    const bytes = Buffer.alloc(16);
    expect(recvmsg(served[1]?.fd ?? -1, bytes, 0, 16, [])).toBe(5);
    served[1]?.end();
    await turns();
    connect();
    await turns();
    expect(served).toHaveLength(3);
  });

  test("a frontend that could not be served does not shut the door", async () => {
    let fail = true;
    keep(
      listenTransport(
        path,
        poller,
        (fd, closed) => {
          if (!fail) return serve(fd, closed);
          fail = false;
          closeFd(fd);
          throw new Error("not this one");
        },
        onError,
      ),
    );
    connect();
    connect();
    await turns();
    expect(errors).toEqual(["not this one"]);
    expect(served).toHaveLength(1);
  });

  test("one whose serving ends before it began does not shut the door", async () => {
    let first = true;
    keep(
      listenTransport(
        path,
        poller,
        (fd, closed) => {
          const use = serve(fd, closed);
          if (first) use.close();
          first = false;
          return use;
        },
        onError,
      ),
    );
    connect();
    connect();
    await turns();
    expect(served).toHaveLength(2);
    expect(served[1]?.fd).toBeGreaterThanOrEqual(0);
  });

  test("close ends the connection, takes the socket file away and serves nobody any more", async () => {
    const transport = listen();
    connect();
    connect();
    await turns();
    transport.close();
    transport.close();
    await turns();
    expect(served.map(({ fd }) => fd)).toEqual([-1]);
    expect(existsSync(path)).toBe(false);
    expect(connectUnix(path)).toBeLessThan(0);
  });

  test("a stale socket file is replaced", () => {
    const stale = listenUnix(path);
    closeFd(stale);
    expect(existsSync(path)).toBe(true);
    listen();
    connect();
  });

  test("a socket that somebody listens on is not, nor is another file", () => {
    listen();
    expect(() => listen()).toThrow(expect.objectContaining({ code: "socket" }));
    writeFileSync(join(directory, "file"), "precious");
    path = join(directory, "file");
    expect(() => listen()).toThrow(/EADDRINUSE/);
    expect(existsSync(path)).toBe(true);
  });

  test("connecting is tried again, ever more slowly, and complained of once", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    connectOut();
    expect(errors).toHaveLength(1);
    expect(errors[0]).toMatch(/ENOENT.*trying again/);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(errors).toHaveLength(1);
    const listener = listenUnix(path);
    ours.push(listener);
    await vi.advanceTimersByTimeAsync(1000);
    expect(served).toHaveLength(1);
    served[0]?.end();
    await vi.advanceTimersByTimeAsync(49);
    expect(served).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(1);
    expect(served).toHaveLength(2);
    // It has worked meanwhile: the next failure is news again.
    served[1]?.end();
    closeFd(listener);
    ours = ours.filter((fd) => fd !== listener);
    await vi.advanceTimersByTimeAsync(50);
    expect(errors).toHaveLength(2);
    expect(errors[1]).toMatch(/ECONNREFUSED/);
  });

  test("one whose serving ends before it began is connected again, and closed once", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    ours.push(listenUnix(path));
    const transport = keep(
      connectTransport(
        path,
        (fd, closed) => {
          const use = serve(fd, closed);
          if (served.length === 1) use.close();
          return use;
        },
        onError,
      ),
    );
    await vi.advanceTimersByTimeAsync(1000);
    expect(served).toHaveLength(2);
    transport.close();
    expect(served[1]?.fd).toBe(-1);
  });

  test("close ends the connection and the tries", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const transport = connectOut();
    transport.close();
    transport.close();
    expect(vi.getTimerCount()).toBe(0);
    ours.push(listenUnix(path));
    const second = connectOut();
    expect(served).toHaveLength(1);
    second.close();
    await vi.advanceTimersByTimeAsync(10_000);
    expect(served).toHaveLength(1);
    expect(served[0]?.fd).toBe(-1);
  });
});
