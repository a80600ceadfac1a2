import { fstatSync } from "node:fs";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { libc } from "../../../rpmsg/posix/libc.ts";
import { Poller } from "../../../rpmsg/posix/poller.ts";
import { RecordSocket } from "../../../rpmsg/posix/record-socket.ts";
import { closeFd, recvmsg, sendmsg, socketPair } from "../../../rpmsg/posix/unix-socket.ts";
import { descriptorCount, settle, titled, unsupported } from "./support.ts";

interface Received {
  readonly payload: Buffer;
  /** Numbers of the files whose descriptors came, in order. */
  readonly inodes: number[];
}

let poller: Poller;
let opened: number[] = [];
let sockets: RecordSocket[] = [];
let before = 0;

/** One side of a connection, with all that it hears. */
class Side {
  readonly records: Received[] = [];
  readonly socket: RecordSocket;
  /** How often it was told of the end. */
  closes = 0;
  readonly closed: Promise<Error | undefined>;
  #heard: () => void = () => {};

  constructor(fd: number, onRecord: (payload: Uint8Array) => void = () => {}) {
    let close: (error: Error | undefined) => void = () => {};
    this.closed = new Promise((resolve) => {
      close = resolve;
    });
    this.socket = new RecordSocket(fd, poller, {
      onRecord: (payload, fds) => {
        this.records.push({ payload: Buffer.from(payload), inodes: inodes(fds) });
        for (const each of fds) closeFd(each);
        this.#heard();
        onRecord(payload);
      },
      onClose: (error) => {
        this.closes++;
        close(error);
      },
    });
    sockets.push(this.socket);
  }

  /** Resolves when so many records have come. */
  async heard(count: number): Promise<void> {
    while (this.records.length < count) {
      await new Promise<void>((resolve) => {
        this.#heard = resolve;
      });
    }
  }
}

function inodes(fds: readonly number[]): number[] {
  return fds.map((fd) => fstatSync(fd).ino);
}

/** Descriptors of distinct files. */
function openFiles(count: number): number[] {
  const fds = Array.from({ length: count }, (_, index) => libc().memfd_create(`file ${index}`, 1));
  expect(fds.every((fd) => fd >= 0)).toBe(true);
  opened.push(...fds);
  return fds;
}

/** A side, and the other end of its connection to play by hand. */
function openSide(onRecord?: (payload: Uint8Array) => void): { side: Side; peer: number } {
  const [fd, peer] = socketPair();
  opened.push(peer);
  return { side: new Side(fd, onRecord), peer };
}

function openSides(): [Side, Side] {
  const [one, other] = socketPair();
  return [new Side(one), new Side(other)];
}

function write(fd: number, bytes: Uint8Array, fds: readonly number[] = []): void {
  expect(sendmsg(fd, bytes, 0, bytes.length, fds)).toBe(bytes.length);
}

/** Closes the end that a test plays. */
function closePeer(fd: number): void {
  opened = opened.filter((each) => each !== fd);
  closeFd(fd);
}

/** A record as it is sent. */
function record(payload: string, descriptors = 0, bytes = payload.length): Buffer {
  const header = Buffer.from("524252480000000000000000", "hex");
  header.writeUInt32LE(bytes, 4);
  header.writeUInt32LE(descriptors, 8);
  return Buffer.concat([header, Buffer.from(payload)]);
}

