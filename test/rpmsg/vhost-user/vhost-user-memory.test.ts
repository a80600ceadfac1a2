import { ftruncateSync, openSync, unlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { libc } from "../../../rpmsg/posix/libc.ts";
import { createMemory } from "../../../rpmsg/posix/shared-memory.ts";
import { inflightPayload, request, statePayload, u64Payload } from "../../../rpmsg/vhost-user/messages.ts";
import { titled, unsupported } from "../posix/support.ts";
import { turns } from "../support/device-driver.ts";
import { openEndpoint, texts } from "../support/device-endpoints.ts";
import { slot, table } from "../support/vhost-user-frames.ts";
import { GUEST_BASE, MEMORY_SIZE, USER_BASE, useSessions } from "../support/vhost-user-session.ts";

const WHOLE = { guest: GUEST_BASE, size: MEMORY_SIZE, user: USER_BASE, offset: 0 };
const PAGE = 4096;

/** A memfd without MFD_ALLOW_SEALING. */
function unsealable(size: number): number {
  const fd = libc().memfd_create("unsealable", 1);
  ftruncateSync(fd, size);
  return fd;
}

function directoryFile(size: number): number {
  const path = join(tmpdir(), `rpmsg-unsealed-${process.pid}`);
  const fd = openSync(path, "w+");
  unlinkSync(path);
  ftruncateSync(fd, size);
  return fd;
}

describe.skipIf(unsupported !== undefined)(titled("vhost-user memory"), () => {
  const open = useSessions();

  describe("a region is refused", () => {
    const tooBig = 2 ** 53;
    test.each([
      { name: "longer than its file", region: { ...WHOLE, size: MEMORY_SIZE + PAGE } },
      { name: "beyond the end of its file", region: { ...WHOLE, offset: MEMORY_SIZE } },
      { name: "empty", region: { ...WHOLE, size: 0 } },
      { name: "at an offset that overflows", region: { ...WHOLE, size: PAGE, offset: tooBig - PAGE } },
      { name: "at an unaligned offset", region: { ...WHOLE, size: PAGE, offset: 100 } },
      { name: "at a guest address that overflows", region: { ...WHOLE, guest: tooBig - PAGE } },
      { name: "at a user address that overflows", region: { ...WHOLE, user: tooBig - PAGE } },
      { name: "of 2^53 bytes", region: { ...WHOLE, size: tooBig } },
    ])("$name", async ({ region }) => {
      const session = open();
      await session.features();
      const { fd } = session.guest.region;
      expect(await session.tell(request.SET_MEM_TABLE, table([region]), [fd])).not.toBe(0);
      expect(await session.tell(request.ADD_MEM_REG, slot(region), [fd])).not.toBe(0);
      expect(session.refused).toHaveLength(2);
      // The connection is as good as before.
      await session.start();
      expect(session.device.state).toBe("attached");
    });

    test.each([
      {
        name: "the same guest addresses",
        other: { guest: GUEST_BASE + PAGE, user: USER_BASE + 2 * MEMORY_SIZE },
      },
      {
        name: "the same user addresses",
        other: { guest: GUEST_BASE + 2 * MEMORY_SIZE, user: USER_BASE - PAGE },
      },
    ])("with $name as another", async ({ other }) => {
      const session = open();
      await session.features();
      const { fd } = session.guest.region;
      const second = { ...other, size: 2 * PAGE, offset: 0 };
      expect(await session.tell(request.SET_MEM_TABLE, table([WHOLE, second]), [fd, fd])).not.toBe(0);
      expect(await session.tell(request.ADD_MEM_REG, slot(WHOLE), [fd])).toBe(0);
      expect(await session.tell(request.ADD_MEM_REG, slot(second), [fd])).not.toBe(0);
      expect(session.refused).toEqual(["memory-overlap", "memory-overlap"]);
    });

    test("in a file that is none of memory", async () => {
      const session = open();
      await session.features();
      const fd = session.eventfd();
      expect(await session.tell(request.SET_MEM_TABLE, table([WHOLE]), [fd])).not.toBe(0);
    });
  });

  test.each([
    { name: "fewer descriptors than regions", regions: 2, fds: 1 },
    { name: "more descriptors than regions", regions: 1, fds: 2 },
    { name: "no descriptor", regions: 1, fds: 0 },
    { name: "nine regions", regions: 9, fds: 9 },
  ])("a table with $name is refused", async ({ regions, fds }) => {
    const session = open();
    await session.features();
    const all = Array.from({ length: regions }, (_, i) => ({
      guest: GUEST_BASE + i * PAGE,
      size: PAGE,
      user: USER_BASE + i * PAGE,
      offset: 0,
    }));
    const descriptors = Array.from({ length: fds }, () => session.guest.region.fd);
    expect(await session.tell(request.SET_MEM_TABLE, table(all), descriptors)).not.toBe(0);
    expect(session.refused).toHaveLength(1);
  });

  test("a count of regions that the payload does not hold is refused", async () => {
    const session = open();
    await session.features();
    const payload = table([WHOLE]);
    payload.writeUInt32LE(2, 0);
    const { fd } = session.guest.region;
    expect(await session.tell(request.SET_MEM_TABLE, payload, [fd, fd])).not.toBe(0);
    payload.writeUInt32LE(0xffff_ffff, 0);
    expect(await session.tell(request.SET_MEM_TABLE, payload, [fd])).not.toBe(0);
  });

  test("eight regions, each with its file", async () => {
    const session = open();
    await session.features();
    const fds = Array.from({ length: 8 }, () => session.own(createMemory("eighth", PAGE)));
    const regions = fds.map((_, i) => ({
      guest: i * PAGE,
      size: PAGE,
      user: USER_BASE + i * PAGE,
      offset: 0,
    }));
    expect(await session.tell(request.SET_MEM_TABLE, table(regions), fds)).toBe(0);
    expect(await session.tell(request.SET_MEM_TABLE, ...session.memoryTable())).toBe(0);
  });

  test.each([
    { name: "a memfd that may not be sealed", make: () => unsealable(3 * PAGE), told: 1 },
    { name: "a file of a directory", make: () => directoryFile(3 * PAGE), told: 1 },
    { name: "a memfd that is sealed on arrival", make: () => createMemory("sealed", 3 * PAGE), told: 0 },
  ])("$name is taken; that it can be truncated is told once", async ({ make, told }) => {
    const session = open();
    await session.features();
    const fd = session.own(make());
    const page = (i: number) =>
      slot({ guest: i * PAGE, size: PAGE, user: USER_BASE + i * PAGE, offset: i * PAGE });
    for (let i = 0; i < 3; i++) expect(await session.tell(request.ADD_MEM_REG, page(i), [fd])).toBe(0);
    const all = table([{ guest: 0, size: 3 * PAGE, user: USER_BASE, offset: 0 }]);
    expect(await session.tell(request.SET_MEM_TABLE, all, [fd])).toBe(0);
    expect(session.unsealed).toBe(told);
  });

  test.each([
    {
      name: "a migration's log",
      id: request.SET_LOG_BASE,
      payload: Buffer.concat([u64Payload(BigInt(10 * PAGE)), u64Payload(0n)]),
    },
    {
      name: "an in-flight buffer",
      id: request.SET_INFLIGHT_FD,
      payload: inflightPayload({ size: PAGE, offset: 0, queues: 2, entries: 16 }),
    },
  ])("$name that can be truncated is told of, too", async ({ id, payload }) => {
    for (const [make, told] of [
      [() => unsealable(10 * PAGE), 1],
      [() => createMemory("sealed", 10 * PAGE), 0],
    ] as const) {
      const session = open();
      await session.features();
      expect(await session.tell(id, payload, [session.own(make())])).toBe(0);
      expect([session.refused, session.unsealed]).toEqual([[], told]);
    }
  });

  test("64 memory slots and no more", async () => {
    const session = open();
    await session.features();
    expect((await session.ask(request.GET_MAX_MEM_SLOTS)).readBigUInt64LE()).toBe(64n);
    const { fd } = session.guest.region;
    const nth = (i: number) =>
      slot({ guest: i * PAGE, size: PAGE, user: USER_BASE + i * PAGE, offset: i * PAGE });
    for (let i = 0; i < 64; i++) expect(await session.tell(request.ADD_MEM_REG, nth(i), [fd])).toBe(0);
    expect(await session.tell(request.ADD_MEM_REG, nth(64), [fd])).not.toBe(0);
    expect(await session.tell(request.REM_MEM_REG, nth(7))).toBe(0);
    expect(await session.tell(request.ADD_MEM_REG, nth(64), [fd])).toBe(0);
    expect(session.refused).toEqual(["memory-limit"]);
  });

  test("REM_MEM_REG closes a descriptor that comes with it, and refuses the unknown", async () => {
    const session = open();
    await session.features();
    const { fd } = session.guest.region;
    expect(await session.tell(request.ADD_MEM_REG, slot(WHOLE))).not.toBe(0);
    expect(await session.tell(request.ADD_MEM_REG, slot(WHOLE), [fd])).toBe(0);
    expect(await session.tell(request.REM_MEM_REG, slot({ ...WHOLE, size: PAGE }))).not.toBe(0);
    expect(await session.tell(request.REM_MEM_REG, slot(WHOLE), [fd])).toBe(0);
    expect(await session.tell(request.REM_MEM_REG, slot(WHOLE))).not.toBe(0);
  });

  test("rings outside memory: ENABLE is refused, and works when they are inside", async () => {
    const session = open();
    await session.features();
    const half = { ...WHOLE, size: PAGE };
    expect(await session.tell(request.SET_MEM_TABLE, table([half]), [session.guest.region.fd])).toBe(0);
    for (const queue of [0, 1] as const) {
      session.send(request.SET_VRING_NUM, statePayload(queue, 16));
      const addresses = Buffer.from(session.addresses(queue));
      addresses.writeBigUInt64LE(BigInt(USER_BASE + MEMORY_SIZE), 8);
      session.send(request.SET_VRING_ADDR, addresses);
      session.send(request.SET_VRING_KICK, Uint8Array.of(queue, 0, 0, 0, 0, 0, 0, 0), [session.eventfd()]);
    }
    expect(await session.tell(request.SET_VRING_ENABLE, statePayload(0, 1))).toBe(0);
    expect(await session.tell(request.SET_VRING_ENABLE, statePayload(1, 1))).not.toBe(0);
    expect(session.refused).toEqual(["ring-range"]);
    expect(session.device.state).toBe("detached");
    await session.start();
    expect(session.device.state).toBe("attached");
  });

  describe("SET_MEM_TABLE while the device runs", () => {
    test("the same memory mapped anew goes on where it was", async () => {
      const session = open();
      const { received } = openEndpoint(session.device, 1030);
      await session.features();
      const { kicks } = await session.start();
      session.guest.offer(0x400, 1030, "one");
      session.kick(kicks[1]);
      await turns();
      expect(await session.tell(request.SET_MEM_TABLE, ...session.memoryTable())).toBe(0);
      session.guest.offer(0x400, 1030, "two");
      session.kick(kicks[1]);
      await turns();
      expect(texts(received)).toEqual(["one", "two"]);
      expect(session.device.generation).toBe(1);
    });

    test.each([
      { name: "a table without the rings", bad: table([{ ...WHOLE, user: 0 }]), count: 1, refused: false },
      { name: "an empty table", bad: table([]), count: 0, refused: false },
      { name: "a bad table", bad: table([{ ...WHOLE, size: 2 * MEMORY_SIZE }]), count: 1, refused: true },
    ])("$name stops the device, which goes on once its rings are back", async ({ bad, count, refused }) => {
      const session = open();
      const { received } = openEndpoint(session.device, 1030);
      await session.features();
      const { kicks } = await session.start();
      session.guest.offer(0x400, 1030, "before");
      const fds = [session.guest.region.fd].slice(0, count);
      expect((await session.tell(request.SET_MEM_TABLE, bad, fds)) !== 0).toBe(refused);
      expect([session.device.state, session.device.generation]).toEqual(["suspended", 1]);
      expect(texts(received)).toEqual(["before"]);
      session.guest.offer(0x400, 1030, "meanwhile");
      session.kick(kicks[1]);
      await turns();
      expect(received).toHaveLength(1);
      expect(await session.tell(request.SET_MEM_TABLE, ...session.memoryTable())).toBe(0);
      await turns();
      expect([session.device.state, session.device.generation]).toEqual(["attached", 1]);
      expect(texts(received)).toEqual(["before", "meanwhile"]);
    });

    test.each([
      { name: "stopped in between", stops: true },
      { name: "not stopped", stops: false },
    ])("rings that come back elsewhere run there: $name", async ({ stops }) => {
      const session = open();
      const { received } = openEndpoint(session.device, 1030);
      await session.features();
      await session.start();
      // The same memory, at another user address: the rings are not where they were.
      const moved = table([{ ...WHOLE, user: 0 }]);
      expect(await session.tell(request.SET_MEM_TABLE, moved, [session.guest.region.fd])).toBe(0);
      expect(session.device.state).toBe("suspended");
      for (const queue of [0, 1] as const) {
        if (stops) await session.ask(request.GET_VRING_BASE, statePayload(queue, 0));
        const addresses = Buffer.from(session.addresses(queue));
        for (const at of [8, 16, 24]) {
          addresses.writeBigUInt64LE(addresses.readBigUInt64LE(at) - BigInt(USER_BASE), at);
        }
        session.send(request.SET_VRING_ADDR, addresses);
      }
      session.guest.offer(0x400, 1030, "here");
      for (const queue of [0, 1]) {
        session.send(request.SET_VRING_KICK, Uint8Array.of(queue, 0, 0, 0, 0, 0, 0, 0), [session.eventfd()]);
        expect(await session.tell(request.SET_VRING_ENABLE, statePayload(queue, 1))).toBe(0);
      }
      await turns();
      expect(session.device.state).toBe("attached");
      expect(texts(received)).toEqual(["here"]);
    });

    test("taking the region of the rings out and putting it back is a pause", async () => {
      const session = open();
      const { received } = openEndpoint(session.device, 1030);
      await session.features();
      const { kicks } = await session.start();
      session.guest.offer(0x400, 1030, "before");
      expect(await session.tell(request.REM_MEM_REG, slot(WHOLE))).toBe(0);
      expect(session.device.state).toBe("suspended");
      expect(await session.tell(request.ADD_MEM_REG, slot(WHOLE), [session.guest.region.fd])).toBe(0);
      expect([session.device.state, session.device.generation]).toEqual(["attached", 1]);
      session.guest.offer(0x400, 1030, "after");
      session.kick(kicks[1]);
      await turns();
      expect(texts(received)).toEqual(["before", "after"]);
    });

    test("removing a region with buffers in use costs the guest its queue, not the process", async () => {
      const session = open();
      await session.features();
      const other = { guest: GUEST_BASE + MEMORY_SIZE, size: PAGE, user: USER_BASE + MEMORY_SIZE, offset: 0 };
      const fd = session.own(createMemory("other", PAGE));
      const { kicks } = await session.start();
      expect(await session.tell(request.ADD_MEM_REG, slot(other), [fd])).toBe(0);
      session.guest.request.add(other.guest, 16, false);
      session.guest.request.publish();
      session.kick(kicks[1]);
      await turns();
      expect(session.device.counters.unknownAddress).toBe(1);
      expect(await session.tell(request.REM_MEM_REG, slot(other))).toBe(0);
      session.guest.request.add(other.guest, 16, false);
      session.guest.request.publish();
      session.kick(kicks[1]);
      await turns();
      expect(session.device.counters.brokenQueues).toBe(1);
      expect(session.isClosed).toBe(false);
    });
  });
});
