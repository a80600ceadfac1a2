import { join } from "node:path";
import { WebSocket } from "ws";
import type { ServiceContext } from "../../../guest/index.ts";
import { EmulatedGuest } from "../../../guest/index.ts";
import { BridgeProcess } from "../../support/bridge-process.ts";
import { count, until } from "../../support/figures.ts";
import { LastingGuest } from "../../support/lasting-guest.ts";
import type { Outcome, Scale, Scenario } from "../scenario.ts";

const ROUNDS = { test: 1, short: 3, full: 20 };
const CLIENTS = 20;
/** Milliseconds that a stop may take. */
const DRAINED_WITHIN = 8000;

export const scenario: Scenario = {
  fault: "SIGTERM while 20 clients send and a guest over vhost-user answers",
  passes:
    "drained within 8 s, exit 0, clients told 1001; what the guest got has no gap, and every message that was told as " +
    "sent is in the guest, once and in order; the rings are left as a suspended device leaves them: all that was taken is " +
    "given back (in-flight marks, used index), and from the end of the connection on nothing is taken or written, " +
    "though the guest offers more",
  run,
};

async function run(scale: Scale): Promise<Outcome> {
  const problems: string[] = [];
  const drains: number[] = [];
  let sent = 0;
  let heard = 0;
  for (let round = 0; round < ROUNDS[scale]; round++) {
    const one = await stopUnderLoad(500 * (round + 1));
    drains.push(one.after);
    sent += one.sent;
    heard += one.heard;
    problems.push(...one.problems);
  }
  const longest = Math.max(...drains);
  return {
    measured:
      `${ROUNDS[scale]} stops: drained within ${longest.toFixed(0)} ms; ${count(sent)} messages told as sent, ` +
      `${count(heard)} in the guest, ${problems.length} problems`,
    problems,
    slow: longest > DRAINED_WITHIN ? [`a stop took ${longest.toFixed(0)} ms`] : [],
  };
}

/** A client that numbers its messages, and counts those that it is told were sent. */
class Sender {
  readonly socket: WebSocket;
  readonly closed: Promise<number>;
  readonly sent = new Set<number>();
  #next = 0;

  constructor(url: string, number: number) {
    this.socket = new WebSocket(`${url.replace("http", "ws")}/ws/v1/vm/count`, ["rpmsg.v1.json"], {
      perMessageDeflate: false,
    });
    this.socket.on("error", () => {});
    this.closed = new Promise((resolve) => this.socket.once("close", resolve));
    this.socket.on("message", (data: Buffer) => {
      const frame = JSON.parse(data.toString()) as { type: string; id?: number };
      if (frame.type === "hello") for (let i = 0; i < 16; i++) this.#send(number);
      if (frame.type !== "sent" && frame.type !== "error") return;
      if (frame.type === "sent") this.sent.add(frame.id as number);
      this.#send(number);
    });
  }

  #send(number: number): void {
    if (this.socket.readyState !== WebSocket.OPEN) return;
    const id = this.#next++;
    this.socket.send(JSON.stringify({ type: "send", id, data: `${number} ${id}` }));
  }
}

/** @param messages that the guest has got by then */
async function stopUnderLoad(
  messages: number,
): Promise<{ after: number; sent: number; heard: number; problems: string[] }> {
  const problems: string[] = [];
  const bridge = await BridgeProcess.start((directory) => ({
    guests: { vm: { kind: "vhost-user", path: join(directory, "vm.sock") } },
  }));
  const heard = Array.from({ length: CLIENTS }, () => [] as number[]);
  const service = (context: ServiceContext) => ({
    onMessage: (src: number, bytes: Uint8Array, offset: number, length: number) => {
      const [client = 0, id = 0] = Buffer.from(bytes.buffer, bytes.byteOffset + offset, length)
        .toString()
        .split(" ")
        .map(Number);
      heard[client]?.push(id);
      context.send(src, bytes, offset, length);
      return true;
    },
  });
  const guest = new EmulatedGuest({ services: { count: service } });
  const connection = await LastingGuest.attach(guest, join(bridge.directory, "vm.sock"));
  await until("the service is listed", async () => (await bridge.endpoints())[0]);
  const senders = heard.map((_, number) => new Sender(bridge.url, number));
  await until("the load is there", () => {
    const total = heard.reduce((sum, each) => sum + each.length, 0);
    return (total >= messages && heard.every((each) => each.length > 0)) || undefined;
  });
  const stopped = bridge.stop();
  for (const [number, sender] of senders.entries()) {
    const code = await sender.closed;
    if (code !== 1001) problems.push(`client ${number} was closed with ${code}`);
  }
  const atEnd = await connection.closed;
  // In vain: nobody takes it any more.
  guest.announce("late", service);
  const { code, signal, after } = await stopped;
  if (code !== 0) problems.push(`the bridge ended with ${signal ?? code}`);
  if (!connection.deviceBytes().equals(atEnd))
    problems.push("the bridge wrote to the guest's memory behind the end of its connection");
  for (const [queue, { offered, returned, inflight, marked }] of connection.left().entries()) {
    const where = `queue ${queue}, ${offered} offered, ${returned} given back`;
    if (inflight > 0) problems.push(`${where}: ${inflight} taken and not given back`);
    if (marked !== returned) problems.push(`${where}: ${marked} given back, say the marks`);
  }
  await until("that the guest has offered more", () => {
    const [, { offered, returned } = { offered: 0, returned: 0 }] = connection.left();
    return offered !== returned || undefined;
  }).catch((error: unknown) => problems.push((error as Error).message));
  // What is in the rings is the guest's.
  guest.called();
  connection.close();
  for (const [number, { sent }] of senders.entries()) {
    const got = heard[number] ?? [];
    const there = new Set(got);
    if (there.size !== got.length)
      problems.push(`client ${number}: ${got.length - there.size} messages came twice`);
    if (got.some((id, i) => id !== i)) problems.push(`client ${number}: out of order, or a gap`);
    const lost = [...sent].filter((id) => !there.has(id));
    if (lost.length > 0)
      problems.push(`client ${number}: ${lost.length} messages told as sent are not in the guest`);
  }
  const sum = (values: readonly number[]) => values.reduce((total, each) => total + each, 0);
  return {
    after,
    sent: sum(senders.map(({ sent }) => sent.size)),
    heard: sum(heard.map((each) => each.length)),
    problems,
  };
}
