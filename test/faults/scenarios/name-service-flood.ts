import type { ChildProcess } from "node:child_process";
import { fork } from "node:child_process";
import { randomInt } from "node:crypto";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { compiled } from "../../../bench/harness.ts";
import { BridgeProcess } from "../../support/bridge-process.ts";
import { EchoClient } from "../../support/echo-client.ts";
import { count, latencies, until } from "../../support/figures.ts";
import type { Outcome, Scale, Scenario } from "../scenario.ts";

const MESSAGES = { test: 10_000, short: 100_000, full: 1_000_000 };
/** Services of a guest, and endpoints with metrics of their own; those of the other guest are five. */
const MOST_LISTED = 1024 + 5;
const MOST_SERIES = 1000;
/** limits.announcementRate and limits.logRate, the defaults. Each change is at most two events. */
const CHANGES = { perSecond: 1000, burst: 4096 };
const LINES = { perSecond: 10, burst: 100 };
/** Bytes of resident memory that may be held when it is over: the endpoints, and the events that are kept. */
const MARGIN = 32 * 2 ** 20;

export const scenario: Scenario = {
  fault: "a guest floods its bridge with announcements and withdrawals of hostile names",
  passes:
    "endpoints and series of metrics capped, events and log lines within their rates, 32 MiB of resident memory held " +
    "afterwards at most, /healthz and another guest's echo answer meanwhile",
  run,
};

async function run(scale: Scale): Promise<Outcome> {
  let lines = 0;
  const unreadable: string[] = [];
  const bridge = await BridgeProcess.start(
    (directory) => ({
      logLevel: "info",
      guests: {
        flood: { kind: "vhost-user", path: join(directory, "flood.sock") },
        other: { kind: "emulated" },
      },
    }),
    {
      onLog: (line) => {
        lines++;
        if (!isJson(line)) unreadable.push(line);
      },
    },
  );
  const seed = randomInt(2 ** 32);
  const parameters = [join(bridge.directory, "flood.sock"), String(MESSAGES[scale]), String(seed)];
  let flood: ChildProcess | undefined;
  try {
    const other = await until("the other guest", () =>
      EchoClient.open(bridge.url, "/ws/v1/other/echo").catch(() => undefined),
    );
    const events = await EventCount.open(bridge.url);
    const before = await bridge.probe();
    const start = performance.now();
    flood = fork(compiled("test/support/flood-main.js"), parameters, { execArgv: [] });
    let done = false;
    flood.on("message", (message) => {
      done ||= message === "done";
    });
    const health: number[] = [];
    const echoes: number[] = [];
    let listed = 0;
    let most = before.rss;
    while (!done) {
      if (flood.exitCode !== null) throw new Error("the guest has ended");
      health.push(await bridge.health());
      const asked = performance.now();
      await other.echo(`${asked}`);
      echoes.push(performance.now() - asked);
      listed = Math.max(listed, (await listedOf(bridge.url)).endpoints);
      most = Math.max(most, bridge.residentMemory());
      // Whoever looks is not to be a load of its own.
      await delay(20);
    }
    const { nameServiceLimit, nameServiceIgnored, nameServiceMalformed } = await settled(bridge);
    const seconds = (performance.now() - start) / 1000;
    await other.echo("here still");
    const { endpoints, series } = await listedOf(bridge.url);
    listed = Math.max(listed, endpoints);
    other.socket.terminate();
    const problems = unreadable.slice(0, 3).map((line) => `no line of JSON: ${JSON.stringify(line)}`);
    const bound = (what: string, value: number, bound: number) => {
      if (value > bound) problems.push(`${count(value)} ${what}, more than ${count(Math.floor(bound))}`);
    };
    bound("endpoints", listed, MOST_LISTED);
    bound("endpoints with metrics", series, MOST_SERIES);
    // What a second more may bring is not waited for.
    bound("events", events.total, 2 * (CHANGES.burst + CHANGES.perSecond * (seconds + 1)));
    bound("lines in the log", lines, LINES.burst + LINES.perSecond * (seconds + 1));
    // What it took at most is mostly garbage that V8 has not looked for: what stays is what is held.
    const held = (await bridge.probe()).rss - before.rss;
    bound("bytes held", held, MARGIN);
    if (listed < MOST_LISTED / 2) problems.push(`only ${listed} endpoints were listed: it was no flood`);
    return {
      measured:
        `${count(MESSAGES[scale])} messages from seed ${seed} in ${seconds.toFixed(0)} s: ${count(nameServiceLimit)} beyond ` +
        `the limit, ${count(nameServiceIgnored)} without effect, ${count(nameServiceMalformed)} malformed; ` +
        `${count(listed)} endpoints, ${count(series)} of them with metrics, ${count(events.total)} events, ${lines} lines in ` +
        `the log; resident memory ${mib(most - before.rss)} MiB more at most, ${mib(held)} MiB held; /healthz meanwhile ${latencies(health)}, echo of ` +
        `another guest ${latencies(echoes)}`,
      problems,
    };
  } finally {
    flood?.kill("SIGKILL");
    await bridge.stop("SIGKILL");
  }
}

/** The counters of the guest, when the bridge has read all that it said: the last is a message to nobody. */
async function settled(bridge: BridgeProcess) {
  return until(
    "that all is read",
    async () => {
      const { counters } = await bridge.guest("flood");
      return counters.unknownAddress > 0 ? counters : undefined;
    },
    60_000,
  );
}

/** How many endpoints are listed, and how many have metrics of their own. */
async function listedOf(url: string): Promise<{ endpoints: number; series: number }> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const [, endpoints] = /^rpmsg_endpoints (\d+)$/m.exec(text) ?? [];
  return { endpoints: Number(endpoints), series: text.match(/^rpmsg_endpoint_clients\{/gm)?.length ?? 0 };
}

/** A name may neither end a line nor break what it stands in. */
function isJson(line: string): boolean {
  try {
    JSON.parse(line);
    return true;
  } catch {
    return false;
  }
}

const mib = (bytes: number) => (bytes / 2 ** 20).toFixed(1);

/** Counts the events of a bridge. */
class EventCount {
  total = 0;

  static async open(url: string): Promise<EventCount> {
    const counts = new EventCount();
    const { body } = await fetch(`${url}/api/v1/events`);
    if (body !== null) void counts.#read(body).catch(() => {});
    return counts;
  }

  async #read(body: AsyncIterable<Uint8Array>): Promise<void> {
    let rest = "";
    for await (const part of body) {
      const pieces = (rest + Buffer.from(part).toString("latin1")).split("\nevent:");
      rest = pieces.at(-1) ?? "";
      this.total += pieces.length - 1;
    }
  }
}