describe.skipIf(unsupported !== undefined)(titled("RecordSocket"), () => {
  beforeEach(async () => {
    opened = [];
    sockets = [];
    poller = new Poller();
    await settle(poller); // libuv opens descriptors of its own for the first one
    before = descriptorCount();
  });

  afterEach(() => {
    for (const socket of sockets) socket.close();
    for (const fd of opened) closeFd(fd);
    expect(descriptorCount()).toBe(before);
    poller.close();
  });

  describe("receiving", () => {
    const [HELLO, EMPTY] = [
      [
        "52425248", // magic
        "05000000", // bytes of the payload
        "00000000", // descriptors
        "68656c6c6f", // "hello"
      ],
      ["52425248", "00000000", "00000000"],
    ].map((parts) => Buffer.from(parts.join(""), "hex")) as [Buffer, Buffer];

    it("gives each record whole, wherever the stream is split", async () => {
      const stream = Buffer.concat([HELLO, EMPTY, HELLO]);
      for (let cut = 1; cut < stream.length; cut++) {
        const { side, peer } = openSide();
        write(peer, stream.subarray(0, cut));
        await settle(poller);
        // What is complete is there already, and no more.
        expect(side.records).toHaveLength([HELLO.length, 29, 46].filter((end) => end <= cut).length);
        write(peer, stream.subarray(cut));
        await side.heard(3);
        expect(side.records.map(({ payload }) => payload.toString())).toEqual(["hello", "", "hello"]);
        side.socket.close();
      }
    });

    it("takes descriptors with whichever bytes of the record they come", async () => {
      const files = openFiles(2);
      const bytes = record("hello", 2);
      for (let at = 0; at < bytes.length; at++) {
        const { side, peer } = openSide();
        if (at > 0) write(peer, bytes.subarray(0, at));
        write(peer, bytes.subarray(at), files);
        await side.heard(1);
        expect(side.records[0]?.inodes).toEqual(inodes(files));
        side.socket.close();
      }
    });

    it.each([
      ["another protocol", Buffer.from("GET / HTTP/1"), "the peer speaks another protocol"],
      ["a payload of more than 1 GiB", record("", 0, 2 ** 30 + 1), "a record is too long"],
      ["more than 65,536 descriptors", record("", 65_537), "a record is too long"],
    ])("ends at %s before the rest has come", async (_, bytes, message) => {
      const { side, peer } = openSide();
      write(peer, bytes, openFiles(1));
      expect((await side.closed)?.message).toBe(message);
      expect(side.records).toEqual([]);
      expect(recvmsg(peer, new Uint8Array(1), 0, 1, [])).toBe(0);
    });

    it.each([
      ["fewer", 3, 2],
      ["more", 1, 2],
      ["some instead of none", 0, 1],
    ])("ends at a record with other descriptors than it says: %s, and closes them", async (_, said, sent) => {
      const { side, peer } = openSide();
      write(peer, record("x", said), openFiles(sent));
      expect((await side.closed)?.message).toBe(
        "a record came with another number of descriptors than it says",
      );
      expect(side.records).toEqual([]);
    });

    it("ends when more descriptors come at once than one call of the kernel gives", async () => {
      const { side, peer } = openSide();
      write(peer, record("x", 65), openFiles(65));
      expect((await side.closed)?.message).toBe("cannot receive: EMSGSIZE");
    });

    it("tells an end within a record from one between records, and closes what came with it", async () => {
      const bytes = record("hello", 1);
      for (let cut = 0; cut < bytes.length; cut++) {
        const { side, peer } = openSide();
        if (cut > 0) write(peer, bytes.subarray(0, cut), openFiles(1));
        closePeer(peer);
        expect((await side.closed)?.message).toBe(
          cut === 0 ? undefined : "the connection ended within a record",
        );
      }
      const { side, peer } = openSide();
      write(peer, HELLO);
      closePeer(peer);
      expect(await side.closed).toBeUndefined();
      expect(side.records).toHaveLength(1);
    });

    it.each([
      ["an error", new Error("not this one"), "not this one"],
      ["anything else", "a text", "a text"],
    ])("ends, and reads no further, when a record is answered by throwing %s", async (_, thrown, message) => {
      const { side, peer } = openSide(() => {
        throw thrown;
      });
      write(peer, Buffer.concat([HELLO, HELLO]));
      expect((await side.closed)?.message).toBe(message);
      expect(side.records).toHaveLength(1);
    });

    it("reads no further when it is closed by who takes a record", async () => {
      const { side, peer } = openSide(() => side.socket.close());
      write(peer, Buffer.concat([HELLO, HELLO]));
      expect(await side.closed).toBeUndefined();
      expect(side.records).toHaveLength(1);
    });
  });

  describe("sending", () => {
    it("writes a header, the payload, and the descriptors with the first byte", () => {
      const { side, peer } = openSide();
      const files = openFiles(2);
      side.socket.send(Buffer.from("hello"), files);
      expect(side.socket.flushed).toBe(true);
      const bytes = new Uint8Array(64);
      const fds: number[] = [];
      expect(recvmsg(peer, bytes, 0, 64, fds)).toBe(1);
      opened.push(...fds);
      expect(inodes(fds)).toEqual(inodes(files));
      expect(recvmsg(peer, bytes, 1, 63, [])).toBe(16);
      expect(Buffer.from(bytes.subarray(0, 17))).toEqual(record("hello", 2));
    });

    it("keeps what the peer does not take, in order, and says so", async () => {
      const [fd, peer] = socketPair();
      const sender = new Side(fd);
      const files = openFiles(2);
      const long = Buffer.alloc(1_000_000, "long");
      sender.socket.send(long, files);
      sender.socket.send(Buffer.from("after"));
      expect(sender.socket.flushed).toBe(false);
      const receiver = new Side(peer);
      await receiver.heard(2);
      expect(receiver.records[0]?.payload.equals(long)).toBe(true);
      expect(receiver.records[0]?.inodes).toEqual(inodes(files));
      expect(receiver.records[1]?.payload.toString()).toBe("after");
      expect(sender.socket.flushed).toBe(true);
    });

    it("refuses more descriptors than there are bytes to send them with, and goes on with the next record", async () => {
      const [sender, receiver] = openSides();
      const [file = -1] = openFiles(1);
      // 60 with each of the 12 bytes of the header.
      expect(() => sender.socket.send(new Uint8Array(0), Array(721).fill(file))).toThrow(RangeError);
      sender.socket.send(Buffer.from("next"));
      await receiver.heard(1);
      expect(receiver.records).toEqual([{ payload: Buffer.from("next"), inodes: [] }]);
    });

    it.each([
      ["a descriptor that is not open", () => [4095], "cannot send: EBADF"],
      ["a peer that is gone", () => [], "cannot send: EPIPE"],
    ])("ends with an error at %s", async (_, fds, message) => {
      const { side, peer } = openSide();
      if (message.endsWith("EPIPE")) closePeer(peer);
      side.socket.send(Buffer.from("x"), fds());
      expect((await side.closed)?.message).toBe(message);
      expect(side.closes).toBe(1);
    });

    it("fails with what is unsent when the peer goes", async () => {
      const { side, peer } = openSide();
      side.socket.send(new Uint8Array(1_000_000));
      expect(side.socket.flushed).toBe(false);
      closePeer(peer);
      expect((await side.closed)?.message).toMatch(/^cannot (send: EPIPE|receive: ECONNRESET)$/);
    });

    it("passes any records with any descriptors through a peer that forwards pieces of any length", async () => {
      const files = openFiles(150);
      const records = fc.array(
        fc.record({
          length: fc.oneof(fc.integer({ min: 0, max: 20 }), fc.integer({ min: 0, max: 40_000 })),
          descriptors: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 150 })),
        }),
        { maxLength: 5 },
      );
      const pieces = fc.array(fc.integer({ min: 1, max: 20_000 }), { minLength: 1, maxLength: 8 });
      await fc.assert(
        fc.asyncProperty(records, pieces, async (sent, lengths) => {
          const [sending, from] = socketPair();
          const [to, receiving] = socketPair();
          const [sender, receiver] = [new Side(sending), new Side(receiving)];
          for (const [index, { length, descriptors }] of sent.entries()) {
            sender.socket.send(Buffer.alloc(length, index + 1), files.slice(0, descriptors));
          }
          sender.socket.end();
          await forward(from, to, lengths);
          expect(await receiver.closed).toBeUndefined();
          expect(await sender.closed).toBeUndefined();
          expect(receiver.records).toEqual(
            sent.map(({ length, descriptors }, index) => ({
              payload: Buffer.alloc(length, index + 1),
              inodes: inodes(files.slice(0, descriptors)),
            })),
          );
        }),
        { numRuns: 25 },
      );
    });
  });

  describe("the end", () => {
    it("is at once when all is sent, told once, and nothing is sent after it", async () => {
      const { side, peer } = openSide();
      side.socket.send(Buffer.from("last"));
      side.socket.end();
      expect(side.closes).toBe(1);
      side.socket.send(Buffer.from("too late"));
      side.socket.end();
      side.socket.close(new Error("again"));
      expect(await side.closed).toBeUndefined();
      expect(side.closes).toBe(1);
      const bytes = new Uint8Array(64);
      expect(recvmsg(peer, bytes, 0, 64, [])).toBe(16);
      expect(recvmsg(peer, bytes, 0, 64, [])).toBe(0);
    });

    it("waits for what is unsent, and takes no more", async () => {
      const [fd, peer] = socketPair();
      const sender = new Side(fd);
      sender.socket.send(new Uint8Array(1_000_000));
      sender.socket.end();
      expect(sender.closes).toBe(0);
      sender.socket.send(Buffer.from("too late"));
      const receiver = new Side(peer);
      expect(await receiver.closed).toBeUndefined();
      expect(await sender.closed).toBeUndefined();
      expect(receiver.records.map(({ payload }) => payload.length)).toEqual([1_000_000]);
    });
  });

  it("closes a descriptor that it cannot wait for, and says why", () => {
    const [file = -1] = openFiles(1);
    const count = descriptorCount();
    expect(() => new Side(file)).toThrow("cannot poll the socket: EPERM");
    expect(descriptorCount()).toBe(count - 1);
    opened = [];
  });
});

/**
 * Passes a stream on in pieces of these lengths, over and over, to its end; closes both descriptors. A read ends with the
 * byte that brings descriptors (unix(7)): they go on with that one.
 */
async function forward(from: number, to: number, lengths: readonly number[]): Promise<void> {
  const bytes = new Uint8Array(20_000);
  const fds: number[] = [];
  for (let piece = 0; ; piece++) {
    const length = lengths[piece % lengths.length] as number;
    let got = recvmsg(from, bytes, 0, length, fds);
    for (; got < 0; got = recvmsg(from, bytes, 0, length, fds)) await settle(poller);
    if (got === 0) break;
    const plain = fds.length === 0 ? got : got - 1;
    for (let at = 0; at < got; ) {
      const sent = at < plain ? sendmsg(to, bytes, at, plain - at) : sendmsg(to, bytes, at, 1, fds);
      if (sent > 0) at += sent;
      else await settle(poller);
    }
    for (const fd of fds) closeFd(fd);
  }
  closeFd(from);
  closeFd(to);
}
