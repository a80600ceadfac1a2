import { fork } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { compiled } from "../../../bench/harness.ts";
import { BridgeProcess } from "../../support/bridge-process.ts";
import { EchoClient } from "../../support/echo-client.ts";
import { count, latencies } from "../../support/figures.ts";
import type { Outcome, Scale, Scenario } from "../scenario.ts";

const SECONDS = { test: 1, short: 5, full: 30 };
/** Milliseconds by which the event loop may be late: 99 of 100. */
const LAG = 50;

export const scenario: Scenario = {
  fault: "kick storm: a guest keeps its request queue full and kicks both queues all the time",
  passes: "event-loop lag p99 at most 50 ms, /healthz and other guests go on answering",
  run,
};

async function run(scale: Scale): Promise<Outcome> {
  const bridge = await BridgeProcess.start((directory) => ({
    guests: {
      storm: { kind: "vhost-user", path: join(directory, "storm.sock") },
      other: { kind: "emulated" },
    },
  }));
  const storm = fork(compiled("test/support/storm-main.js"), [join(bridge.directory, "storm.sock")], {
    execArgv: [],
  });
  try {
    await once(storm, "message");
    const other = await EchoClient.open(bridge.url, "/ws/v1/other/echo");
    await bridge.health();
    await bridge.watchLag();
    const health: number[] = [];
    const echoes: number[] = [];
    const until = performance.now() + SECONDS[scale] * 1000;
    while (performance.now() < until) {
      health.push(await bridge.health());
      const start = performance.now();
      await other.echo(`${start}`);
      echoes.push(performance.now() - start);
      await delay(5);
    }
    const { lag } = await bridge.probe();
    const { counters } = await bridge.guest("storm");
    other.socket.terminate();
    const problems =
      counters.unknownAddress > 1000 ? [] : [`it was no storm: ${counters.unknownAddress} messages`];
    return {
      measured:
        `${SECONDS[scale]} s, ${count(counters.unknownAddress)} messages taken and thrown away: event-loop lag p50 ` +
        `${lag.p50.toFixed(1)} ms, p99 ${lag.p99.toFixed(1)} ms, most ${lag.max.toFixed(1)} ms; /healthz from another ` +
        `process ${latencies(health)}; echo of another guest ${latencies(echoes)}`,
      problems,
      slow: lag.p99 > LAG ? [`lag p99 ${lag.p99.toFixed(0)} ms`] : [],
    };
  } finally {
    storm.kill("SIGKILL");
    await bridge.stop();
  }
}
