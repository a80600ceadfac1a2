import { existsSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Poller } from "../../../rpmsg/posix/poller.ts";
import {
  closeFd,
  connectUnix,
  duplicateFd,
  listenUnix,
  recvmsg,
  sendmsg,
  socketPair,
} from "../../../rpmsg/posix/unix-socket.ts";
import type { Serve, Transport, TransportSnapshot } from "../../../rpmsg/vhost-user/transport.ts";
import { connectTransport, listenTransport } from "../../../rpmsg/vhost-user/transport.ts";
import { descriptorCount, limitDescriptors, titled, unsupported } from "../posix/support.ts";
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
  const listen = (from?: TransportSnapshot): Transport =>
    keep(listenTransport(path, poller, serve, onError, from));
  const connectOut = (from?: TransportSnapshot): Transport =>
    keep(connectTransport(path, serve, onError, from));
  /** Serves nobody, and throws this. */
  const refuse =
    (reason: unknown): Serve =>
    (fd) => {
      closeFd(fd);
      throw reason;
    };
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

  test("a frontend that comes when no descriptor is left is served when there is one", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    listen();
    connect();
    const end = limitDescriptors(0);
    try {
      await turns();
      expect(errors).toEqual([`cannot accept on ${path}: EMFILE (socket)`]);
    } finally {
      end();
    }
    expect(served).toEqual([]);
    await vi.advanceTimersByTimeAsync(200);
    expect(served).toHaveLength(1);
    expect(errors).toHaveLength(1);
  });

  test("connecting is tried again when the connection could not be served", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    ours.push(listenUnix(path));
    let thrown: unknown = new Error("not this one");
    keep(
      connectTransport(
        path,
        (fd, closed) => (thrown === undefined ? serve : refuse(thrown))(fd, closed),
        onError,
      ),
    );
    thrown = "nor this one";
    await vi.advanceTimersByTimeAsync(50);
    thrown = undefined;
    await vi.advanceTimersByTimeAsync(100);
    expect(errors).toEqual(["not this one", "nor this one"]);
    expect(served).toHaveLength(1);
  });

  describe("that pause", () => {
    test("leave who comes in the backlog, and serve him afterwards", async () => {
      const transport = listen();
      transport.pause();
      connect();
      await turns();
      expect(served).toEqual([]);
      transport.resume();
      transport.resume();
      await turns();
      expect(served).toHaveLength(1);
    });

    test("do not connect, and do so at once afterwards", async () => {
      vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
      ours.push(listenUnix(path));
      const transport = connectOut();
      transport.pause();
      served[0]?.end();
      await vi.advanceTimersByTimeAsync(10_000);
      expect(served).toHaveLength(1);
      transport.resume();
      transport.resume();
      expect(served).toHaveLength(2);
    });

    test("are not woken after their close", async () => {
      for (const transport of [listen(), connectOut()]) {
        transport.pause();
        transport.close();
        transport.resume();
      }
      await turns();
      // The second had connected before it paused.
      expect(served.map(({ fd }) => fd)).toEqual([-1]);
    });
  });

  describe("of another process", () => {
    /** What the other process hands over: its listener and a connection that it serves. */
    const given = (): { listener: number; connection: number } => {
      const [connection, peer] = socketPair();
      ours.push(peer);
      const listener = listenUnix(path);
      return { listener, connection };
    };

    test("are gone on with: the connection at once, who waits when the first one is gone", async () => {
      const from = given();
      const transport = listen(from);
      expect(transport.listener).toBe(from.listener);
      connect();
      await turns();
      expect(served.map(({ fd }) => fd)).toEqual([from.connection]);
      transport.resume();
      await turns();
      expect(served).toHaveLength(1);
      served[0]?.end();
      await turns();
      expect(served).toHaveLength(2);
    });

    test("without a connection take nobody before they go on", async () => {
      const { listener, connection } = given();
      closeFd(connection);
      const transport = listen({ listener, connection: undefined });
      connect();
      await turns();
      expect(served).toEqual([]);
      transport.resume();
      await turns();
      expect(served).toHaveLength(1);
    });

    test("leave the socket file where it is when they are closed before they went on", async () => {
      const { listener, connection } = given();
      ours.push(listener);
      const transport = listen({ listener: duplicateFd(listener), connection });
      transport.close();
      expect(served.map(({ fd }) => fd)).toEqual([-1]);
      // The other process still listens there.
      connect();
      expect(existsSync(path)).toBe(true);
    });

    test("throw where the connection cannot be gone on with: the other process keeps it", () => {
      const { listener, connection } = given();
      const from = { listener, connection };
      ours.push(listener);
      expect(() => listenTransport(path, poller, refuse(new Error("no")), onError, from)).toThrow("no");
      const again = { listener: undefined, connection: duplicateFd(listener) };
      expect(() => connectTransport(path, refuse(new Error("no")), onError, again)).toThrow("no");
      expect(errors).toEqual([]);
    });

    test("throw where the listener cannot be waited for, and close it", () => {
      const file = openSync(join(directory, "file"), "w");
      const transport = listenTransport(path, poller, serve, onError, {
        listener: file,
        connection: undefined,
      });
      expect(() => transport.resume()).toThrow(`cannot poll ${path}: EPERM`);
    });

    test("that connect go on with the connection, and connect again when it ends", async () => {
      vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
      const { listener, connection } = given();
      ours.push(listener);
      const transport = connectOut({ listener: undefined, connection });
      transport.resume();
      expect(served.map(({ fd }) => fd)).toEqual([connection]);
      served[0]?.end();
      await vi.advanceTimersByTimeAsync(50);
      expect(served).toHaveLength(2);
      const other = connectOut({ listener: undefined, connection: undefined });
      expect(served).toHaveLength(2);
      other.resume();
      expect(served).toHaveLength(3);
    });
  });
});
