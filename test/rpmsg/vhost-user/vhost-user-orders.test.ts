import { describe, expect, test } from "vitest";
import { request, statePayload, u64Payload } from "../../../rpmsg/vhost-user/messages.ts";
import { titled, unsupported } from "../posix/support.ts";
import { turns } from "../support/device-driver.ts";
import { openEndpoint, texts } from "../support/device-endpoints.ts";
import { fdPayload } from "../support/vhost-user-frames.ts";
import type { Session } from "../support/vhost-user-session.ts";
import { useSessions } from "../support/vhost-user-session.ts";

const QUEUES = [0, 1] as const;
const FEATURES = u64Payload(0x1_7000_0001n);

/** What a queue is told, but for its kicks. */
const parts = {
  num: (session: Session, queue: 0 | 1) =>
    session.send(request.SET_VRING_NUM, statePayload(queue, session.guest.size)),
  base: (session: Session, queue: 0 | 1) => session.send(request.SET_VRING_BASE, statePayload(queue, 0)),
  addr: (session: Session, queue: 0 | 1) => session.send(request.SET_VRING_ADDR, session.addresses(queue)),
  call: (session: Session, queue: 0 | 1) =>
    session.send(request.SET_VRING_CALL, fdPayload(queue), [session.eventfd()]),
  enable: (session: Session, queue: 0 | 1) => session.send(request.SET_VRING_ENABLE, statePayload(queue, 1)),
};

/** @returns the descriptor for its kicks */
function sendKick(session: Session, queue: 0 | 1): number {
  const fd = session.eventfd();
  session.send(request.SET_VRING_KICK, fdPayload(queue), [fd]);
  return fd;
}

function sendEach(session: Session, part: keyof typeof parts): void {
  for (const queue of QUEUES) parts[part](session, queue);
}

async function sendProtocolFeatures(session: Session): Promise<void> {
  await session.ask(request.GET_PROTOCOL_FEATURES);
  session.send(request.SET_PROTOCOL_FEATURES, u64Payload(0x9n));
}

/** Frontends without a machine behind them here; QEMU and User Mode Linux have tests of their own. */
const orders: [name: string, attach: (session: Session) => Promise<number[]>][] = [
  [
    "DPDK (virtio-user): SET_OWNER first, CALL before NUM and before the memory",
    async (session) => {
      session.send(request.SET_OWNER);
      await session.ask(request.GET_FEATURES);
      await sendProtocolFeatures(session);
      sendEach(session, "call");
      session.send(request.SET_FEATURES, FEATURES);
      session.send(request.SET_MEM_TABLE, ...session.memoryTable());
      const kicks = QUEUES.map((queue) => {
        for (const part of ["num", "base", "addr"] as const) parts[part](session, queue);
        return sendKick(session, queue);
      });
      sendEach(session, "enable");
      return kicks;
    },
  ],
  [
    "rust-vmm (Cloud Hypervisor): SET_FEATURES before the protocol features, and once more",
    async (session) => {
      session.send(request.SET_OWNER);
      await session.ask(request.GET_FEATURES);
      session.send(request.SET_FEATURES, FEATURES);
      await sendProtocolFeatures(session);
      await session.ask(request.GET_QUEUE_NUM);
      session.send(request.SET_FEATURES, FEATURES);
      session.send(request.SET_MEM_TABLE, ...session.memoryTable());
      const kicks = QUEUES.map((queue) => {
        for (const part of ["num", "addr", "base", "call"] as const) parts[part](session, queue);
        return sendKick(session, queue);
      });
      sendEach(session, "enable");
      return kicks;
    },
  ],
  [
    "any: no SET_OWNER, the memory after the queues, each of a queue's messages twice",
    async (session) => {
      session.send(request.SET_FEATURES, FEATURES);
      await sendProtocolFeatures(session);
      for (const part of ["call", "num", "addr", "base", "call", "num", "addr", "base"] as const) {
        sendEach(session, part);
      }
      session.send(request.SET_MEM_TABLE, ...session.memoryTable());
      const kicks = QUEUES.map((queue) => [sendKick(session, queue), sendKick(session, queue)][1] ?? -1);
      sendEach(session, "enable");
      return kicks;
    },
  ],
];

describe.skipIf(unsupported !== undefined)(titled("the order of other frontends"), () => {
  const open = useSessions();

  test.each(orders)("%s", async (_, attach) => {
    const session = open();
    const { received } = openEndpoint(session.device, 1030);
    session.device.announce("rpmsg-raw", 1030);
    session.guest.post(512);
    const kicks = await attach(session);
    await session.barrier();
    expect([session.refused, session.device.state]).toEqual([[], "attached"]);
    session.kick(kicks[0]);
    session.guest.offer(0x400, 1030, "hello");
    session.kick(kicks[1]);
    await turns();
    expect(session.guest.receive()?.dst).toBe(53);
    expect(texts(received)).toEqual(["hello"]);
  });
});
