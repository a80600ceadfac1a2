import { readSync } from "node:fs";
import { describe, expect, test } from "vitest";
import type { RpmsgDevice } from "../../../rpmsg/device.ts";
import { drainEventfd } from "../../../rpmsg/posix/eventfd.ts";
import { createMemory } from "../../../rpmsg/posix/shared-memory.ts";
import type { BackendSnapshot } from "../../../rpmsg/vhost-user/backend.ts";
import { inflightPayload, request, statePayload, u64Payload } from "../../../rpmsg/vhost-user/messages.ts";
import type { VringPairSnapshot } from "../../../rpmsg/vhost-user/vring-pair.ts";
import { descriptorCount, titled, unsupported } from "../posix/support.ts";
import { turns } from "../support/device-driver.ts";
import type { Received } from "../support/device-endpoints.ts";
import { openEndpoint, openSender, texts } from "../support/device-endpoints.ts";
import { fdPayload, frame, slot } from "../support/vhost-user-frames.ts";
import type { Session } from "../support/vhost-user-session.ts";
import { GUEST_BASE, MEMORY_SIZE, USER_BASE, useSessions } from "../support/vhost-user-session.ts";

const LOCAL = 1030;
const LOG_ALL = 1n << 26n;

/** Hands a session over to a device with an endpoint, which keeps what it gets. */
function handOver(session: Session): Received[] {
  let got: Received[] = [];
  session.handOver((device: RpmsgDevice) => {
    got = openEndpoint(device, LOCAL).received;
  });
  return got;
}

