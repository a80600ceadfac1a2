import { describe, expect, test } from "vitest";
import { sendmsg } from "../../../rpmsg/posix/unix-socket.ts";
import { inflightPayload, request, statePayload, u64Payload } from "../../../rpmsg/vhost-user/messages.ts";
import { titled, unsupported } from "../posix/support.ts";
import { turns } from "../support/device-driver.ts";
import { openEndpoint, texts } from "../support/device-endpoints.ts";
import { fdPayload, frame, slot } from "../support/vhost-user-frames.ts";
import type { Session } from "../support/vhost-user-session.ts";
import { MEMORY_SIZE, useSessions } from "../support/vhost-user-session.ts";

type Part = [bytes: Uint8Array, fds: number[]];

/** A whole session with one message of the guest; without acknowledgements, so that nothing has to be waited for. */
function messagesOf(session: Session): Part[] {
  const [memory, memoryFds] = session.memoryTable();
  const other = slot({ guest: 0, size: 4096, user: 0, offset: 0 });
  // In the end of the guest's memory, where there is nothing else.
  const inflight = inflightPayload({ size: 640, offset: MEMORY_SIZE - 4096, queues: 2, entries: 16 });
  const queue = (index: 0 | 1): Part[] => [
    [frame(request.SET_VRING_CALL, fdPayload(index)), [session.eventfd()]],
    [frame(request.SET_VRING_ERR, fdPayload(index)), [session.eventfd()]],
    [frame(request.SET_VRING_NUM, statePayload(index, 16)), []],
    [frame(request.SET_VRING_BASE, statePayload(index, 0)), []],
    [frame(request.SET_VRING_ADDR, session.addresses(index)), []],
    [frame(request.SET_VRING_KICK, fdPayload(index)), [session.eventfd()]],
    [frame(request.SET_VRING_CALL, fdPayload(index)), [session.eventfd()]],
  ];
  return [
    [frame(request.GET_FEATURES), []],
    [frame(request.SET_FEATURES, u64Payload(0x1_5000_0001n)), []],
    [frame(request.GET_PROTOCOL_FEATURES), []],
    [frame(request.SET_PROTOCOL_FEATURES, u64Payload(0x1_b22bn)), []],
    [frame(request.SET_OWNER), []],
    [frame(request.RESET_OWNER), []],
    [frame(request.RESET_DEVICE), []],
    [frame(request.SET_BACKEND_REQ_FD), [session.eventfd()]],
    [frame(request.GET_CONFIG, new Uint8Array(12)), []],
    // Refused, as this one says that it wants to know.
    [frame(request.SET_CONFIG, new Uint8Array(13), 9), []],
    [frame(request.SET_STATUS, u64Payload(15n)), []],
    [frame(request.GET_STATUS), []],
    [frame(request.GET_INFLIGHT_FD, inflight), []],
    [frame(request.SET_INFLIGHT_FD, inflight), memoryFds],
    [frame(request.SET_LOG_BASE, Buffer.concat([u64Payload(40_000n), u64Payload(0n)])), memoryFds],
    [frame(request.SET_LOG_FD), [session.eventfd()]],
    [frame(request.GET_MAX_MEM_SLOTS), []],
    [frame(request.ADD_MEM_REG, other), memoryFds],
    [frame(request.REM_MEM_REG, other), []],
    [frame(request.SET_MEM_TABLE, memory), memoryFds],
    [frame(request.GET_VRING_BASE, statePayload(1, 0)), []],
    ...queue(0),
    ...queue(1),
    [frame(request.SET_VRING_ENABLE, statePayload(0, 1), 9), []],
    [frame(request.SET_VRING_ENABLE, statePayload(1, 1), 9), []],
    [frame(request.GET_QUEUE_NUM), []],
  ];
}

async function outcomeOf(session: Session): Promise<unknown> {
  const { received } = openEndpoint(session.device, 1030);
  session.guest.offer(0x400, 1030, "hello");
  await turns();
  const replies: string[] = [];
  while (session.repliesLeft > 0) {
    const { id, payload } = await session.reply();
    replies.push(`${id} ${payload.toString("hex")}`);
  }
  session.device.rescan();
  const bases = session.device.stop();
  return { replies, texts: texts(received), bases, closed: session.isClosed };
}

const EXPECTED = {
  replies: [
    "1 0100007401000000",
    "15 2bb2010000000000",
    "24 000000000000000000000000",
    "25 0100000000000000",
    "40 0f00000000000000",
    "31 800200000000000000000000000000000200100000000000",
    "6 0000000000000000",
    "36 4000000000000000",
    "11 0100000000000000",
    "18 0000000000000000",
    "18 0000000000000000",
    "17 0200000000000000",
  ],
  texts: ["hello"],
  bases: [
    { base: 0, used: 0 },
    { base: 1, used: 1 },
  ],
  closed: false,
};

const LONGEST = 12 + 40;

/** One of each request, by its name. */
const NAMES = Object.entries(request).map(([name, id]) => ({ name, id }));

function messageOf(session: Session, id: number): Part {
  const found = messagesOf(session).find(([bytes]) => bytes[0] === id);
  if (found === undefined) throw new Error(`no message ${id}`);
  return found;
}

