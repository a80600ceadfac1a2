import { describe, expect, test } from "vitest";
import { RpmsgDevice } from "../../../rpmsg/device.ts";
import { drainEventfd, signalEventfd } from "../../../rpmsg/posix/eventfd.ts";
import { titled, unsupported } from "../posix/support.ts";
import { message, nameServiceMessage, turns } from "../support/device-driver.ts";
import { openEndpoint, texts } from "../support/device-endpoints.ts";
import type { Session } from "../support/vhost-user-session.ts";
import { useSessions } from "../support/vhost-user-session.ts";

/** Bytes as hexadecimal digits, with notes between brackets. */
function hex(text: string): Buffer {
  return Buffer.from(text.replace(/\[[^\]]*\]/g, "").replace(/\s/g, ""), "hex");
}

const OK = "0000000000000000";

/** One message of QEMU and what answers it. */
interface Step {
  send: string;
  fds?: (session: Session) => number[];
  reply?: string;
}

const region = (session: Session): number[] => [session.guest.region.fd];

// QEMU 11.1, vhost-user-device-pci with protocol features MQ, REPLY_ACK, CONFIG, RESET_DEVICE, MEM_SLOTS, STATUS.
const REALIZE: Step[] = [
  {
    send: "01000000 01000000 00000000 [GET_FEATURES]",
    reply: "01000000 05000000 08000000 01000074 01000000",
  },
  {
    send: "0f000000 01000000 00000000 [GET_PROTOCOL_FEATURES]",
    reply: "0f000000 05000000 08000000 2bb20100 00000000 [0 1 3 5 9 12 13 15 16]",
  },
  { send: "10000000 01000000 08000000 2bb20100 00000000 [SET_PROTOCOL_FEATURES]" },
  {
    send: "11000000 01000000 00000000 [GET_QUEUE_NUM]",
    reply: "11000000 05000000 08000000 02000000 00000000",
  },
  {
    send: "24000000 01000000 00000000 [GET_MAX_MEM_SLOTS]",
    reply: "24000000 05000000 08000000 40000000 00000000",
  },
  {
    send: "15000000 09000000 00000000 [SET_BACKEND_REQ_FD, need_reply]",
    fds: (session) => [session.eventfd()],
    reply: `15000000 05000000 08000000 ${OK}`,
  },
  { send: "03000000 01000000 00000000 [SET_OWNER]" },
  {
    send: "01000000 01000000 00000000 [GET_FEATURES]",
    reply: "01000000 05000000 08000000 01000074 01000000",
  },
  ...[0, 1].flatMap((queue): Step[] => [
    {
      send: `0d000000 09000000 08000000 0${queue}000000 00000000 [SET_VRING_CALL, before NUM]`,
      fds: (session) => [session.eventfd()],
      reply: `0d000000 05000000 08000000 ${OK}`,
    },
    {
      send: `0e000000 09000000 08000000 0${queue}000000 00000000 [SET_VRING_ERR]`,
      fds: (session) => [session.eventfd()],
      reply: `0e000000 05000000 08000000 ${OK}`,
    },
  ]),
];

/** At DRIVER_OK; kick descriptors arrive signalled, before ENABLE. */
function driverOk(session: Session, bases: readonly number[], kicks: number[], calls: number[]): Step[] {
  const number = (value: number) => Buffer.from(Uint32Array.of(value).buffer).toString("hex");
  return [
    {
      send: "02000000 01000000 08000000 01000070 01000000 [SET_FEATURES: NS INDIRECT EVENT_IDX 30 VERSION_1]",
    },
    { send: "28000000 01000000 00000000 [GET_STATUS]", reply: `28000000 05000000 08000000 ${OK}` },
    {
      send: `25000000 09000000 28000000 [ADD_MEM_REG] ${OK} [padding]
        00000040 00000000 [guest 0x40000000] 00001000 00000000 [1 MiB]
        00000034 127f0000 [user 0x7f1234000000] ${OK} [file offset]`,
      fds: region,
      reply: `25000000 05000000 08000000 ${OK}`,
    },
    ...([0, 1] as const).flatMap((queue): Step[] => [
      { send: `08000000 01000000 08000000 0${queue}000000 10000000 [SET_VRING_NUM 16]` },
      { send: `0a000000 01000000 08000000 0${queue}000000 ${number(bases[queue] ?? 0)} [SET_VRING_BASE]` },
      {
        send: `09000000 01000000 28000000 ${Buffer.from(session.addresses(queue)).toString("hex")} [SET_VRING_ADDR]`,
      },
      {
        send: `0c000000 09000000 08000000 0${queue}000000 00000000 [SET_VRING_KICK]`,
        fds: () => {
          const kick = session.eventfd();
          signalEventfd(kick);
          kicks[queue] = kick;
          return [kick];
        },
        reply: `0c000000 05000000 08000000 ${OK}`,
      },
      {
        send: `0d000000 09000000 08000000 0${queue}000000 00000000 [SET_VRING_CALL]`,
        fds: () => [session.eventfd()],
        reply: `0d000000 05000000 08000000 ${OK}`,
      },
    ]),
    ...[0, 1].map((queue) => ({
      send: `12000000 09000000 08000000 0${queue}000000 01000000 [SET_VRING_ENABLE 1]`,
      reply: `12000000 05000000 08000000 ${OK}`,
    })),
    ...[0, 1].map((queue) => ({
      send: `0d000000 09000000 08000000 0${queue}000000 00000000 [SET_VRING_CALL again]`,
      fds: () => {
        const call = session.eventfd();
        calls[queue] = call;
        return [call];
      },
      reply: `0d000000 05000000 08000000 ${OK}`,
    })),
  ];
}

