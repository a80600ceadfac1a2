import { setImmediate as nextTurn } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { errno } from "../../../rpmsg/posix/errno.ts";
import { createEventfd } from "../../../rpmsg/posix/eventfd.ts";
import { libc } from "../../../rpmsg/posix/libc.ts";
import { Poller } from "../../../rpmsg/posix/poller.ts";
import { closeFd, recvmsg, sendmsg, socketPair } from "../../../rpmsg/posix/unix-socket.ts";
import type { ConnectionSnapshot } from "../../../rpmsg/vhost-user/connection.ts";
import { VhostUserConnection } from "../../../rpmsg/vhost-user/connection.ts";
import { REPLY, request } from "../../../rpmsg/vhost-user/messages.ts";
import { descriptorCount, titled, unsupported } from "../posix/support.ts";
import { turns } from "../support/device-driver.ts";
import { frame } from "../support/vhost-user-frames.ts";

const { GET_CONFIG } = request;

describe.skipIf(unsupported !== undefined)(titled("a vhost-user connection"), () => {
  let poller: Poller;
  let before = 0;
  let opened: number[] = [];
  let connections: VhostUserConnection[] = [];
  let closes: (string | undefined)[] = [];

  beforeEach(() => {
    before = descriptorCount();
    poller = new Poller({ onError: (error) => expect.unreachable(String(error)) });
    [opened, connections, closes] = [[], [], []];
  });

  afterEach(async () => {
    for (const connection of connections) connection.close();
    for (const fd of opened) closeFd(fd);
    await nextTurn();
    poller.close();
    expect(descriptorCount()).toBe(before);
  });

  function connect(from: number | ConnectionSnapshot, onMessage = (): void => {}): VhostUserConnection {
    const connection = new VhostUserConnection(from, poller, {
      onMessage,
      onClose: (error) => closes.push(error?.message),
    });
    connections.push(connection);
    return connection;
  }

  function openPair(): { connection: VhostUserConnection; peer: number } {
    const [fd, peer] = socketPair();
    opened.push(peer);
    return { connection: connect(fd), peer };
  }

  /** Sends payloads of 4096 bytes until some wait here. @returns how many were sent */
  function fill(connection: VhostUserConnection): number {
    let sent = 0;
    while (connection.snapshot().unsent.length === 0) {
      connection.send(GET_CONFIG, REPLY, Buffer.alloc(4096, sent));
      sent++;
    }
    return sent;
  }

  /** Reads all that there is. */
  async function readAll(fd: number, bytes: number): Promise<Buffer> {
    const all = Buffer.alloc(bytes);
    for (let at = 0; at < bytes; ) {
      // Odd, so that what is sent meanwhile is cut anywhere.
      const got = recvmsg(fd, all, at, Math.min(bytes - at, 1001), []);
      if (got > 0) at += got;
      else await turns(1);
    }
    return all;
  }

  test("whose peer reads slowly sends all, whole and in order", async () => {
    const { connection, peer } = openPair();
    let sent = fill(connection);
    for (let i = 0; i < 5; i++, sent++) connection.send(GET_CONFIG, REPLY, Buffer.alloc(4096, sent));
    const expected = Array.from({ length: sent }, (_, i) => frame(GET_CONFIG, Buffer.alloc(4096, i), 5));
    const bytes = Buffer.concat(expected);
    expect((await readAll(peer, bytes.length)).equals(bytes)).toBe(true);
    expect(connection.snapshot().unsent).toEqual([]);
  });

  test("ends rather than keeps more than 64 KiB for a peer that reads nothing", () => {
    const { connection } = openPair();
    fill(connection);
    for (let i = 0; i < 17; i++) connection.send(GET_CONFIG, REPLY, new Uint8Array(4096));
    expect(closes).toEqual(["the peer does not read its replies (socket)"]);
    // Nothing more happens to it.
    connection.send(GET_CONFIG, REPLY, new Uint8Array(4096));
    connection.resume();
    connection.close();
    expect(closes).toHaveLength(1);
  });

  test("ends rather than sends a descriptor behind what waits: they never wait", () => {
    const { connection } = openPair();
    fill(connection);
    const fd = createEventfd();
    opened.push(fd);
    connection.send(GET_CONFIG, REPLY, new Uint8Array(8), [fd]);
    expect(closes).toEqual(["cannot send GET_CONFIG: EAGAIN (socket)"]);
  });

  test("ends when its peer goes while something waits", async () => {
    const { connection, peer } = openPair();
    fill(connection);
    opened = [];
    closeFd(peer);
    await turns();
    expect(closes).toHaveLength(1);
    expect(closes[0]).toMatch(/^cannot (send: EPIPE|receive: ECONNRESET) \(socket\)$/);
  });

  test("ends when a message is answered by throwing, whatever it is", async () => {
    const [fd, peer] = socketPair();
    opened.push(peer);
    const thrown: unknown = "a text";
    connect(fd, () => {
      throw thrown;
    });
    const bytes = frame(GET_CONFIG);
    expect(sendmsg(peer, bytes, 0, bytes.length)).toBe(bytes.length);
    await turns();
    expect(closes).toEqual(["a text"]);
  });

  describe("that ends is seen by its peer last: its frontend may give the rings to somebody else then", () => {
    const END = 0;
    const look = (peer: number): number => recvmsg(peer, new Uint8Array(1), 0, 1, []);

    test("whoever hears of it still has the socket, and the peer sees nothing until they are done", () => {
      const [fd, peer] = socketPair();
      opened.push(peer);
      const seen: number[] = [];
      const onClose = (): unknown => seen.push(look(peer));
      const connection = new VhostUserConnection(fd, poller, { onMessage() {}, onClose });
      expect(look(peer)).toBe(-errno.EAGAIN);
      connection.close();
      expect(seen).toEqual([-errno.EAGAIN]);
      expect(look(peer)).toBe(END);
    });

    test("also where they throw", () => {
      const [fd, peer] = socketPair();
      opened.push(peer);
      const count = descriptorCount();
      const connection = new VhostUserConnection(fd, poller, {
        onMessage() {},
        onClose() {
          throw new Error("of a listener");
        },
      });
      expect(() => connection.close()).toThrow("of a listener");
      expect(look(peer)).toBe(END);
      expect(descriptorCount()).toBe(count - 1);
    });
  });

  test("on a descriptor that cannot be waited for is refused, and the descriptor closed", () => {
    const count = descriptorCount();
    expect(() => connect(libc().memfd_create("file", 1))).toThrow("cannot poll the socket: EPERM");
    expect(descriptorCount()).toBe(count);
  });

  test("of another process on such a descriptor ends when it is to go on", () => {
    const connection = connect({
      fd: libc().memfd_create("file", 1),
      received: new Uint8Array(),
      fds: [],
      unsent: [],
    });
    expect(closes).toEqual([]);
    connection.resume();
    expect(closes).toEqual(["cannot poll the socket: EPERM (socket)"]);
  });
});
