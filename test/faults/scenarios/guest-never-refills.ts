import type { ChildProcess } from "node:child_process";
import { fork } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { setTimeout as delay } from "node:timers/promises";
import { WebSocket } from "ws";
import { compiled } from "../../../bench/harness.ts";
import { EmulatedGuest } from "../../../guest/index.ts";
import { BridgeProcess } from "../../support/bridge-process.ts";
import { EchoClient } from "../../support/echo-client.ts";
import { count, latencies, quantile, until } from "../../support/figures.ts";
import type { Protocol } from "../../support/flooder.ts";
import { protocols } from "../../support/flooder.ts";
import type { Told } from "../../support/flooders-main.ts";
import type { Outcome, Scale, Scenario } from "../scenario.ts";

/** Clients of each subprotocol. */
const CLIENTS = { test: 2, short: 20, full: 100 };
const SECONDS = { test: 0, short: 5, full: 20 };
const NUMBERED = 1000;
const SEND_TIMEOUT = 1000;
const SLOW_READER = 64 * 1024;
/** Bytes that may be held for a client: what waits for the guest, and what its socket has read (64 KiB each, 3 times). */
const MOST_HELD = 192 * 1024;
/** Bytes of answers that may wait for a client, which is busy sending. */
const MOST_ANSWERS = 2 * SLOW_READER;
/** Bytes that the bridge itself may take: 4 MiB of slabs that it keeps, and for the first of whatever happens. */
const OWN = 8 * 2 ** 20;
/** Milliseconds by which the event loop may be late: 99 of 100. */
const LAG = 50;
/** Milliseconds that an echo of another guest may take: 99 of 100. */
const ECHOED_WITHIN = 100;
/** Between two looks at the event loop of this process. */
const RESOLUTION = 5;
/** What those may be told that flood. */
const expected: Readonly<Record<Protocol, readonly string[]>> = {
  raw: ["4004"],
  mux: ["no-buffer", "queue-full", "1013"],
};

export const scenario: Scenario = {
  fault:
    "a guest never posts its receive buffers again, and clients send to it as fast as they can, raw ones and mux ones " +
    "that keep to no credit; they come again when they are closed",
  passes:
    "320 KiB held for a client at most, senders are told (4004, no-buffer, queue-full), event-loop lag p99 at most " +
    `${LAG} ms, another guest of the bridge goes on: echo p99 at most ${ECHOED_WITHIN} ms`,
  run,
};

