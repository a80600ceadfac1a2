import { describe, expect, test } from "vitest";
import { drainEventfd } from "../../../rpmsg/posix/eventfd.ts";
import { request, statePayload, u64Payload } from "../../../rpmsg/vhost-user/messages.ts";
import { titled, unsupported } from "../posix/support.ts";
import { openEndpoint, openSender, texts, turns } from "../support/device-driver.ts";
import { fdPayload, useSessions } from "../support/vhost-user-session.ts";

function configRequest(offset: number, size: number, flags = 0): Buffer {
  const payload = Buffer.alloc(12 + Math.min(size, 256));
  payload.writeUInt32LE(offset, 0);
  payload.writeUInt32LE(size, 4);
  payload.writeUInt32LE(flags, 8);
  return payload;
}

describe.skipIf(unsupported !== undefined)(titled("vhost-user state"), () => {
  const open = useSessions();

  describe("GET_CONFIG", () => {
    const bufferSizes = { txBufferSize: 0x0102_0304, rxBufferSize: 512 };
    // u8 version 1; u16 size 11; u32 tx; u32 rx
    const space = Buffer.from([1, 11, 0, 0x04, 0x03, 0x02, 0x01, 0x00, 0x02, 0x00, 0x00]);

    test("with F_BUFSZ: the space, whole and in pieces", async () => {
      const session = open({ backend: { bufferSizes } });
      expect((await session.barrier()) & 2n).toBe(2n);
      await session.features(undefined, 0x1_4000_0003n);
      for (const [offset, size] of [
        [0, 11],
        [3, 4],
        [10, 1],
        [11, 0],
      ] as const) {
        const reply = await session.ask(request.GET_CONFIG, configRequest(offset, size, 1));
        expect([reply.readUInt32LE(0), reply.readUInt32LE(4), reply.readUInt32LE(8)]).toEqual([
          offset,
          size,
          1,
        ]);
        expect(reply.subarray(12)).toEqual(space.subarray(offset, offset + size));
      }
    });

    test.each([
      [0, 12],
      [1, 11],
      [11, 1],
      [0xffff_ffff, 1],
      [0xffff_fff5, 11],
      [0, 0xffff_ffff],
    ])("beyond the space, %i and %i bytes: an answer without bytes", async (offset, size) => {
      const session = open({ backend: { bufferSizes } });
      const reply = await session.ask(request.GET_CONFIG, configRequest(offset, size));
      expect([reply.length, reply.readUInt32LE(4)]).toEqual([12, 0]);
    });

    test("without F_BUFSZ there is no space", async () => {
      const session = open();
      expect((await session.barrier()) & 2n).toBe(0n);
      const reply = await session.ask(request.GET_CONFIG, configRequest(0, 11));
      expect([reply.length, reply.readUInt32LE(4)]).toEqual([12, 0]);
    });

    test("SET_CONFIG changes nothing", async () => {
      const session = open({ backend: { bufferSizes } });
      await session.features();
      expect(await session.tell(request.SET_CONFIG, configRequest(0, 11))).not.toBe(0);
      const reply = await session.ask(request.GET_CONFIG, configRequest(0, 11));
      expect(reply.subarray(12)).toEqual(space);
    });
  });

  describe.each([
    { name: "RESET_DEVICE", id: request.RESET_DEVICE, payload: new Uint8Array() },
    { name: "SET_STATUS 0", id: request.SET_STATUS, payload: u64Payload(0n) },
  ])("$name", ({ id, payload }) => {
    test("is a reset: what was published is taken, the generation grows, and the device starts anew", async () => {
      const session = open();
      const { received } = openEndpoint(session.device, 1030);
      await session.features();
      expect(await session.tell(request.SET_STATUS, u64Payload(15n))).toBe(0);
      const { kicks } = await session.start();
      session.guest.offer(0x400, 1030, "taken");
      expect(await session.tell(id, payload)).toBe(0);
      expect(texts(received)).toEqual(["taken"]);
      expect([session.device.state, session.device.generation]).toEqual(["detached", 2]);
      expect((await session.ask(request.GET_STATUS)).readBigUInt64LE()).toBe(0n);
      session.guest.offer(0x400, 1030, "for nobody yet");
      session.kick(kicks[1]);
      await turns();
      expect(received).toHaveLength(1);
      expect((await session.ask(request.GET_VRING_BASE, statePayload(1, 0))).readUInt32LE(4)).toBe(0);
      await session.start([0, 1]);
      await turns();
      expect(texts(received)).toEqual(["taken", "for nobody yet"]);
    });

    test("before anything was set up", async () => {
      const session = open();
      await session.features();
      expect(await session.tell(id, payload)).toBe(0);
      expect(session.device.generation).toBe(1);
      await session.start();
      expect(session.device.generation).toBe(1);
    });

    test("keeps the call descriptors, which QEMU passes only once", async () => {
      const session = open();
      await session.features();
      const { calls } = await session.start();
      expect(await session.tell(id, payload)).toBe(0);
      expect(await session.tell(request.SET_VRING_CALL, fdPayload(0), calls.slice(0, 1))).toBe(0);
      expect(session.isClosed).toBe(false);
    });
  });

  test("the status is kept and is no condition for anything", async () => {
    const session = open();
    await session.features();
    await session.start();
    expect(await session.tell(request.SET_STATUS, u64Payload(0x1_0fn))).toBe(0);
    expect((await session.ask(request.GET_STATUS)).readBigUInt64LE()).toBe(15n);
    expect(session.device.state).toBe("attached");
  });

  test("GET_VRING_BASE on a queue that was never set up", async () => {
    const session = open();
    const reply = await session.ask(request.GET_VRING_BASE, statePayload(1, 0));
    expect([reply.readUInt32LE(0), reply.readUInt32LE(4)]).toEqual([1, 0]);
    await session.features();
    await session.start();
    expect(session.device.state).toBe("attached");
  });

  test("GET_VRING_BASE gives back the base that was set, and stops both", async () => {
    const session = open();
    session.send(request.SET_VRING_BASE, statePayload(0, 0xfffe));
    const reply = await session.ask(request.GET_VRING_BASE, statePayload(0, 0));
    expect(reply.readUInt32LE(4)).toBe(0xfffe);
    await session.features();
    await session.start([0, 0]);
    await session.ask(request.GET_VRING_BASE, statePayload(0, 0));
    expect(session.device.state).toBe("suspended");
  });

  test("one ring disabled and enabled again is a pause", async () => {
    const session = open();
    const { endpoint, received } = openEndpoint(session.device, 1030);
    await session.features();
    const { kicks } = await session.start();
    session.guest.post(512);
    session.kick(kicks[0]);
    session.guest.offer(0x400, 1030, "one");
    session.kick(kicks[1]);
    await turns();
    expect(await session.tell(request.SET_VRING_ENABLE, statePayload(0, 0))).toBe(0);
    expect(session.device.state).toBe("suspended");
    expect(openSender(session.device, endpoint).send("waits")).toBe("queued");
    session.guest.offer(0x400, 1030, "two");
    session.kick(kicks[1]);
    await turns();
    expect(texts(received)).toEqual(["one"]);
    expect(session.guest.receive()).toBeUndefined();
    expect(await session.tell(request.SET_VRING_ENABLE, statePayload(0, 1))).toBe(0);
    await turns();
    expect(texts(received)).toEqual(["one", "two"]);
    expect(session.guest.receive()?.payload.toString()).toBe("waits");
    expect(session.device.generation).toBe(1);
  });

  test("without F_PROTOCOL_FEATURES rings are enabled by SET_FEATURES", async () => {
    const session = open();
    const { received } = openEndpoint(session.device, 1030);
    session.send(request.SET_FEATURES, u64Payload(0x1_0000_0001n));
    session.send(request.SET_MEM_TABLE, ...session.memoryTable());
    for (const queue of [0, 1] as const) {
      session.send(request.SET_VRING_NUM, statePayload(queue, 16));
      session.send(request.SET_VRING_ADDR, session.addresses(queue));
      session.send(request.SET_VRING_KICK, fdPayload(queue), [session.eventfd()]);
    }
    session.guest.offer(0x400, 1030, "hello");
    await session.barrier();
    await turns();
    expect(session.device.state).toBe("attached");
    expect(texts(received)).toEqual(["hello"]);
  });

  test("a new call descriptor is called at once, and the ring is looked at for lost kicks", async () => {
    const session = open();
    const { received } = openEndpoint(session.device, 1030);
    await session.features();
    const { calls } = await session.start();
    await turns();
    session.guest.offer(0x400, 1030, "its kick is lost");
    const call = session.eventfd();
    drainEventfd(calls[1] ?? -1);
    expect(await session.tell(request.SET_VRING_CALL, fdPayload(1), [call])).toBe(0);
    expect(texts(received)).toEqual(["its kick is lost"]);
    expect(drainEventfd(call)).toBe(1);
    expect(drainEventfd(calls[1] ?? -1)).toBe(0);
  });

  test("no call descriptor and no kick descriptor: the ring is polled", async () => {
    const session = open();
    await session.features();
    await session.start();
    expect(await session.tell(request.SET_VRING_CALL, fdPayload(1, true))).toBe(0);
    expect(await session.tell(request.SET_VRING_KICK, fdPayload(1, true))).toBe(0);
    const arrived = new Promise<string>((resolve) => {
      session.device.createEndpoint((_src, bytes, offset, length) => {
        resolve(Buffer.from(bytes.subarray(offset, offset + length)).toString());
      }, 1030);
    });
    await turns();
    session.guest.offer(0x400, 1030, "polled");
    expect(await arrived).toBe("polled");
  });

  test("a kick descriptor set again: the latest counts", async () => {
    const session = open();
    const { received } = openEndpoint(session.device, 1030);
    await session.features();
    const { kicks } = await session.start();
    const latest = session.eventfd();
    expect(await session.tell(request.SET_VRING_KICK, fdPayload(1), [latest])).toBe(0);
    await turns();
    session.guest.offer(0x400, 1030, "hello");
    session.kick(kicks[1]);
    await turns();
    expect(received).toEqual([]);
    session.kick(latest);
    await turns();
    expect(texts(received)).toEqual(["hello"]);
  });

  test("RESET_OWNER disables the rings", async () => {
    const session = open();
    await session.features();
    await session.start();
    expect(await session.tell(request.RESET_OWNER)).toBe(0);
    expect(session.device.state).toBe("suspended");
  });
});
