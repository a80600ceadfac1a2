import { setImmediate as nextTurn } from "node:timers/promises";
import { Limits } from "../../../schemas/limits.ts";
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
/** Milliseconds that a client may be there beyond `limits.closeTimeout`: clients, guest and bridge have two cores. */
const GRACE = 5000;
/** When it is given up. */
const PATIENCE = 60_000;
/** What becomes of the clients, among the samples of /metrics: those that there are, and those that were closed. */
const OPEN = 'rpmsg_connections{protocol="raw"}';
const CLOSED = 'rpmsg_connections_closed_total{cause="slow-reader"}';
/** Resident memory beyond `limits.clientBytes`: slabs, and what the collector has not got to. */
const CLIENT_BYTES = 128 * 2 ** 20;
const MARGIN = 96 * 2 ** 20;
const TEXT = 1;
const SOURCE = "/ws/v1/demo/source";

export const scenario: Scenario = {
  fault: "clients that all stop reading while the guest goes on talking to them",
  passes:
    "resident memory within limits.clientBytes (128 MiB here) and 96 MiB; p99 of the clients that read under 2 times " +
    "that while all read; every other one, and nobody else, closed as a slow reader (1013), and the last " +
    "connection ended by the bridge within closeTimeout and 5 s of the last such close, though nobody answers it",
  run,
};

async function run(scale: Scale): Promise<Outcome> {
  const total = CLIENTS[scale];
  const bridge = await BridgeProcess.start(() => ({
    guests: { demo: { kind: "emulated" }, quiet: { kind: "emulated" } },
    // The clients answer no pings: it is not for that that they are to be closed.
    limits: { clientBytes: CLIENT_BYTES, pingInterval: 3_600_000 },
  }));
  try {
    await until("the guests", async () => ((await bridge.endpoints()).length >= 10 ? true : undefined));
    const fast = await Promise.all(
      Array.from({ length: FAST }, () => EchoClient.open(bridge.url, "/ws/v1/quiet/echo")),
    );
    const clients: PlainClient[] = [];
    for (let i = 0; i < total; i++) clients.push(await PlainClient.open(bridge.url, SOURCE, true));

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
    const end = new End(bridge);
    for (let round = 0; round < MOST_ROUNDS && end.seen === undefined; round++) {
      const open = clients.filter(({ closed }) => !closed);
      await ask(open, 1, async () => {
        // The guest serves what is asked in turn: an echo of it comes after what was asked before.
        await settled(bridge);
        await end.look();
        most = Math.max(most, bridge.residentMemory());
      });
    }
    const slowed = await stuck.end();
    const problems: string[] = [];
    // Nobody resumes: the bridge does not need the clients for it.
    const took = await until("the end of all", () => end.look(), PATIENCE).catch(() => Infinity);
    if (took === Infinity)
      problems.push(`${(await bridge.metric(OPEN)) - FAST} of ${total} are connected still`);
    const shed = await bridge.metric(CLOSED);
    if (shed !== total) problems.push(`${shed} of ${total} were closed as slow readers`);
    for (const client of fast) await client.echo("here still");
    if (most - before.rss > CLIENT_BYTES + MARGIN) problems.push(`${mebibytes(most - before.rss)} MiB more`);
    const slow =
      quantile(slowed, 0.99) > 2 * quantile(usual, 0.99)
        ? [`p99 ${(quantile(slowed, 0.99) / quantile(usual, 0.99)).toFixed(1)} times`]
        : [];
    const { closeTimeout } = Limits.parse({});
    if (took > closeTimeout + GRACE)
      slow.push(`connections ended ${took.toFixed(0)} ms after all were closed`);
    return {
      measured:
        `${count(total)} clients: resident memory ${mebibytes(most - before.rss)} MiB more at most; echo of others while ` +
        `all read ${latencies(usual)}, while they did not ${latencies(slowed)}; all ended ${took.toFixed(0)} ms after the last one was told to close`,
      problems,
      slow,
    };
  } finally {
    await bridge.stop("SIGKILL");
  }
}

/** When it was over for the clients that do not read. */
class End {
  readonly #bridge: BridgeProcess;
  /** When the last of them had no channel any more: a slow reader loses it with the close that it is sent. */
  #closed: number | undefined;
  /** Milliseconds from then until the bridge had none of their connections. */
  seen: number | undefined;

  constructor(bridge: BridgeProcess) {
    this.#bridge = bridge;
  }

  /** @returns `seen` */
  async look(): Promise<number | undefined> {
    if (this.seen !== undefined) return this.seen;
    const source = (await this.#bridge.endpoints()).find(({ path }) => path === SOURCE);
    if (source?.clients === 0) this.#closed ??= performance.now();
    const open = this.#closed !== undefined && (await this.#bridge.metric(OPEN)) > FAST;
    if (this.#closed !== undefined && !open) this.seen = performance.now() - this.#closed;
    return this.seen;
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
