import { runLoad } from "./harness.ts";
import type { LoadOptions } from "./load/load-options.ts";
import type { BenchOptions, Sample, Shape } from "./scenario.ts";

/** The generator is a new process each time: it has to compile what it runs. */
const LEAST_WARMUP_MS = 300;

export interface EchoTarget {
  port: number;
  path: string;
  /** Processes whose CPU use is part of the figures, by role: `Server` gives `cpuServer`. */
  watch: Readonly<Record<string, number>>;
  stream?: boolean;
  subprotocol?: string;
}

/**
 * Puts an echo under load once.
 * @returns perSecond, p50us, p99us; cores used by the load generator (`cpuGenerator`) and by each watched process; and
 *   `cost`, microseconds of the server's CPU for a message
 * @throws {Error} when an answer was wrong or missing
 */
export async function measureEcho(
  shape: Shape,
  { port, path, watch, stream = false, subprotocol }: EchoTarget,
  { measureMs }: BenchOptions,
): Promise<Sample> {
  const roles = Object.keys(watch);
  const load: LoadOptions = {
    ...shape,
    ...{ port, path, stream, subprotocol, measureMs },
    ...{ warmupMs: Math.max(LEAST_WARMUP_MS, Math.round(measureMs / 3)), watchPids: Object.values(watch) },
  };
  const result = await runLoad(load);
  if (result.errors > 0) throw new Error(`${path}: ${result.errors} errors, first: ${result.firstFault}`);
  const { perSecond, p50us, p99us, cpu, watchedCpu } = result;
  const cpus = roles.map((role, i) => [`cpu${role}`, watchedCpu[i] ?? Number.NaN] as const);
  const server = watchedCpu[roles.indexOf("Server")];
  const cost = server === undefined ? {} : { cost: (server * 1e6) / perSecond };
  return { perSecond, p50us, p99us, ...cost, cpuGenerator: cpu, ...Object.fromEntries(cpus) };
}
