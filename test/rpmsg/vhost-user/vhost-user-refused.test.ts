import { openSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { drainEventfd } from "../../../rpmsg/posix/eventfd.ts";
import type { InflightMessage } from "../../../rpmsg/vhost-user/messages.ts";
import { inflightPayload, request, statePayload, u64Payload } from "../../../rpmsg/vhost-user/messages.ts";
import { titled, unsupported } from "../posix/support.ts";
import { turns } from "../support/device-driver.ts";
import { openEndpoint, texts } from "../support/device-endpoints.ts";
import { fdPayload, frame, slot } from "../support/vhost-user-frames.ts";
import type { Session } from "../support/vhost-user-session.ts";
import { MEMORY_SIZE, useSessions } from "../support/vhost-user-session.ts";

interface Bad {
  name: string;
  id: number;
  payload?: Uint8Array;
  fds?: (session: Session) => number[];
  code: string;
}

const one = (session: Session): number[] => [session.eventfd()];
const two = (session: Session): number[] => [session.eventfd(), session.eventfd()];
const state = (index: number, value: number): Uint8Array => statePayload(index, value);

/** Requests that are refused, whatever came before. */
const bad: Bad[] = [
  { name: "an unknown request", id: 99, payload: new Uint8Array(20), code: "message-unknown" },
  { name: "an unknown request with descriptors", id: 33, fds: two, code: "message-unknown" },
  { name: "SET_LOG_BASE without a descriptor", id: 6, payload: pair(64, 0), code: "descriptor-count" },
  { name: "SET_LOG_BASE with an address alone", id: 6, payload: u64Payload(0n), code: "message-size" },
  { name: "a log that is no file", id: 6, payload: pair(64, 0), fds: one, code: "memory-range" },
  { name: "a log of no bytes", id: 6, payload: pair(0, 0), fds: memory, code: "memory-range" },
  {
    name: "a log beyond its file",
    id: 6,
    payload: pair(4096, MEMORY_SIZE),
    fds: memory,
    code: "memory-range",
  },
  { name: "a log at an odd offset", id: 6, payload: pair(4096, 8), fds: memory, code: "memory-map" },
  { name: "a log of 2^62 bytes", id: 6, payload: pair(2 ** 62, 0), fds: memory, code: "log-range" },
  { name: "a log whose end overflows", id: 6, payload: pair(64, 2 ** 63), fds: memory, code: "memory-range" },
  { name: "two log eventfds", id: 7, fds: two, code: "descriptor-count" },
  { name: "a short GET_INFLIGHT_FD", id: 31, payload: new Uint8Array(19), code: "message-size" },
  { name: "GET_INFLIGHT_FD of no queue", id: 31, payload: inflight({ queues: 0 }), code: "inflight-queues" },
  {
    name: "GET_INFLIGHT_FD of 3 entries",
    id: 31,
    payload: inflight({ entries: 3 }),
    code: "inflight-queues",
  },
  { name: "SET_INFLIGHT_FD without its descriptor", id: 32, payload: inflight({}), code: "descriptor-count" },
  {
    name: "an in-flight buffer that is no file",
    id: 32,
    payload: inflight({}),
    fds: one,
    code: "memory-range",
  },
  {
    name: "an in-flight buffer too small for its queues",
    id: 32,
    payload: inflight({ size: 639 }),
    fds: memory,
    code: "inflight-queues",
  },
  {
    name: "an in-flight buffer beyond its file",
    id: 32,
    payload: inflight({ offset: MEMORY_SIZE }),
    fds: memory,
    code: "memory-range",
  },
  { name: "request 0", id: 0, code: "message-unknown" },
  { name: "a feature not offered", id: 2, payload: u64Payload(1n << 34n), code: "feature-not-offered" },
  { name: "F_BUFSZ where it is not configured", id: 2, payload: u64Payload(2n), code: "feature-not-offered" },
  { name: "a short SET_FEATURES", id: 2, payload: new Uint8Array(7), code: "message-size" },
  { name: "a long SET_FEATURES", id: 2, payload: new Uint8Array(9), code: "message-size" },
  { name: "an empty SET_FEATURES", id: 2, code: "message-size" },
  {
    name: "SET_FEATURES with a descriptor",
    id: 2,
    payload: u64Payload(0n),
    fds: one,
    code: "descriptor-count",
  },
  { name: "a protocol feature not offered", id: 16, payload: u64Payload(4n), code: "feature-not-offered" },
  { name: "a queue of 0 entries", id: 8, payload: state(0, 0), code: "ring-size" },
  { name: "a queue of 3 entries", id: 8, payload: state(0, 3), code: "ring-size" },
  { name: "a queue of 65536 entries", id: 8, payload: state(0, 65536), code: "ring-size" },
  { name: "SET_VRING_NUM of queue 2", id: 8, payload: state(2, 16), code: "ring-index" },
  { name: "SET_VRING_NUM of queue 65536, no u16", id: 8, payload: state(0x1_0000, 16), code: "ring-index" },
  { name: "SET_VRING_NUM of queue 2^32 - 1", id: 8, payload: state(0xffff_ffff, 16), code: "ring-index" },
  { name: "SET_VRING_BASE of queue 2", id: 10, payload: state(2, 0), code: "ring-index" },
  { name: "GET_VRING_BASE of queue 2", id: 11, payload: state(2, 0), code: "ring-index" },
  { name: "GET_VRING_BASE of queue 2^31", id: 11, payload: state(0x8000_0000, 0), code: "ring-index" },
  { name: "SET_VRING_ENABLE of queue 2", id: 18, payload: state(2, 1), code: "ring-index" },
  { name: "SET_VRING_ADDR of queue 9", id: 9, payload: Buffer.alloc(40, 9), code: "ring-index" },
  { name: "a short SET_VRING_ADDR", id: 9, payload: new Uint8Array(39), code: "message-size" },
  { name: "SET_VRING_KICK of queue 2", id: 12, payload: fdPayload(2), fds: one, code: "ring-index" },
  { name: "SET_VRING_CALL of queue 255", id: 13, payload: fdPayload(255), fds: one, code: "ring-index" },
  { name: "SET_VRING_KICK without its descriptor", id: 12, payload: fdPayload(0), code: "descriptor-count" },
  { name: "SET_VRING_CALL without its descriptor", id: 13, payload: fdPayload(0), code: "descriptor-count" },
  { name: "SET_VRING_ERR without its descriptor", id: 14, payload: fdPayload(0), code: "descriptor-count" },
  {
    name: "a kick said not to come",
    id: 12,
    payload: fdPayload(0, true),
    fds: one,
    code: "descriptor-count",
  },
  {
    name: "a call said not to come",
    id: 13,
    payload: fdPayload(0, true),
    fds: one,
    code: "descriptor-count",
  },
  { name: "two kicks", id: 12, payload: fdPayload(0), fds: two, code: "descriptor-count" },
  { name: "a regular file for a kick", id: 12, payload: fdPayload(0), fds: file, code: "kick-unusable" },
  { name: "SET_BACKEND_REQ_FD without a descriptor", id: 21, code: "descriptor-count" },
  { name: "SET_BACKEND_REQ_FD with two", id: 21, fds: two, code: "descriptor-count" },
  { name: "SET_CONFIG", id: 25, payload: new Uint8Array(13), code: "config-range" },
  { name: "a short GET_CONFIG", id: 24, payload: new Uint8Array(11), code: "message-size" },
  {
    name: "ADD_MEM_REG of a region nowhere",
    id: 37,
    payload: Buffer.alloc(40),
    fds: one,
    code: "memory-range",
  },
  { name: "a short ADD_MEM_REG", id: 37, payload: new Uint8Array(39), fds: one, code: "message-size" },
  { name: "REM_MEM_REG of the unknown", id: 38, payload: nowhere(), code: "memory-range" },
  { name: "a short SET_MEM_TABLE", id: 5, payload: new Uint8Array(7), code: "message-size" },
  { name: "RESET_DEVICE with a payload", id: 34, payload: new Uint8Array(8), code: "message-size" },
];

/** A log's size and offset. */
function pair(size: number, offset: number): Uint8Array {
  return Buffer.concat([u64Payload(BigInt(size)), u64Payload(BigInt(offset))]);
}

function inflight(fields: Partial<InflightMessage>): Uint8Array {
  return inflightPayload({ size: 640, offset: 0, queues: 2, entries: 16, ...fields });
}

function memory(session: Session): number[] {
  return [session.guest.region.fd];
}

function nowhere(): Uint8Array {
  return slot({ guest: 0, size: 4096, user: 0, offset: 0 });
}

function file(session: Session): number[] {
  return [session.own(openSync(fileURLToPath(import.meta.url), "r"))];
}

describe.skipIf(unsupported !== undefined)(titled("refused requests"), () => {
  const open = useSessions();

  test.each(bad)("$name: told where an answer is wanted", async ({ id, payload, fds, code }) => {
    const session = open();
    await session.features();
    expect(await session.tell(id, payload, fds?.(session))).not.toBe(0);
    expect(session.refused).toEqual([code]);
    // Nothing of it is left behind.
    await session.start();
    expect(session.device.state).toBe("attached");
  });

  test.each(bad)("$name: the end of the connection otherwise", async ({ id, payload, fds, code }) => {
    const session = open();
    await session.features();
    session.send(id, payload, fds?.(session));
    expect(await session.closed).toMatchObject({ code });
    expect(session.refused).toEqual([]);
    expect(session.repliesLeft).toBe(0);
  });

  test("with need_reply but without REPLY_ACK the connection ends too", async () => {
    const session = open();
    session.send(99, new Uint8Array(), [], 9);
    expect(await session.closed).toMatchObject({ code: "message-unknown" });
  });

  test.each(bad)(
    "$name, while the device runs: it goes on or is reset, and the process lives",
    async (each) => {
      const session = open();
      openEndpoint(session.device, 1030);
      await session.features();
      await session.start();
      expect(await session.tell(each.id, each.payload, each.fds?.(session))).not.toBe(0);
      await session.start((await session.stop()).map(Number));
      expect(session.device.state).toBe("attached");
    },
  );

  test.each([
    { name: "a reply", bytes: frame(1, new Uint8Array(8), 5), code: "reply-unexpected" },
    { name: "version 0", bytes: frame(1, new Uint8Array(), 0), code: "message-flags" },
    { name: "version 2", bytes: frame(1, new Uint8Array(), 2), code: "message-flags" },
    { name: "a size of 4097", bytes: frame(1, new Uint8Array(), 1, 4097), code: "message-size" },
    { name: "a size of 2^32 - 1", bytes: frame(1, new Uint8Array(), 1, 0xffff_ffff), code: "message-size" },
    { name: "4096 bytes of nothing", bytes: frame(3, new Uint8Array(4096)), code: "message-size" },
  ])("$name ends the connection", async ({ bytes, code }) => {
    const session = open();
    session.sendBytes(bytes);
    expect(await session.closed).toMatchObject({ code });
  });

  test("SET_VRING_ENABLE without F_PROTOCOL_FEATURES", async () => {
    const session = open();
    await session.features(0x1_8229, 0x1_0000_0001n);
    expect(await session.tell(request.SET_VRING_ENABLE, statePayload(0, 1))).not.toBe(0);
    expect(session.refused).toEqual(["feature-not-offered"]);
  });

  test("a refused kick leaves a ring that can be started with a good one", async () => {
    const session = open();
    const { received } = openEndpoint(session.device, 1030);
    await session.features();
    await session.start();
    expect(await session.tell(request.SET_VRING_KICK, fdPayload(1), file(session))).not.toBe(0);
    const kick = session.eventfd();
    expect(await session.tell(request.SET_VRING_KICK, fdPayload(1), [kick])).toBe(0);
    session.guest.offer(0x400, 1030, "hello");
    session.kick(kick);
    await turns();
    expect(texts(received)).toEqual(["hello"]);
  });

  test("a broken queue is told over the error descriptor", async () => {
    const session = open();
    await session.features();
    const error = session.eventfd();
    expect(await session.tell(request.SET_VRING_ERR, fdPayload(1), [error])).toBe(0);
    const { kicks } = await session.start();
    session.guest.request.add(0x7000_0000, 16, false);
    session.guest.request.publish();
    session.kick(kicks[1]);
    await turns();
    expect(drainEventfd(error)).toBe(1);
  });
});
