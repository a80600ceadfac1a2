import { join } from "node:path";
import { WebSocket } from "ws";
import { EmulatedGuest } from "../../../guest/index.ts";
import { BridgeProcess } from "../../support/bridge-process.ts";
import { EchoClient } from "../../support/echo-client.ts";
import { count, latencies, until } from "../../support/figures.ts";
import type { Outcome, Scale, Scenario } from "../scenario.ts";

const CLIENTS = { test: 4, short: 20, full: 100 };
/** Messages that a client sends at a time: the next ones when its socket has taken them. */
const BURST = 16;
const SEND_TIMEOUT = 1000;
/** Bytes that may be held for clients of that guest: what waits, and what their sockets have read (64 KiB each, 3 times). */
const MOST_HELD = 192 * 1024;
/** Bytes that the bridge itself may take for the first of whatever happens, and that are no garbage yet. */
const OWN = 2 ** 20;

export const scenario: Scenario = {
  fault: "a guest never posts its receive buffers again, and clients go on sending",
  passes: "the queue is bounded, senders are told, another guest of the bridge goes on",
  run,
};

async function run(scale: Scale): Promise<Outcome> {
  const clients = CLIENTS[scale];
  const bridge = await BridgeProcess.start((directory) => ({
    limits: { sendTimeout: SEND_TIMEOUT },
    guests: {
      stuck: { kind: "vhost-user", path: join(directory, "stuck.sock") },
      other: { kind: "emulated" },
    },
  }));
  const guest = new EmulatedGuest();
  const connection = guest.connect(join(bridge.directory, "stuck.sock"), { onError: () => {} });
  try {
    await connection.attached();
    const stuck = await until("the echo is there", () =>
      EchoClient.open(bridge.url, "/ws/v1/stuck/echo").catch(() => undefined),
    );
    const other = await EchoClient.open(bridge.url, "/ws/v1/other/echo");
    await stuck.echo("it works");
    const before = await bridge.probe();
    guest.faults.neverRefill = true;
    const results = new Map<string, number>();
    const raw = Array.from({ length: clients }, () => flood(bridge.url));
    const told = json(bridge.url, results);
    const echoes: number[] = [];
    const closed = Promise.all(raw.map(({ code }) => code)).then(() => true);
    while (!(await Promise.race([closed, pause()]))) {
      const start = performance.now();
      await other.echo(`${start}`);
      echoes.push(performance.now() - start);
    }
    await told;
    const codes = await Promise.all(raw.map(({ code }) => code));
    const during = await bridge.probe();
    const held = during.external + during.heapUsed - before.external - before.heapUsed;
    const problems: string[] = [];
    const wrong = codes.filter((code) => code !== 4004);
    if (wrong.length > 0) problems.push(`raw clients were closed with ${[...new Set(wrong)].join(", ")}`);
    const answered = [...results.values()].reduce((sum, each) => sum + each, 0);
    if (answered !== 1000) problems.push(`${answered} of 1000 numbered messages have a result`);
    if ((results.get("no-buffer") ?? 0) === 0) problems.push("nobody was told no-buffer");
    // The bridge itself takes some for the first of whatever happens.
    if (held > clients * MOST_HELD + OWN) problems.push(`${held} bytes are held for ${clients} clients`);
    other.socket.terminate();
    stuck.socket.terminate();
    return {
      measured:
        `${clients} raw clients closed with 4004; of 1,000 numbered messages ` +
        `${[...results].map(([code, number]) => `${count(number)} ${code}`).join(", ")}; ` +
        `memory ${(held / 2 ** 20).toFixed(1)} MiB more; echo of another guest meanwhile ${latencies(echoes)}`,
      problems,
    };
  } finally {
    connection.close();
    await bridge.stop();
  }
}

/** A raw client that sends for as long as its socket takes it: far more than there is room for. */
function flood(url: string): { code: Promise<number> } {
  const socket = new WebSocket(`${url.replace("http", "ws")}/ws/v1/stuck/echo`, { perMessageDeflate: false });
  socket.on("error", () => {});
  const message = Buffer.alloc(400);
  // In turn with the others: this process also measures the echo.
  const more = (): void => {
    if (socket.readyState !== WebSocket.OPEN) return;
    for (let i = 1; i < BURST; i++) socket.send(message);
    socket.send(message, () => setImmediate(more));
  };
  socket.once("open", more);
  return { code: new Promise((resolve) => socket.once("close", resolve)) };
}

/** A JSON client that is told of each of 1000 messages what became of it. */
async function json(url: string, results: Map<string, number>): Promise<void> {
  const socket = new WebSocket(`${url.replace("http", "ws")}/ws/v1/stuck/echo`, ["rpmsg.v1.json"]);
  let left = 1000;
  await new Promise<void>((resolve) => {
    socket.on("error", () => {});
    socket.once("close", () => resolve());
    socket.on("message", (data: Buffer) => {
      const frame = JSON.parse(data.toString()) as { type: string; code?: string };
      if (frame.type === "hello")
        for (let id = 0; id < 1000; id++) socket.send(JSON.stringify({ type: "send", id, data: "hello" }));
      if (frame.type !== "sent" && frame.type !== "error") return;
      const result = frame.type === "sent" ? "sent" : (frame.code ?? "unknown");
      results.set(result, (results.get(result) ?? 0) + 1);
      if (--left === 0) resolve();
    });
  });
  socket.terminate();
}

function pause(): Promise<false> {
  return new Promise((resolve) => setTimeout(() => resolve(false), 10));
}