async function run(scale: Scale): Promise<Outcome> {
  const clients = CLIENTS[scale];
  const bridge = await BridgeProcess.start((directory) => ({
    limits: { sendTimeout: SEND_TIMEOUT, slowReaderBytes: SLOW_READER },
    guests: {
      stuck: { kind: "vhost-user", path: join(directory, "stuck.sock") },
      other: { kind: "emulated" },
    },
  }));
  const guest = new EmulatedGuest();
  const connection = guest.connect(join(bridge.directory, "stuck.sock"), { onError: () => {} });
  let floods: readonly Flood[] = [];
  try {
    await connection.attached();
    const stuck = await until("the echo is there", () =>
      EchoClient.open(bridge.url, "/ws/v1/stuck/echo").catch(() => undefined),
    );
    const other = await EchoClient.open(bridge.url, "/ws/v1/other/echo");
    await stuck.echo("it works");
    const before = await bridge.probe();
    guest.faults.neverRefill = true;
    floods = protocols.map(
      (protocol) => new Flood(protocol, [bridge.url, "/ws/v1/stuck/echo", `${clients}`]),
    );
    const isToldAll = async () => {
      const told = await Promise.all(floods.map((flood) => flood.told()));
      return told.every((each) => each.clients === clients);
    };
    const results = numbered(bridge.url);
    await bridge.watchLag();
    const ownLag = monitorEventLoopDelay({ resolution: RESOLUTION });
    ownLag.enable();
    const echoes: number[] = [];
    const start = performance.now();
    while (performance.now() < start + SECONDS[scale] * 1000 || !(await isToldAll())) {
      const sent = performance.now();
      await other.echo(`${sent}`);
      echoes.push(performance.now() - sent);
      await delay(5);
    }
    ownLag.disable();
    const during = await bridge.probe();
    const { lag } = during;
    const problems: string[] = [];
    const texts: string[] = [];
    for (const flood of floods) {
      const { protocol } = flood;
      const told = Object.entries((await flood.told()).codes);
      const text = `${protocol} ${told.map(([code, times]) => `${count(times)} ${code}`).join(", ")}`;
      texts.push(text);
      if (told.some(([code]) => !expected[protocol].includes(code))) problems.push(`told ${text}`);
    }
    const codes = await results;
    const answered = [...codes.values()].reduce((sum, each) => sum + each, 0);
    if (answered !== NUMBERED) problems.push(`${answered} of ${NUMBERED} numbered messages have a result`);
    if ((codes.get("no-buffer") ?? 0) === 0) problems.push("nobody was told no-buffer");
    const held = during.external + during.heapUsed - before.external - before.heapUsed;
    const most = protocols.length * clients * (MOST_HELD + MOST_ANSWERS) + OWN;
    if (held > most) problems.push(`${held} bytes are held for ${clients} raw and mux clients`);
    const echo = quantile(echoes, 0.99);
    other.socket.terminate();
    stuck.socket.terminate();
    return {
      measured:
        `${clients} raw and as many mux clients, told ${texts.join("; ")}; of 1,000 numbered messages ` +
        `${[...codes].map(([code, times]) => `${count(times)} ${code}`).join(", ")}; ` +
        `memory ${(held / 2 ** 20).toFixed(1)} MiB more; event-loop lag p50 ${lag.p50.toFixed(1)} ms, p99 ` +
        `${lag.p99.toFixed(1)} ms, most ${lag.max.toFixed(1)} ms; echo of another guest from another process, ` +
        `itself late by p99 ${Math.max(0, ownLag.percentile(99) / 1e6 - RESOLUTION).toFixed(1)} ms: ${latencies(echoes)}`,
      problems,
      slow: [
        ...(lag.p99 > LAG ? [`lag p99 ${lag.p99.toFixed(0)} ms`] : []),
        ...(echo > ECHOED_WITHIN ? [`echo p99 ${echo.toFixed(0)} ms`] : []),
      ],
    };
  } finally {
    for (const flood of floods) flood.end();
    connection.close();
    await bridge.stop();
  }
}

/** Clients of one subprotocol, in a process of their own: this one measures. */
class Flood {
  readonly protocol: Protocol;
  readonly #child: ChildProcess;

  constructor(protocol: Protocol, args: readonly string[]) {
    this.protocol = protocol;
    this.#child = fork(compiled("test/support/flooders-main.js"), [protocol, ...args], { execArgv: [] });
  }

  async told(): Promise<Told> {
    const answer = once(this.#child, "message");
    this.#child.send("told");
    return ((await answer) as [Told])[0];
  }

  end(): void {
    this.#child.kill("SIGKILL");
  }
}

/** What a JSON client is told of each of its messages, by code. */
async function numbered(url: string): Promise<Map<string, number>> {
  const results = new Map<string, number>();
  const socket = new WebSocket(`${url.replace("http", "ws")}/ws/v1/stuck/echo`, ["rpmsg.v1.json"]);
  let left = NUMBERED;
  await new Promise<void>((resolve) => {
    socket.on("error", () => {});
    socket.once("close", () => resolve());
    socket.on("message", (data: Buffer) => {
      const frame = JSON.parse(data.toString()) as { type: string; code?: string };
      if (frame.type === "hello")
        for (let id = 0; id < NUMBERED; id++)
          socket.send(JSON.stringify({ type: "send", id, data: "hello" }));
      if (frame.type !== "sent" && frame.type !== "error") return;
      const result = frame.type === "sent" ? "sent" : (frame.code ?? "unknown");
      results.set(result, (results.get(result) ?? 0) + 1);
      if (--left === 0) resolve();
    });
  });
  socket.terminate();
  return results;
}
