import { describe, expect, test } from "vitest";
import { createMemory } from "../../../rpmsg/posix/shared-memory.ts";
import { inflightPayload, request, statePayload, u64Payload } from "../../../rpmsg/vhost-user/messages.ts";
import { descriptorCount, memoryRanges, titled, unsupported } from "../posix/support.ts";
import { turns } from "../support/device-driver.ts";
import { openEndpoint, texts } from "../support/device-endpoints.ts";
import { fdPayload, frame, slot, table } from "../support/vhost-user-frames.ts";
import { GUEST_BASE, MEMORY_SIZE, USER_BASE, useSessions } from "../support/vhost-user-session.ts";

const WHOLE = { guest: GUEST_BASE, size: MEMORY_SIZE, user: USER_BASE, offset: 0 };
const PAGE = 4096;

/** Bugs of other vhost-user backends; those of rings are in test/rpmsg/virtqueue. */
describe.skipIf(unsupported !== undefined)(titled("bugs of other backends"), () => {
  const open = useSessions();

  describe("CVE-2018-1059: the span of a buffer or a ring is checked, not its start alone", () => {
    test.each([
      { name: "one byte over the end", from: MEMORY_SIZE - 100, length: 101 },
      { name: "4 GiB from inside", from: 0, length: 0xffff_ffff },
    ])("a buffer $name", async ({ from, length }) => {
      const session = open();
      const { received } = openEndpoint(session.device, 0);
      await session.features();
      const { kicks } = await session.start();
      session.guest.request.add(GUEST_BASE + from, length, false);
      session.guest.request.publish();
      session.kick(kicks[1]);
      await turns();
      expect(session.device.counters.brokenQueues).toBe(1);
      expect(received).toEqual([]);
    });

    test("a buffer over a gap between two regions", async () => {
      const session = open();
      await session.features();
      await session.start();
      const behind = { ...WHOLE, guest: GUEST_BASE + MEMORY_SIZE + PAGE, size: PAGE, user: 0 };
      expect(await session.tell(request.ADD_MEM_REG, slot(behind), [session.guest.region.fd])).toBe(0);
      session.guest.request.add(GUEST_BASE + MEMORY_SIZE - PAGE, 3 * PAGE, false);
      session.guest.request.publish();
      session.device.rescan();
      expect(session.device.counters.brokenQueues).toBe(1);
    });

    test.each([8, 16, 24])(
      "a ring whose part at byte %i of SET_VRING_ADDR begins in memory and ends outside",
      async (at) => {
        const session = open();
        await session.features();
        await session.start();
        const addresses = Buffer.from(session.addresses(1));
        addresses.writeBigUInt64LE(BigInt(USER_BASE + MEMORY_SIZE - 16), at);
        expect(await session.tell(request.SET_VRING_ADDR, addresses)).toBe(0);
        expect(await session.tell(request.SET_VRING_ENABLE, statePayload(1, 1))).not.toBe(0);
        expect(session.refused).toEqual(["ring-range"]);
      },
    );
  });

  describe("CVE-2019-14818 and CVE-2020-10726: no descriptor is left of extra ones and of repeated messages", () => {
    /** Each request with descriptors, as often as one likes; what it leaves behind is at most the latest. */
    const repeatable = [
      { id: request.SET_MEM_TABLE, payload: table([WHOLE]) },
      { id: request.SET_VRING_KICK, payload: fdPayload(0) },
      { id: request.SET_VRING_CALL, payload: fdPayload(0) },
      { id: request.SET_VRING_ERR, payload: fdPayload(0) },
      { id: request.SET_BACKEND_REQ_FD, payload: new Uint8Array() },
      { id: request.SET_LOG_BASE, payload: Buffer.concat([u64Payload(40_000n), u64Payload(0n)]) },
      { id: request.SET_LOG_FD, payload: new Uint8Array() },
      {
        id: request.SET_INFLIGHT_FD,
        payload: inflightPayload({ size: 640, offset: 0, queues: 2, entries: 16 }),
      },
      {
        id: request.GET_INFLIGHT_FD,
        payload: inflightPayload({ size: 0, offset: 0, queues: 2, entries: 16 }),
        none: true,
      },
    ];

    test.each(repeatable)("request $id 20 times", async ({ id, payload, none }) => {
      const session = open();
      await session.features();
      const isFd = id === request.SET_VRING_KICK;
      const fds = none === true ? [] : [isFd ? session.eventfd() : session.guest.region.fd];
      const counts: number[] = [];
      for (let i = 0; i < 20; i++) {
        session.send(id, payload, fds, 9);
        await session.reply();
        counts.push(descriptorCount());
      }
      expect(counts).toEqual(Array(20).fill(counts[0]));
    });

    test.each(repeatable)("request $id with one descriptor too many", async ({ id, payload, none }) => {
      const session = open();
      await session.features();
      const before = descriptorCount();
      const fd = session.guest.region.fd;
      for (let i = 0; i < 20; i++) {
        expect(await session.tell(id, payload, none === true ? [fd] : [fd, fd])).not.toBe(0);
      }
      expect(session.refused).toEqual(Array(20).fill("descriptor-count"));
      expect(descriptorCount()).toBe(before);
    });

    test("requests without descriptors that come with some", async () => {
      const session = open();
      await session.features();
      const before = descriptorCount();
      const { fd } = session.guest.region;
      for (const id of [
        request.GET_FEATURES,
        request.SET_VRING_NUM,
        request.SET_VRING_ENABLE,
        request.RESET_DEVICE,
      ]) {
        session.send(id, statePayload(0, 16), [fd, fd, fd], 9);
        await session.reply();
      }
      expect(descriptorCount()).toBe(before);
    });

    test("a memory table of which the last region cannot be mapped leaves no mapping of the first", async () => {
      const session = open();
      await session.features();
      const fd = session.own(createMemory("half-mapped", PAGE));
      const before = descriptorCount();
      const regions = [
        { guest: 0, size: PAGE, user: 0, offset: 0 },
        { guest: PAGE, size: 2 * PAGE, user: PAGE, offset: 0 },
      ];
      for (let i = 0; i < 20; i++)
        expect(await session.tell(request.SET_MEM_TABLE, table(regions), [fd, fd])).not.toBe(0);
      expect(descriptorCount()).toBe(before);
      expect(memoryRanges("half-mapped")).toEqual([]);
    });
  });

  describe("CVE-2020-10722: offset and size of a memory file are added without overflow", () => {
    test.each([
      { name: "2^64 - 4096 and 8192", offset: 2n ** 64n - 4096n, size: 8192n },
      { name: "2^63 and 2^63", offset: 2n ** 63n, size: 2n ** 63n },
      { name: "4096 and 2^64 - 4096", offset: 4096n, size: 2n ** 64n - 4096n },
      { name: "0 and 2^64 - 1", offset: 0n, size: 2n ** 64n - 1n },
    ])("$name", async ({ offset, size }) => {
      const session = open();
      await session.features();
      const { fd } = session.guest.region;
      const region = Buffer.from(slot(WHOLE));
      region.writeBigUInt64LE(size, 16);
      region.writeBigUInt64LE(offset, 32);
      expect(await session.tell(request.ADD_MEM_REG, region, [fd])).not.toBe(0);
      const log = Buffer.concat([u64Payload(size), u64Payload(offset)]);
      expect(await session.tell(request.SET_LOG_BASE, log, [fd])).not.toBe(0);
      const inflight = Buffer.from(inflightPayload({ size: 0, offset: 0, queues: 2, entries: 16 }));
      inflight.writeBigUInt64LE(size, 0);
      inflight.writeBigUInt64LE(offset, 8);
      expect(await session.tell(request.SET_INFLIGHT_FD, inflight, [fd])).not.toBe(0);
      await session.start();
      expect(session.device.state).toBe("attached");
    });
  });

  describe("CVE-2020-10723: the index of a queue is a u32 and is not cut to 16 bits or 8", () => {
    const ids = [
      request.SET_VRING_NUM,
      request.SET_VRING_BASE,
      request.GET_VRING_BASE,
      request.SET_VRING_ENABLE,
    ];
    test.each(
      ids.flatMap((id) =>
        [0x100, 0x1_0000, 0x1_0001, 0x8000_0001, 0xffff_ffff].map((index) => ({ id, index })),
      ),
    )("request $id of queue $index", async ({ id, index }) => {
      const session = open();
      await session.features();
      await session.start();
      expect(await session.tell(id, statePayload(index, 16))).not.toBe(0);
      expect(session.refused).toEqual(["ring-index"]);
      expect(session.device.state).toBe("attached");
    });

    test("SET_VRING_ADDR of queue 65537", async () => {
      const session = open();
      await session.features();
      const addresses = Buffer.from(session.addresses(1));
      addresses.writeUInt32LE(0x1_0001, 0);
      expect(await session.tell(request.SET_VRING_ADDR, addresses)).not.toBe(0);
      expect(session.refused).toEqual(["ring-index"]);
    });
  });

  describe("CVE-2021-3839: num_queues of an in-flight buffer is checked", () => {
    test.each([0, 3, 256, 0x8000, 0xffff])("%i queues", async (queues) => {
      const session = open();
      await session.features();
      await session.start();
      const wanted = inflightPayload({ size: 0xff_ffff, offset: 0, queues, entries: 16 });
      expect(await session.tell(request.GET_INFLIGHT_FD, wanted)).not.toBe(0);
      const fd = session.own(createMemory("inflight", 0x100_0000));
      expect(await session.tell(request.SET_INFLIGHT_FD, wanted, [fd])).not.toBe(0);
      expect(session.refused).toEqual(["inflight-queues", "inflight-queues"]);
      expect(session.device.state).toBe("attached");
    });

    test("a queue that is longer than its region does not start", async () => {
      const session = open();
      await session.features();
      const fd = session.own(createMemory("inflight", PAGE));
      const short = inflightPayload({ size: 384, offset: 0, queues: 2, entries: 8 });
      expect(await session.tell(request.SET_INFLIGHT_FD, short, [fd])).toBe(0);
      await expect(session.start()).rejects.toThrow();
      expect(session.refused).toEqual(["inflight-queues"]);
      expect(session.device.state).toBe("detached");
    });
  });

  test("CVE-2022-0669: descriptors of a message whose control data was cut off are not left open", async () => {
    for (const count of [65, 80, 81, 100, 200, 253]) {
      const session = open();
      await session.barrier();
      const before = descriptorCount();
      const fd = session.eventfd();
      session.send(
        request.SET_MEM_TABLE,
        new Uint8Array(8),
        Array.from({ length: count }, () => fd),
      );
      expect(await session.closed).toMatchObject({ code: "ancillary-truncated" });
      // The session's eventfd came, the backend's socket went.
      expect(descriptorCount()).toBe(before);
    }
  });

  test("GET_VRING_BASE of a queue that was never set up", async () => {
    const session = open();
    for (const queue of [0, 1]) {
      const reply = await session.ask(request.GET_VRING_BASE, statePayload(queue, 0));
      expect([reply.readUInt32LE(0), reply.readUInt32LE(4)]).toEqual([queue, 0]);
    }
    await session.features();
    await session.start();
    expect(session.device.state).toBe("attached");
  });

  test("ring addresses of before a reboot are not used after it", async () => {
    const session = open();
    const { received } = openEndpoint(session.device, 1030);
    await session.features();
    await session.start();
    session.guest.offer(0x400, 1030, "before");
    expect(await session.tell(request.RESET_DEVICE)).toBe(0);
    const rings = session.guest.rings.map(({ used }) => Buffer.from(session.guest.bytes(used, 134)));
    // The guest uses that memory for something else now.
    session.guest.offer(0x400, 1030, "no message any more");
    for (const queue of [0, 1]) {
      session.send(request.SET_VRING_KICK, fdPayload(queue), [session.eventfd()]);
      expect(await session.tell(request.SET_VRING_ENABLE, statePayload(queue, 1))).toBe(0);
    }
    await turns();
    session.device.rescan();
    expect([session.device.state, texts(received)]).toEqual(["detached", ["before"]]);
    expect(session.guest.rings.map(({ used }) => session.guest.bytes(used, 134))).toEqual(rings);
    // A frontend that says where they are has them taken.
    await session.start([0, 1]);
    expect(texts(received)).toEqual(["before", "no message any more"]);
  });

  test("a short header is not taken for a message", async () => {
    const session = open();
    const { device } = session;
    session.sendBytes(frame(request.RESET_DEVICE).subarray(0, 11));
    await turns();
    expect(session.repliesLeft).toBe(0);
    session.disconnect();
    expect(await session.closed).toMatchObject({ code: "message-truncated" });
    expect(device.generation).toBe(1);
  });
});