function stopped(bases: readonly number[]): Step[] {
  const number = (value: number) => Buffer.from(Uint32Array.of(value).buffer).toString("hex");
  return [
    ...[0, 1].map((queue) => ({
      send: `12000000 09000000 08000000 0${queue}000000 00000000 [SET_VRING_ENABLE 0]`,
      reply: `12000000 05000000 08000000 ${OK}`,
    })),
    ...[0, 1].map((queue) => ({
      send: `0b000000 01000000 08000000 0${queue}000000 00000000 [GET_VRING_BASE]`,
      reply: `0b000000 05000000 08000000 0${queue}000000 ${number(bases[queue] ?? 0)}`,
    })),
  ];
}

const REMOVE: Step = {
  send: `26000000 09000000 28000000 [REM_MEM_REG] ${OK} 00000040 00000000 00001000 00000000 00000034 127f0000 ${OK}`,
  reply: `26000000 05000000 08000000 ${OK}`,
};

async function play(session: Session, steps: readonly Step[]): Promise<void> {
  for (const { send, fds, reply } of steps) {
    session.sendBytes(hex(send), fds?.(session));
    if (reply === undefined) continue;
    const { id, flags, payload } = await session.reply();
    const header = Buffer.from(Uint32Array.of(id, flags, payload.length).buffer);
    expect(Buffer.concat([header, payload]).toString("hex"), send).toBe(hex(reply).toString("hex"));
  }
  expect(session.repliesLeft).toBe(0);
}

describe.skipIf(unsupported !== undefined)(titled("the order of QEMU 11"), () => {
  const open = useSessions();

  function guestOf(session: Session) {
    const { endpoint, received } = openEndpoint(session.device, 1030);
    session.device.announce("rpmsg-raw", 1030);
    for (let i = 0; i < 4; i++) session.guest.post(512);
    return { endpoint, received };
  }

  test("realize, DRIVER_OK, traffic in both directions, pause and resume, rmmod and a new driver", async () => {
    const states: string[] = [];
    const device = new RpmsgDevice({
      onState: (state) => states.push(state),
      onReset: (generation) => states.push(`reset ${generation}`),
    });
    const session = open({ device, guest: { eventIndex: true } });
    const { received } = guestOf(session);
    const { guest } = session;
    const kicks: number[] = [];
    const calls: number[] = [];
    await play(session, REALIZE);
    expect(states).toEqual([]);
    await play(session, driverOk(session, [0, 0], kicks, calls));
    expect(states).toEqual(["attached"]);
    await turns();
    // The kick that was there before ENABLE counts.
    expect(guest.receive()?.dst).toBe(53);
    expect(drainEventfd(calls[0] ?? -1)).toBe(1);

    guest.offer(0x400, 1030, "hello");
    session.kick(kicks[1]);
    await turns();
    expect(texts(received)).toEqual(["hello"]);

    guest.offer(0x400, 1030, "before the pause");
    await play(session, [...stopped([1, 2]), REMOVE]);
    expect(texts(received)).toEqual(["hello", "before the pause"]);
    guest.offer(0x400, 1030, "during the pause");
    await play(session, driverOk(session, [1, 2], kicks, calls));
    await turns();
    expect(texts(received)).toHaveLength(3);
    expect(states).toEqual(["attached", "suspended", "attached"]);
    expect(guest.receiveAll()).toEqual([]);

    await play(session, [...stopped([1, 3]), REMOVE]);
    guest.bytes(guest.rings[0].used, 2).fill(0);
    for (const ring of guest.rings) {
      guest.bytes(ring.available, 64).fill(0);
      guest.bytes(ring.used, 160).fill(0);
    }
    await play(session, driverOk(session, [0, 0], kicks, calls));
    expect(states.slice(3)).toEqual(["suspended", "reset 2", "detached", "attached"]);
    expect(session.isClosed).toBe(false);
  });

  test("without REPLY_ACK it takes GET_FEATURES for a barrier", async () => {
    const session = open();
    const { received } = guestOf(session);
    session.send(16, hex(`01000000 00000000 [MQ only]`));
    const kicks: number[] = [];
    const steps = driverOk(session, [0, 0], kicks, []).filter(({ send }) => !send.includes("STATUS"));
    for (const { send, fds } of steps) {
      const bytes = hex(send);
      bytes.writeUInt32LE(1, 4);
      session.sendBytes(bytes, fds?.(session));
      expect(await session.barrier()).toBe(0x1_7400_0001n);
    }
    expect(session.device.state).toBe("attached");
    session.guest.offer(0x400, 1030, "hello");
    session.kick(kicks[1]);
    await turns();
    expect(texts(received)).toEqual(["hello"]);
  });

  test("need_reply without REPLY_ACK is not answered", async () => {
    const session = open();
    session.send(3, new Uint8Array(), [], 9);
    await session.barrier();
    expect(session.repliesLeft).toBe(0);
  });

  test("the frontend is gone: what the guest had published is taken before the reset", async () => {
    const withdrawn: string[] = [];
    const session = open({ events: { onWithdrawn: ({ name }) => withdrawn.push(name) } });
    const { received } = guestOf(session);
    await session.features();
    await session.start();
    session.guest.offerBytes(message(0x400, 53, nameServiceMessage("echo", 0x400)));
    session.guest.offer(0x400, 1030, "last words");
    session.disconnect();
    await session.closed;
    expect(texts(received)).toEqual(["last words"]);
    expect(withdrawn).toEqual(["echo"]);
    expect(session.device.state).toBe("detached");
    expect(session.device.generation).toBe(2);
  });
});
