import { fork } from "node:child_process";
import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import { get } from "node:http";
import type { Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as elapsed } from "node:timers/promises";
import { compiled } from "../../../bench/harness.ts";
import { binaryHeader, clientFrame } from "../../../bench/load/frames.ts";
import { BridgeProcess } from "../../support/bridge-process.ts";
import { count, latencies, quantile, until } from "../../support/figures.ts";
import type { Outcome, Scale, Scenario } from "../scenario.ts";

const CLIENTS = 16;
/** What a message of the guest is on the wire: 64 bytes in a frame. */
const HEADER = binaryHeader(64);
const FRAME = HEADER.length + 64;
/** One message of so many is measured. */
const MEASURED = 16;
/** Milliseconds of each: as fast as it goes, and at half of that. */
const WARM = { test: 200, short: 1000, full: 2000 };
const PEAK = { test: 500, short: 3000, full: 5000 };
const HALF = { test: 500, short: 5000, full: 20_000 };
/** Milliseconds from the guest to the client: 99 of 100. */
const WITHIN = 5;

export const scenario: Scenario = {
  fault: "a guest sends to 16 clients half as many messages as go through at most",
  passes: "p99 from the guest to the client at most 5 ms, no message lost",
  run,
};

async function run(scale: Scale): Promise<Outcome> {
  const bridge = await BridgeProcess.start((directory) => ({
    // Nobody answers a ping. Little waits for a client that reads as fast as it can: it is soon through with it when the guest pauses for it.
    limits: { slowReaderBytes: 65_536, pingInterval: 300_000 },
    guests: { vm: { kind: "vhost-user", path: join(directory, "vm.sock") } },
  }));
  const guest = fork(compiled("test/support/paced-main.js"), [join(bridge.directory, "vm.sock")], {
    execArgv: [],
  });
  // The system's monotonic clock, without a BigInt for each message.
  const origin = Number(process.hrtime.bigint()) - performance.now() * 1e6;
  /** Nanoseconds, while a list is kept. */
  let times: number[] | undefined;
  let received = 0;
  const sockets: Socket[] = [];
  try {
    await once(guest, "message");
    await until("the service is listed", async () => (await bridge.endpoints())[0]);
    const problems: string[] = [];
    let stopping = false;
    for (let i = 0; i < CLIENTS; i++) {
      const socket = await reader(`${bridge.url}/ws/v1/vm/paced?slow=pause`, (bytes, at) => {
        received++;
        if (times === undefined || received % MEASURED !== 0) return;
        times.push(performance.now() * 1e6 + origin - bytes.readDoubleLE(at));
      });
      sockets.push(socket);
      socket.once("close", () => stopping || problems.push(`client ${i} was closed`));
    }
    const pace = (rate: number | null) => guest.send({ rate });
    pace(null);
    await elapsed(WARM[scale]);
    const [begun, first] = [performance.now(), received];
    await elapsed(PEAK[scale]);
    const peak = ((received - first) * 1000) / (performance.now() - begun);
    pace(0);
    // What was on its way is no part of the next figure.
    await quiet(() => received);
    pace(peak / 2);
    await elapsed(WARM[scale]);
    times = [];
    const start = performance.now();
    await elapsed(HALF[scale]);
    const milliseconds = times.map((each) => each / 1e6);
    const seconds = (performance.now() - start) / 1000;
    times = undefined;
    pace(0);
    await quiet(() => received);
    const sent = (await bridge.endpoints())[0]?.counters.messagesFromGuest;
    if (sent !== received) problems.push(`${sent} messages of the guest, ${received} at the clients`);
    stopping = true;
    const half = (milliseconds.length * MEASURED) / seconds;
    if (milliseconds.length === 0) problems.push("no message came");
    const p99 = quantile(milliseconds, 0.99);
    return {
      measured:
        `at most ${count(Math.round(peak))} messages a second of 64 bytes; at ${count(Math.round(half))} a second ` +
        `${latencies(milliseconds)}, most ${quantile(milliseconds, 1).toFixed(1)} ms`,
      problems,
      slow: [
        ...(p99 > WITHIN ? [`p99 ${p99.toFixed(1)} ms`] : []),
        ...(half < peak * 0.45 ? [`${Math.round(half)} messages a second are not half of the most`] : []),
      ],
    };
  } finally {
    guest.kill("SIGKILL");
    for (const socket of sockets) socket.destroy();
    await bridge.stop();
  }
}

/**
 * A client that does little more than read: with a WebSocket object for each of them, this process would be the one
 * that is measured.
 */
async function reader(url: string, onMessage: (bytes: Buffer, at: number) => void): Promise<Socket> {
  const headers = {
    Connection: "Upgrade",
    Upgrade: "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "cnBtc2ctYnJpZGdlLi4uLg==",
  };
  const [, socket, head] = (await once(get(url, { headers }), "upgrade")) as [
    IncomingMessage,
    Socket,
    Buffer,
  ];
  let rest = head;
  socket.on("error", () => {});
  socket.on("data", (data: Buffer) => {
    const bytes = rest.length === 0 ? data : Buffer.concat([rest, data]);
    let at = 0;
    for (; at + FRAME <= bytes.length; at += FRAME) {
      if (bytes[at] !== HEADER[0] || bytes[at + 1] !== HEADER[1]) throw new Error("a frame of another kind");
      onMessage(bytes, at + HEADER.length);
    }
    rest = bytes.subarray(at);
  });
  const text = Buffer.from("here");
  socket.write(clientFrame(binaryHeader(text.length), text));
  return socket;
}

/** Waits until a number has not changed for a while. */
async function quiet(value: () => number): Promise<void> {
  let last = -1;
  await until("nothing more comes", async () => {
    const now = value();
    if (now === last) return true;
    last = now;
    await elapsed(100);
    return undefined;
  });
}
