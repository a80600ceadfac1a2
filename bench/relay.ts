import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assertGeneratorNotBottleneck, interleave, median, runLoad, startProcess } from "./harness.ts";
import type { LoadResult } from "./load/load-options.ts";

/** A load: `clients` connections, `inFlight` messages of `size` bytes outstanding on each. */
export interface Scenario {
  clients: number;
  size: number;
  inFlight: number;
}

export interface RelayResult {
  scenario: Scenario;
  /** Messages a second and median latency, as medians over the rounds. */
  naive: { perSecond: number; p50us: number };
  bridge: { perSecond: number; p50us: number };
  /** Medians of the ratios within a round, and the range of the throughput's. */
  throughputRatio: number;
  throughputRange: readonly [number, number];
  latencyRatio: number;
  /** Share of a core that the load generator used, at most over all runs. */
  generatorCpu: number;
}

export interface RelayOptions {
  rounds: number;
  measureMs: number;
}

/**
 * Echo through the bridge (client, bridge, guest in a process of its own over vhost-user, and back) beside a plain
 * `ws` echo server, in turns in the same run.
 */
export async function benchRelay(
  scenarios: readonly Scenario[],
  options: RelayOptions,
): Promise<RelayResult[]> {
  const directory = mkdtempSync(join(tmpdir(), "rpmsg-bench-"));
  const socket = join(directory, "guest.sock");
  const naive = await startProcess("bench/load/naive-echo-server.js");
  const bridge = await startProcess("server/main.js", [
    "serve",
    "--listen",
    "127.0.0.1:0",
    "--guest",
    `bench=vhost-user:${socket}`,
  ]);
  const guest = await startProcess("server/main.js", ["guest", "--socket", socket]);
  try {
    const servers = {
      naive: { port: Number(naive.ready["port"]), path: "/", pid: naive.pid },
      bridge: {
        port: Number(new URL(String(bridge.ready["url"])).port),
        path: "/ws/v1/bench/echo",
        pid: bridge.pid,
      },
    };
    const results: RelayResult[] = [];
    for (const scenario of scenarios) results.push(await measure(scenario, servers, options));
    return results;
  } finally {
    await Promise.all([naive.stop(), bridge.stop(), guest.stop()]);
    rmSync(directory, { recursive: true });
  }
}

type Servers = Record<"naive" | "bridge", { port: number; path: string; pid: number }>;

async function measure(
  scenario: Scenario,
  servers: Servers,
  { rounds, measureMs }: RelayOptions,
): Promise<RelayResult> {
  const runs: Record<"naive" | "bridge", LoadResult[]> = { naive: [], bridge: [] };
  const run = (name: "naive" | "bridge") => async () => {
    const { port, path, pid } = servers[name];
    const result = await runLoad({
      ...scenario,
      port,
      path,
      warmupMs: measureMs / 4,
      measureMs,
      watchPids: [pid],
    });
    if (result.errors > 0) throw new Error(`${name}: ${result.errors} errors, first: ${result.firstFault}`);
    assertGeneratorNotBottleneck(result);
    runs[name].push(result);
    return result.perSecond;
  };
  const { naive, bridge } = await interleave({
    rounds,
    variants: { naive: run("naive"), bridge: run("bridge") },
    baseline: "naive",
  });
  if (naive === undefined || bridge === undefined) throw new Error("a variant did not run");
  const latency = (name: "naive" | "bridge") => median(runs[name].map((each) => each.p50us));
  return {
    scenario,
    naive: { perSecond: naive.median, p50us: latency("naive") },
    bridge: { perSecond: bridge.median, p50us: latency("bridge") },
    throughputRatio: bridge.ratioMedian,
    throughputRange: bridge.ratioRange,
    latencyRatio: median(runs.bridge.map((each, i) => each.p50us / (runs.naive[i]?.p50us ?? Number.NaN))),
    generatorCpu: Math.max(...[...runs.naive, ...runs.bridge].map((each) => each.cpu)),
  };
}
