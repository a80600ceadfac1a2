import { setImmediate as nextTurn } from "node:timers/promises";
import { BridgeProcess } from "../../support/bridge-process.ts";
import { EchoClient } from "../../support/echo-client.ts";
import { count, latencies, quantile, until } from "../../support/figures.ts";
import { PlainClient } from "../../support/plain-client.ts";
import type { Outcome, Scale, Scenario } from "../scenario.ts";

const CLIENTS = { test: 20, short: 200, full: 1000 };
const FAST = 4;
/** What each asks for in a round, and clients that ask at the same time. */
const ASKED = Buffer.from("2000 480");
const BYTES = 2000 * (480 + 4);
const AT_ONCE = 20;
/** Rounds after which nobody can have room left: the kernel's buffers hold a few megabytes. */
const MOST_ROUNDS = 16;
/** Resident memory beyond `limits.clientBytes`: slabs, and what the collector has not got to. */
const CLIENT_BYTES = 128 * 2 ** 20;
const MARGIN = 96 * 2 ** 20;
const TEXT = 1;

export const scenario: Scenario = {
  fault: "clients that all stop reading while the guest goes on talking to them",
  passes:
    "resident memory within limits.clientBytes (128 MiB here) and 96 MiB; p99 of the clients that read under 2 times " +
    "that while all read; every other one closed",
  run,
};

async function run(scale: Scale): Promise<Outcome> {
  const total = CLIENTS[scale];
  const bridge = await BridgeProcess.start(() => ({
    guests: { demo: { kind: "emulated" }, quiet: { kind: "emulated" } },
    limits: { clientBytes: CLIENT_BYTES },
  }));
  try {
    await until("the guests", async () => ((await bridge.endpoints()).length >= 10 ? true : undefined));
    const fast = await Promise.all(
      Array.from({ length: FAST }, () => EchoClient.open(bridge.url, "/ws/v1/quiet/echo")),
    );
    const clients: PlainClient[] = [];
    for (let i = 0; i < total; i++) clients.push(await PlainClient.open(bridge.url, "/ws/v1/demo/source"));

    // The same work, read.
    const reading = new Latencies(fast);
    await ask(clients, 1, (batch, round) =>
      until(
        "a round",
        () => (batch.every(({ received }) => received >= BYTES * round) ? true : undefined),
        60_000,
      ),
    );
    const usual = await reading.end();
    const before = await bridge.probe();

    for (const { socket } of clients) socket.pause();
    let most = before.rss;
    const stuck = new Latencies(fast);
    for (let round = 0; round < MOST_ROUNDS && clients.some(({ closed }) => !closed); round++) {
      const open = clients.filter(({ closed }) => !closed);
      await ask(open, 1, async () => {
        // The guest serves what is asked in turn: an echo of it comes after what was asked before.
        await settled(bridge);
        most = Math.max(most, bridge.residentMemory());
      });
    }
    const slowed = await stuck.end();
    const deadline = performance.now();
    // A socket that is not read does not tell its own end.
    for (const { socket } of clients) socket.resume();
    await until("the end of all", () => (clients.every(({ closed }) => closed) ? true : undefined), 30_000);
    const took = performance.now() - deadline;
    const problems: string[] = [];
    for (const client of fast) await client.echo("here still");
    if (most - before.rss > CLIENT_BYTES + MARGIN) problems.push(`${mebibytes(most - before.rss)} MiB more`);
    const slow =
      quantile(slowed, 0.99) > 2 * quantile(usual, 0.99)
        ? [`p99 ${(quantile(slowed, 0.99) / quantile(usual, 0.99)).toFixed(1)} times`]
        : [];
    return {
      measured:
        `${count(total)} clients: resident memory ${mebibytes(most - before.rss)} MiB more at most; echo of others while ` +
        `all read ${latencies(usual)}, while they did not ${latencies(slowed)}; all closed ${took.toFixed(0)} ms after the last round`,
      problems,
      slow,
    };
  } finally {
    await bridge.stop("SIGKILL");
  }
}

/** Has the clients ask, some at a time. */
async function ask(
  clients: readonly PlainClient[],
  round: number,
  done: (batch: readonly PlainClient[], round: number) => Promise<unknown>,
): Promise<void> {
  for (let at = 0; at < clients.length; at += AT_ONCE) {
    const batch = clients.slice(at, at + AT_ONCE);
    for (const client of batch) client.send(TEXT, ASKED);
    await done(batch, round);
  }
}

/** Waits until the guest has said what it was asked for: it says nothing more. */
async function settled(bridge: BridgeProcess): Promise<void> {
  let last = -1;
  await until("quiet", async () => {
    const now = (await bridge.guest("demo")).counters.messagesFromGuest;
    const same = now === last;
    last = now;
    return same ? true : undefined;
  });
}

/** Echoes, one after another, until the end: how long each took. */
class Latencies {
  readonly #values: number[] = [];
  readonly #running: Promise<unknown>;
  #over = false;

  constructor(clients: readonly EchoClient[]) {
    this.#running = Promise.all(clients.map((client) => this.#run(client)));
  }

  async end(): Promise<readonly number[]> {
    this.#over = true;
    await this.#running;
    return this.#values;
  }

  async #run(client: EchoClient): Promise<void> {
    for (let i = 0; !this.#over; i++) {
      const start = performance.now();
      await client.echo(`echo ${i}`);
      this.#values.push(performance.now() - start);
      await nextTurn();
    }
  }
}

function mebibytes(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(0);
}
