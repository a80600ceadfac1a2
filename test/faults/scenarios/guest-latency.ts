import { fork } from "node:child_process";
import { once } from "node:events";
import type { Socket } from "node:net";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { setTimeout as elapsed } from "node:timers/promises";
import { compiled } from "../../../bench/harness.ts";
import { binaryHeader } from "../../../bench/load/frames.ts";
import { StreamReader } from "../../../bench/load/stream-reader.ts";
import { BridgeProcess } from "../../support/bridge-process.ts";
import { count, latencies, quantile, until } from "../../support/figures.ts";
import type { Outcome, Scale, Scenario } from "../scenario.ts";

const CLIENTS = 16;
/** Bytes of a message of the guest. */
const SIZE = 64;
/** What is before it on the wire. */
const HEADER = binaryHeader(SIZE);
/** One message of so many is measured. */
const MEASURED = 16;
/** Room for those of 20 seconds at three millions a second. */
const MOST_TIMES = 1 << 22;
/** Milliseconds of each: as fast as it goes, and at half of that. A test goes by messages. */
const WARM = { short: 1000, full: 2000 };
const PEAK = { short: 3000, full: 5000 };
const HALF = { short: 5000, full: 20_000 };
const MESSAGES = 5000;
/** Milliseconds from the guest to the client: 99 of 100. */
const WITHIN = 5;

export const scenario: Scenario = {
  fault:
    "a guest sends to 16 clients (`slow=pause`, 64 KiB may wait for each) half as many messages as go through at most",
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
  /** Nanoseconds, of what is measured; its room is there before. */
  const times = new Float64Array(MOST_TIMES);
  let timed = 0;
  let timing = false;
  let received = 0;
  /** Of this process: what comes late here is not read in time. */
  const own = monitorEventLoopDelay({ resolution: 1 });
  const sockets: Socket[] = [];
  try {
    await once(guest, "message");
    await until("the service is listed", async () => (await bridge.endpoints())[0]);
    const problems: string[] = [];
    let stopping = false;
    for (let i = 0; i < CLIENTS; i++) {
      const onFrame = (bytes: Buffer, at: number): void => {
        if (bytes[at] !== HEADER[0] || bytes[at + 1] !== HEADER[1])
          throw new Error("a frame of another kind");
        received++;
        if (!timing || received % MEASURED !== 0 || timed === MOST_TIMES) return;
        times[timed++] = performance.now() * 1e6 + origin - bytes.readDoubleLE(at + HEADER.length);
      };
      const path = "/ws/v1/vm/paced?slow=pause";
      const client = new StreamReader({ port: Number(new URL(bridge.url).port), path, size: SIZE, onFrame });
      await client.opened.promise;
      client.send("here");
      const { socket } = client;
      sockets.push(socket);
      socket.once("close", () => stopping || problems.push(`client ${i} was closed`));
    }
    const goOn = async (milliseconds: Record<Exclude<Scale, "test">, number>): Promise<void> => {
      if (scale !== "test") return elapsed(milliseconds[scale]);
      const enough = received + MESSAGES;
      await until("enough messages", () => (received >= enough ? true : undefined), 60_000);
    };
    const pace = (rate: number | null) => guest.send({ rate });
    pace(null);
    await goOn(WARM);
    const [begun, first] = [performance.now(), received];
    await goOn(PEAK);
    const peak = ((received - first) * 1000) / (performance.now() - begun);
    pace(0);
    // What was on its way is no part of the next figure.
    await quiet(() => received);
    pace(peak / 2);
    await goOn(WARM);
    await bridge.watchLag();
    own.enable();
    timing = true;
    const start = performance.now();
    await goOn(HALF);
    timing = false;
    own.disable();
    const seconds = (performance.now() - start) / 1000;
    const { lag } = await bridge.probe();
    const milliseconds = Array.from(times.subarray(0, timed), (each) => each / 1e6);
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
        `${latencies(milliseconds)}, most ${quantile(milliseconds, 1).toFixed(1)} ms; event-loop lag p99 of the bridge ` +
        `${lag.p99.toFixed(1)} ms, of the process of the clients ${Math.max(0, own.percentile(99) / 1e6 - 1).toFixed(1)} ms`,
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