describe.skipIf(unsupported !== undefined)(titled("the byte stream"), () => {
  const open = useSessions();

  test.each(Array.from({ length: LONGEST - 1 }, (_, i) => i + 1))(
    "each message cut after byte %i",
    async (cut) => {
      const session = open();
      for (const [bytes, fds] of messagesOf(session)) {
        session.sendBytes(bytes.subarray(0, cut), fds);
        await turns(2);
        if (cut < bytes.length) session.sendBytes(bytes.subarray(cut));
        await turns(2);
      }
      expect(await outcomeOf(session)).toEqual(EXPECTED);
    },
  );

  test.each(NAMES)("$name, ended at every byte: no part of it is done", async ({ id }) => {
    const [whole] = messageOf(open(), id);
    for (let length = 1; length < whole.length; length++) {
      const session = open();
      const [bytes, fds] = messageOf(session, id);
      session.sendBytes(bytes.subarray(0, length), fds);
      // Read already, or read together with the end.
      if (length % 2 === 0) await turns();
      session.disconnect();
      expect(await session.closed).toMatchObject({ code: "message-truncated" });
    }
  });

  test.each(NAMES)("$name with bytes too many: refused, taken without them, or the end", async ({ id }) => {
    const over = (size: number) => async (session: Session) => {
      const [bytes, fds] = messageOf(session, id);
      const payload = Buffer.concat([bytes.subarray(12), new Uint8Array(size)]);
      const fits = Buffer.concat([bytes.subarray(0, 4), Uint8Array.of(9, 0, 0, 0)]);
      session.sendBytes(Buffer.concat([fits, frame(0, payload).subarray(8)]), fds);
      await turns(4);
    };
    for (const size of [1, 4, 8, 100, 3000]) {
      const session = open();
      await session.features();
      await over(size)(session);
      const answers: number[] = [];
      while (session.repliesLeft > 0) answers.push((await session.reply()).id);
      expect([answers, session.isClosed]).toEqual([[id], false]);
      expect(await session.barrier()).toBe(0x1_7400_0001n);
    }
    for (const size of [4097, 100_000, 0xffff_ffff]) {
      const session = open();
      const [bytes, fds] = messageOf(session, id);
      const header = Buffer.from(bytes.subarray(0, 12));
      header.writeUInt32LE(size, 8);
      session.sendBytes(header, fds);
      expect(await session.closed).toMatchObject({ code: "message-size" });
    }
  });

  test("byte by byte", async () => {
    const session = open();
    for (const [bytes, fds] of messagesOf(session)) {
      for (let i = 0; i < bytes.length; i++) {
        session.sendBytes(bytes.subarray(i, i + 1), i === 0 ? fds : []);
        await turns(1);
      }
    }
    expect(await outcomeOf(session)).toEqual(EXPECTED);
  });

  test("all at once", async () => {
    const session = open();
    for (const [bytes, fds] of messagesOf(session)) session.sendBytes(bytes, fds);
    expect(await outcomeOf(session)).toEqual(EXPECTED);
  });

  test("descriptors with the last byte of a message belong to it", async () => {
    const session = open();
    for (const [bytes, fds] of messagesOf(session)) {
      session.sendBytes(bytes.subarray(0, -1));
      session.sendBytes(bytes.subarray(-1), fds);
    }
    expect(await outcomeOf(session)).toEqual(EXPECTED);
  });

  test("a close in order", async () => {
    const session = open();
    await session.barrier();
    session.disconnect();
    expect(await session.closed).toBeUndefined();
  });

  test("descriptors with each byte of one message do not pile up", async () => {
    const session = open();
    const fds = Array.from({ length: 60 }, () => session.guest.region.fd);
    const bytes = frame(request.SET_MEM_TABLE, new Uint8Array(264));
    for (const byte of bytes.subarray(0, 20)) {
      if (session.isClosed) break;
      expect(sendmsg(session.fd, Uint8Array.of(byte), 0, 1, fds)).toBe(1);
      await turns(1);
    }
    expect(await session.closed).toMatchObject({ code: "ancillary-truncated" });
  });

  test("a peer that never reads its replies is given up, one that reads late is not", async () => {
    const session = open();
    const bytes = Buffer.concat(Array.from({ length: 500 }, () => frame(request.GET_FEATURES)));
    session.sendBytes(bytes);
    for (let i = 0; i < 500; i++) await session.reply();
    expect(session.isClosed).toBe(false);
    const deaf = open();
    deaf.stopReading();
    for (let i = 0; i < 10_000 && !deaf.isClosed; i++) {
      sendmsg(deaf.fd, bytes, 0, bytes.length);
      await turns(1);
    }
    expect(await deaf.closed).toMatchObject({ code: "socket" });
  });

  test("a stream without end leaves others their turn", async () => {
    const session = open();
    const owners = Array.from({ length: 400 }, () => frame(request.SET_OWNER));
    session.sendBytes(Buffer.concat([...owners, frame(request.SET_VRING_NUM, statePayload(0, 3))]));
    let taken = 0;
    while (!session.isClosed) {
      await turns(1);
      taken++;
    }
    expect(await session.closed).toMatchObject({ code: "ring-size" });
    expect(taken).toBeGreaterThanOrEqual(400 / 64);
  });
});
