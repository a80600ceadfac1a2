import { describe, expect, test } from "vitest";
import { closeFd, recvmsg, socketPair } from "../../../rpmsg/posix/unix-socket.ts";
import { request, statePayload, u64Payload } from "../../../rpmsg/vhost-user/messages.ts";
import { titled, unsupported } from "../posix/support.ts";
import { turns } from "../support/device-driver.ts";
import { openEndpoint, texts } from "../support/device-endpoints.ts";
import { fdPayload, table } from "../support/vhost-user-frames.ts";
import type { Session } from "../support/vhost-user-session.ts";
import { GUEST_BASE, MEMORY_SIZE, USER_BASE, useSessions } from "../support/vhost-user-session.ts";

/** Calls that a socketpair got: 8 bytes each, the value 1. */
function callsOf(fd: number): number {
  const bytes = new Uint8Array(64);
  const got = recvmsg(fd, bytes, 0, bytes.length, []);
  if (got < 0) return 0;
  expect([...bytes.subarray(0, 8)]).toEqual([1, 0, 0, 0, 0, 0, 0, 0]);
  return got / 8;
}

describe.skipIf(unsupported !== undefined)(titled("the order of User Mode Linux 6.12"), () => {
  const open = useSessions();

  /** Its messages up to ENABLE; it asks for no acknowledgement. Returns its ends of the calls, and the kicks. */
  async function boot(session: Session): Promise<{ calls: number[]; kicks: number[] }> {
    session.send(request.SET_OWNER);
    await session.ask(request.GET_FEATURES);
    session.send(request.SET_FEATURES, u64Payload(0x1_5000_0001n));
    await session.ask(request.GET_PROTOCOL_FEATURES);
    session.send(request.SET_PROTOCOL_FEATURES, u64Payload(0x229n));
    const channel = socketPair();
    session.send(request.SET_BACKEND_REQ_FD, new Uint8Array(), [session.own(channel[0])]);
    session.own(channel[1]);
    // One region in a payload as long as for two.
    const [, fds] = session.memoryTable();
    const regions = [{ guest: GUEST_BASE, size: MEMORY_SIZE, user: USER_BASE, offset: 0 }];
    session.send(request.SET_MEM_TABLE, table(regions, 72), fds);
    const calls: number[] = [];
    const kicks: number[] = [];
    for (const queue of [0, 1] as const) {
      const [ours, theirs] = socketPair();
      calls.push(session.own(ours));
      session.send(request.SET_VRING_CALL, fdPayload(queue), [theirs]);
      closeFd(theirs);
      session.send(request.SET_VRING_NUM, statePayload(queue, session.guest.size));
      session.send(request.SET_VRING_BASE, statePayload(queue, 0));
      session.send(request.SET_VRING_ADDR, session.addresses(queue));
    }
    for (const queue of [0, 1]) {
      kicks.push(session.eventfd());
      session.send(request.SET_VRING_KICK, fdPayload(queue), kicks.slice(queue));
      session.send(request.SET_VRING_ENABLE, statePayload(queue, 1));
    }
    await session.barrier();
    return { calls, kicks };
  }

  test("attaches, with calls over a socketpair", async () => {
    const session = open({ guest: { size: 256 } });
    const { received } = openEndpoint(session.device, 1030);
    session.device.announce("rpmsg-raw", 1030);
    for (let i = 0; i < 200; i++) session.guest.post(512);
    const { calls, kicks } = await boot(session);
    expect(session.device.state).toBe("attached");
    await turns();
    expect(session.guest.receive()).toBeUndefined();
    session.kick(kicks[0]);
    await turns();
    expect(session.guest.receive()?.dst).toBe(53);
    expect(callsOf(calls[0] ?? -1)).toBe(1);
    session.guest.offer(0x400, 1030, "hello");
    session.kick(kicks[1]);
    await turns();
    expect(texts(received)).toEqual(["hello"]);
    expect(callsOf(calls[1] ?? -1)).toBe(1);
  });

  test("ends with ENABLE 0, GET_FEATURES and a close, without GET_VRING_BASE", async () => {
    const session = open();
    const { received } = openEndpoint(session.device, 1030);
    const { kicks } = await boot(session);
    session.guest.offer(0x400, 1030, "before ENABLE 0");
    for (const queue of [0, 1]) session.send(request.SET_VRING_ENABLE, statePayload(queue, 0));
    await session.barrier();
    expect(texts(received)).toEqual(["before ENABLE 0"]);
    expect(session.device.state).toBe("suspended");
    session.guest.offer(0x400, 1030, "after");
    session.kick(kicks[1]);
    await turns();
    session.disconnect();
    expect(await session.closed).toBeUndefined();
    expect(received).toHaveLength(1);
    expect([session.device.state, session.device.generation]).toEqual(["detached", 2]);
  });

  test("a call socket that nobody reads, and one whose reader is gone, hold nothing up", async () => {
    const session = open({ guest: { size: 256 } });
    const { endpoint } = openEndpoint(session.device, 1030);
    const { calls, kicks } = await boot(session);
    session.kick(kicks[0]);
    session.kick(kicks[1]);
    await turns();
    const address = session.guest.allocate(16);
    session.guest.bytes(address, 16).fill(0);
    for (let round = 0; round < 600; round++) {
      if (round === 500) session.drop(calls[1] ?? -1);
      session.guest.request.add(address, 16, false);
      session.guest.request.publish();
      session.device.kicked(1);
      session.guest.request.popUsed();
    }
    expect(session.device.counters.unknownAddress).toBe(600);
    expect(endpoint.closed).toBe(false);
    expect(session.isClosed).toBe(false);
  });
});
