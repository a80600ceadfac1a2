import { describe, expect, test } from "vitest";
import { drainEventfd } from "../../../rpmsg/posix/eventfd.ts";
import { libc, NONBLOCK } from "../../../rpmsg/posix/libc.ts";
import { closeFd, socketPair } from "../../../rpmsg/posix/unix-socket.ts";
import { request, statePayload, u64Payload } from "../../../rpmsg/vhost-user/messages.ts";
import { flagsOf, titled, unsupported } from "../posix/support.ts";
import { turns } from "../support/device-driver.ts";
import { openEndpoint, openSender, texts } from "../support/device-endpoints.ts";
import { fdPayload } from "../support/vhost-user-frames.ts";
import { useSessions } from "../support/vhost-user-session.ts";

describe.skipIf(unsupported !== undefined)(titled("vhost-user state"), () => {
  const open = useSessions();

  describe("RESET_DEVICE", () => {
    const reset = request.RESET_DEVICE;

    test("is a reset: what was published is taken, the generation grows, and the device starts anew", async () => {
      const session = open();
      const { received } = openEndpoint(session.device, 1030);
      await session.features();
      expect(await session.tell(request.SET_STATUS, u64Payload(15n))).toBe(0);
      const { kicks } = await session.start();
      session.guest.offer(0x400, 1030, "taken");
      expect(await session.tell(reset, new Uint8Array())).toBe(0);
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
      expect(await session.tell(reset, new Uint8Array())).toBe(0);
      expect(session.device.generation).toBe(1);
      await session.start();
      expect(session.device.generation).toBe(1);
    });

    test("keeps the call descriptors, which QEMU passes only once", async () => {
      const session = open();
      await session.features();
      const { calls } = await session.start();
      expect(await session.tell(reset, new Uint8Array())).toBe(0);
      expect(await session.tell(request.SET_VRING_CALL, fdPayload(0), calls.slice(0, 1))).toBe(0);
      expect(session.isClosed).toBe(false);
    });
  });

  describe("SET_STATUS 0, which frontends send for a pause too", () => {
    test("stops the device, and a restart where it stood is a pause", async () => {
      const session = open();
      const { received } = openEndpoint(session.device, 1030);
      await session.features();
      await session.start();
      session.guest.offer(0x400, 1030, "before");
      expect(await session.tell(request.SET_STATUS, u64Payload(0n))).toBe(0);
      expect(session.device.state).toBe("suspended");
      expect(texts(received)).toEqual(["before"]);
      const base = (await session.ask(request.GET_VRING_BASE, statePayload(1, 0))).readUInt32LE(4);
      expect(base).toBe(1);
      await session.start([0, base]);
      expect([session.device.state, session.device.generation]).toEqual(["attached", 1]);
    });

    test("a restart from 0 is a reset", async () => {
      const session = open();
      await session.features();
      await session.start();
      session.guest.offer(0x400, 1030, "before");
      expect(await session.tell(request.SET_STATUS, u64Payload(0n))).toBe(0);
      await session.start([0, 0]);
      expect([session.device.state, session.device.generation]).toEqual(["attached", 2]);
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

  test("a message whose kick went to the old descriptor is found when a new one comes", async () => {
    const session = open();
    const { received } = openEndpoint(session.device, 1030);
    await session.features();
    await session.start();
    await turns();
    session.guest.offer(0x400, 1030, "between");
    expect(await session.tell(request.SET_VRING_KICK, fdPayload(1), [session.eventfd()])).toBe(0);
    expect(texts(received)).toEqual(["between"]);
  });

  test("a ring that is set up anew while it runs waits for its KICK", async () => {
    const session = open();
    await session.features();
    await session.start();
    expect(await session.tell(request.SET_VRING_NUM, statePayload(1, 64))).toBe(0);
    expect(session.device.state).toBe("suspended");
    expect(await session.tell(request.SET_VRING_ADDR, session.addresses(1))).toBe(0);
    expect(session.device.state).toBe("suspended");
    expect(await session.tell(request.SET_VRING_KICK, fdPayload(1), [session.eventfd()])).toBe(0);
    expect(session.device.state).toBe("attached");
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

  test("a call descriptor is made nonblocking: a guest that does not read must not stop the bridge", async () => {
    const session = open();
    await session.features();
    const [ours, theirs] = socketPair();
    session.own(ours);
    session.own(theirs);
    const F_SETFL = 4;
    expect(libc().fcntl(theirs, F_SETFL, 0)).toBe(0);
    expect(flagsOf(theirs) & NONBLOCK).toBe(0);
    expect(await session.tell(request.SET_VRING_CALL, fdPayload(0), [theirs])).toBe(0);
    expect(flagsOf(theirs) & NONBLOCK).toBe(NONBLOCK);
  });

  test("a kick descriptor whose other end is closed", async () => {
    const session = open();
    const { received } = openEndpoint(session.device, 1030);
    await session.features();
    await session.start();
    const [ours, theirs] = socketPair();
    closeFd(ours);
    session.own(theirs);
    expect(await session.tell(request.SET_VRING_KICK, fdPayload(1), [theirs])).toBe(0);
    session.guest.offer(0x400, 1030, "hello");
    await turns();
    session.device.rescan();
    expect(texts(received)).toEqual(["hello"]);
    expect(session.isClosed).toBe(false);
  });

  test("RESET_OWNER disables the rings", async () => {
    const session = open();
    await session.features();
    await session.start();
    expect(await session.tell(request.RESET_OWNER)).toBe(0);
    expect(session.device.state).toBe("suspended");
  });
});
