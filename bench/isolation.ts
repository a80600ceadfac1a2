import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assertGeneratorNotBottleneck, interleave, median, runLoad, startProcess } from "./harness.ts";
import type { LoadResult } from "./load/load-options.ts";
import type { RelayOptions, Scenario } from "./relay.ts";

export interface IsolationResult {
  scenario: Scenario;
  /** Messages a second, and microseconds, as medians over the rounds. */
  plain: { perSecond: number; p50us: number };
  isolated: { perSecond: number; p50us: number };
  /** Isolated to plain: medians of the ratios within a round, and the range of the throughput's. */
  throughputRatio: number;
  throughputRange: readonly [number, number];
  latencyRatio: number;
}

const VARIANTS = ["plain", "isolated"] as const;
type Variant = (typeof VARIANTS)[number];

/**
 * What `isolation: process` costs: echo through one bridge and two guests, each in a process of its own over vhost-user,
 * of which one is isolated; in turns in the same run.
 */
export async function benchIsolation(
  scenarios: readonly Scenario[],
  options: RelayOptions,
): Promise<IsolationResult[]> {
  const directory = mkdtempSync(join(tmpdir(), "rpmsg-bench-"));
  const socket = (variant: Variant) => join(directory, `${variant}.sock`);
  const bridge = await startProcess("server/main.js", [
    "serve",
    "--listen",
    "127.0.0.1:0",
    "--guest",
    `plain=vhost-user:${socket("plain")}`,
    "--guest",
    `isolated=vhost-user:${socket("isolated")},isolation=process`,
  ]);
  const guests = await Promise.all(
    VARIANTS.map((variant) => startProcess("server/main.js", ["guest", "--socket", socket(variant)])),
  );
  try {
    const port = Number(new URL(String(bridge.ready["url"])).port);
    const results: IsolationResult[] = [];
    for (const scenario of scenarios) results.push(await measure(scenario, port, options));
    return results;
  } finally {
    await Promise.all([bridge.stop(), ...guests.map((guest) => guest.stop())]);
    rmSync(directory, { recursive: true });
  }
}

async function measure(
  scenario: Scenario,
  port: number,
  { rounds, measureMs }: RelayOptions,
): Promise<IsolationResult> {
  const runs: Record<Variant, LoadResult[]> = { plain: [], isolated: [] };
  const run = (variant: Variant) => async () => {
    const path = `/ws/v1/${variant}/echo`;
    const result = await runLoad({ ...scenario, port, path, warmupMs: measureMs / 4, measureMs });
    if (result.errors > 0)
      throw new Error(`${variant}: ${result.errors} errors, first: ${result.firstFault}`);
    assertGeneratorNotBottleneck(result);
    runs[variant].push(result);
    return result.perSecond;
  };
  const { plain, isolated } = await interleave({
    rounds,
    variants: { plain: run("plain"), isolated: run("isolated") },
    baseline: "plain",
  });
  if (plain === undefined || isolated === undefined) throw new Error("a variant did not run");
  const latency = (variant: Variant) => median(runs[variant].map((each) => each.p50us));
  return {
    scenario,
    plain: { perSecond: plain.median, p50us: latency("plain") },
    isolated: { perSecond: isolated.median, p50us: latency("isolated") },
    throughputRatio: isolated.ratioMedian,
    throughputRange: isolated.ratioRange,
    latencyRatio: median(runs.isolated.map((each, i) => each.p50us / (runs.plain[i]?.p50us ?? Number.NaN))),
  };
}