describe.skipIf(unsupported !== undefined)(titled("a backend that is handed over"), () => {
  const open = useSessions();

  test("goes on with the same rings and descriptors, and the driver notices nothing", async () => {
    const session = open();
    const { guest } = session;
    await session.features();
    const { kicks, calls } = await session.start();
    const error = session.eventfd();
    expect(await session.tell(request.SET_VRING_ERR, fdPayload(1), [error])).toBe(0);
    expect(await session.tell(request.SET_BACKEND_REQ_FD, new Uint8Array(), [session.eventfd()])).toBe(0);
    expect(await session.tell(request.SET_STATUS, u64Payload(15n))).toBe(0);
    for (let i = 0; i < 2; i++) guest.post(512);
    session.kick(kicks[0]);
    guest.offer(0x400, LOCAL, "to the first");
    session.kick(kicks[1]);
    await turns();
    for (const call of calls) drainEventfd(call);

    guest.offer(0x400, LOCAL, "between the two");
    const received = handOver(session);
    expect(texts(received)).toEqual(["between the two"]);
    expect(session.device).toMatchObject({ state: "attached", generation: 1 });
    guest.offer(0x400, LOCAL, "to the second");
    session.kick(kicks[1]);
    await turns();
    expect(texts(received)).toEqual(["between the two", "to the second"]);
    const sender = openSender(session.device, openEndpoint(session.device, 1031).endpoint, { peer: 0x400 });
    expect(sender.send("back")).toBe("sent");
    await turns();
    expect(guest.receiveAll().map(({ payload }) => payload.toString())).toEqual(["back"]);
    expect(drainEventfd(calls[0] ?? -1)).toBe(1);
    expect((await session.ask(request.GET_STATUS)).readBigUInt64LE()).toBe(15n);
    // Broken, which is told where the first one was told to tell it.
    guest.bytes(guest.rings[1].available, 4).writeUInt16LE(1000, 2);
    session.kick(kicks[1]);
    await turns();
    expect(drainEventfd(error)).toBe(1);
    expect(await session.stop()).toEqual([1, 3]);
  });

  test.each(Array.from({ length: 20 }, (_, i) => i))(
    "after %i bytes of a message with a descriptor: the rest makes it whole",
    async (cut) => {
      const session = open();
      await session.features();
      const { kicks } = await session.start();
      const kick = session.eventfd();
      const message = frame(request.SET_VRING_KICK, fdPayload(1), 9);
      if (cut > 0) session.sendBytes(message.subarray(0, cut), [kick]);
      await turns(2);
      const received = handOver(session);
      if (cut < message.length) session.sendBytes(message.subarray(cut), cut === 0 ? [kick] : []);
      expect((await session.reply()).payload.readBigUInt64LE()).toBe(0n);
      session.guest.offer(0x400, LOCAL, "hello");
      session.kick(kicks[1]);
      await turns();
      expect(received).toEqual([]);
      session.kick(kick);
      await turns();
      expect(texts(received)).toEqual(["hello"]);
    },
  );

  test("sends the replies that its frontend had not taken, once and in order", async () => {
    const session = open();
    await session.features();
    session.stopReading();
    const asked = 1500;
    for (let i = 0; i < asked; i++) {
      // Tells the replies apart: a configuration of this many bytes at this place there is not.
      session.send(request.GET_CONFIG, Buffer.concat([statePayload(i, 300), new Uint8Array(4)]));
      if (i % 50 === 49) await turns(3);
    }
    await turns(50);
    expect(session.backend.snapshot().connection.unsent.length).toBeGreaterThan(10);
    handOver(session);
    session.readAgain();
    for (let i = 0; i < asked; i++) expect((await session.reply()).payload.readUInt32LE(0)).toBe(i);
    expect(session.backend.snapshot().connection.unsent).toEqual([]);
    await session.barrier();
    expect(session.repliesLeft).toBe(0);
  });

  test("before it was told anything, and again later", async () => {
    const session = open();
    handOver(session);
    await session.features();
    handOver(session);
    const { kicks } = await session.start();
    const received = handOver(session);
    session.guest.offer(0x400, LOCAL, "hello");
    session.kick(kicks[1]);
    await turns();
    expect(texts(received)).toEqual(["hello"]);
  });

  test("while it is suspended: it goes on where it stood", async () => {
    const session = open();
    await session.features();
    const { kicks } = await session.start();
    session.guest.offer(0x400, LOCAL, "before");
    session.kick(kicks[1]);
    await turns();
    const bases = await session.stop();
    expect(bases).toEqual([0, 1]);
    const received = handOver(session);
    expect(session.device.state).toBe("suspended");
    session.guest.offer(0x400, LOCAL, "meanwhile");
    await session.start(bases);
    await turns();
    expect(texts(received)).toEqual(["meanwhile"]);
    expect(session.device.generation).toBe(1);
  });

  test("while its rings have no memory: it runs when they have", async () => {
    const session = open();
    await session.features();
    const { kicks } = await session.start();
    session.guest.offer(0x400, LOCAL, "before");
    session.kick(kicks[1]);
    await turns();
    const region = slot({ guest: GUEST_BASE, size: MEMORY_SIZE, user: USER_BASE, offset: 0 });
    const other = slot({ guest: 0, size: 4096, user: 0, offset: 0 });
    expect(await session.tell(request.ADD_MEM_REG, other, [session.guest.region.fd])).toBe(0);
    expect(await session.tell(request.REM_MEM_REG, region)).toBe(0);
    const received = handOver(session);
    // With other memory it does not try to run.
    expect(await session.tell(request.SET_VRING_ENABLE, statePayload(0, 1))).toBe(0);
    session.guest.offer(0x400, LOCAL, "hello");
    await turns();
    expect(received).toEqual([]);
    expect(await session.tell(request.ADD_MEM_REG, region, [session.guest.region.fd])).toBe(0);
    session.device.rescan();
    expect(texts(received)).toEqual(["hello"]);
    expect(session.device.generation).toBe(1);
  });

  // What is taken is as different as when it fails: nothing, the memory, the log too, all but the kicks.
  const beyond = 2 ** 40;
  const changed = (state: BackendSnapshot, vrings: Partial<VringPairSnapshot>): BackendSnapshot => ({
    ...state,
    vrings: { ...state.vrings, ...vrings },
  });
  test.each<[string, string, (state: BackendSnapshot) => BackendSnapshot]>([
    [
      "memory beyond its file",
      "memory-range",
      (state) =>
        changed(state, { memory: state.vrings.memory.map((each) => ({ ...each, fileOffset: beyond })) }),
    ],
    [
      "memory that overlaps",
      "memory-overlap",
      (state) => changed(state, { memory: [...state.vrings.memory, ...state.vrings.memory] }),
    ],
    [
      "a log beyond its file",
      "memory-range",
      (state) => {
        const { file, notify } = state.vrings.log;
        return changed(state, { log: { file: file && { ...file, fileOffset: beyond }, notify } });
      },
    ],
    [
      "chains in flight beyond their file",
      "memory-range",
      (state) => {
        const { inflight } = state.vrings;
        return changed(state, { inflight: inflight && { ...inflight, size: beyond } });
      },
    ],
    [
      "a kick that cannot be waited for",
      "socket",
      (state) => {
        const [response, requestRing] = state.vrings.vrings;
        const [memory] = state.vrings.memory;
        return changed(state, { vrings: [response, { ...requestRing, kick: memory?.fd }] });
      },
    ],
  ])(
    "to one that cannot take %s: that one keeps no descriptor, and this one goes on",
    async (_, code, spoil) => {
      const session = open();
      await session.features();
      const { kicks } = await session.start();
      const size = (GUEST_BASE + MEMORY_SIZE) / 4096 / 8;
      await session.tell(request.SET_LOG_FD, new Uint8Array(), [session.eventfd()]);
      const log = Buffer.concat([u64Payload(BigInt(size)), u64Payload(0n)]);
      await session.ask(request.SET_LOG_BASE, log, [session.own(createMemory("log", size))]);
      const description = inflightPayload({ size: 640, offset: 0, queues: 2, entries: 16 });
      await session.tell(request.SET_INFLIGHT_FD, description, [session.own(createMemory("inflight", 640))]);
      await session.tell(request.SET_VRING_ERR, fdPayload(1), [session.eventfd()]);
      await session.tell(request.SET_BACKEND_REQ_FD, new Uint8Array(), [session.eventfd()]);
      const { received } = openEndpoint(session.device, LOCAL);
      // Half of a message, with its descriptor.
      const half = frame(request.SET_VRING_KICK, fdPayload(0), 9);
      session.sendBytes(half.subarray(0, 5), [session.eventfd()]);
      await turns();
      const before = descriptorCount();
      expect(session.failToHandOver(spoil)).toMatchObject({ code });
      expect(descriptorCount()).toBe(before);
      session.sendBytes(half.subarray(5));
      expect((await session.reply()).payload.readBigUInt64LE()).toBe(0n);
      session.guest.offer(0x400, LOCAL, "hello");
      session.kick(kicks[1]);
      await turns();
      expect(texts(received)).toEqual(["hello"]);
    },
  );

  test("with a ring that is polled", async () => {
    const session = open();
    await session.features();
    await session.start();
    expect(await session.tell(request.SET_VRING_KICK, fdPayload(1, true))).toBe(0);
    const arrived = new Promise<string>((resolve) => {
      session.handOver((device) => {
        device.createEndpoint((_src, bytes, offset, length) => {
          resolve(Buffer.from(bytes.subarray(offset, offset + length)).toString());
        }, LOCAL);
      });
    });
    session.guest.offer(0x400, LOCAL, "polled");
    expect(await arrived).toBe("polled");
  });

  test("in a migration: what it writes is logged in the same file, and told to the same descriptor", async () => {
    const session = open();
    await session.features();
    const { kicks } = await session.start();
    const size = (GUEST_BASE + MEMORY_SIZE) / 4096 / 8;
    const log = session.own(createMemory("log", size));
    const notify = session.eventfd();
    await session.tell(request.SET_LOG_FD, new Uint8Array(), [notify]);
    const base = Buffer.concat([u64Payload(BigInt(size)), u64Payload(0n)]);
    expect((await session.ask(request.SET_LOG_BASE, base, [log])).readBigUInt64LE()).toBe(0n);
    expect(await session.tell(request.SET_FEATURES, u64Payload(0x1_7000_0001n | LOG_ALL))).toBe(0);
    handOver(session);
    const address = session.guest.allocate(512);
    session.guest.postAt({ address, length: 512 });
    session.kick(kicks[0]);
    const sender = openSender(session.device, openEndpoint(session.device, 1031).endpoint, { peer: 0x400 });
    await turns();
    drainEventfd(notify);
    expect(sender.send("logged")).toBe("sent");
    await turns();
    const bytes = Buffer.alloc(size);
    readSync(log, bytes, 0, size, 0);
    const page = Math.floor(address / 4096);
    expect((bytes[page >> 3] ?? 0) & (1 << (page & 7))).not.toBe(0);
    expect(drainEventfd(notify)).toBe(1);
  });

  test("with chains in flight: they are marked in the same file", async () => {
    const session = open();
    await session.features();
    // Two queues of 16 entries, each with 320 bytes.
    const description = inflightPayload({ size: 640, offset: 0, queues: 2, entries: 16 });
    const file = session.own(createMemory("inflight", 640));
    expect(await session.tell(request.SET_INFLIGHT_FD, description, [file])).toBe(0);
    const { kicks } = await session.start();
    handOver(session);
    session.guest.offer(0x400, LOCAL, "hello");
    const before = Buffer.alloc(640);
    readSync(file, before, 0, 640, 0);
    session.kick(kicks[1]);
    await turns();
    const after = Buffer.alloc(640);
    readSync(file, after, 0, 640, 0);
    expect(after.equals(before)).toBe(false);
    // The used index of the second queue: virtio vhost-user.rst, struct QueueRegionSplit, used_idx at 14.
    expect(after.readUInt16LE(320 + 14)).toBe(1);
  });
});
