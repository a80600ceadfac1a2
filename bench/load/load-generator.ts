import { realpathSync } from "node:fs";
import { setTimeout as elapsed } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { processCpuSeconds } from "../harness.ts";
import { Connection } from "./connection.ts";
import { deferred } from "./deferred.ts";
import type { LoadFailure, LoadOptions, LoadResult } from "./load-options.ts";
import { loadOptions } from "./load-options.ts";
import { Run } from "./run.ts";

const CONNECT_TIMEOUT_MS = 10_000;

async function openAll(connections: readonly Connection[]): Promise<void> {
  const late = deferred();
  const timeout = setTimeout(
    () => late.reject(new Error("the server answers no handshake")),
    CONNECT_TIMEOUT_MS,
  );
  try {
    await Promise.race([late.promise, Promise.all(connections.map(({ opened }) => opened))]);
  } finally {
    clearTimeout(timeout);
  }
}

/** Resolves when no answer is to be expected any more, or after a time. */
async function drain(run: Run, connections: readonly Connection[], ms: number): Promise<void> {
  const drained = deferred();
  const timeout = setTimeout(drained.resolve, ms);
  run.onIdle = () => {
    if (connections.every(({ idle }) => idle)) drained.resolve();
  };
  run.onIdle();
  await drained.promise;
  clearTimeout(timeout);
  run.onIdle = undefined;
}

/**
 * Puts a WebSocket server that echoes under load and measures it.
 *
 * Each answer sends the next message at once, as busy clients would: the generator does not wait for more answers to
 * come, even though it would use less CPU then. Nearly all of that CPU is the kernel's, for the reads and writes.
 *
 * For figures, start this file as a process of its own, see `runLoad` in harness.ts.
 *
 * @throws {Error} when a connection cannot be opened. What goes wrong later is counted.
 */
export async function generateLoad(input: LoadOptions): Promise<LoadResult> {
  const options = loadOptions.parse(input);
  const { clients, warmupMs, measureMs, drainMs, watchPids } = options;
  const run = new Run();
  const connections = Array.from({ length: clients }, (_, index) => new Connection(run, options, index));
  try {
    await openAll(connections);

    run.sending = true;
    for (const connection of connections) connection.start();
    if (warmupMs > 0) await elapsed(warmupMs);

    run.messages = 0;
    run.reads = 0;
    run.latencies.clear();
    const watched = watchPids.map((pid) => ({ pid, before: processCpuSeconds(pid) }));
    const cpuBefore = process.cpuUsage();
    const start = performance.now();
    await elapsed(measureMs);
    const seconds = (performance.now() - start) / 1000;
    const { user, system } = process.cpuUsage(cpuBefore);
    const watchedCpu = watched.map(({ pid, before }) => (processCpuSeconds(pid) - before) / seconds);
    const { messages, reads } = run;
    const p50us = run.latencies.quantile(0.5);
    const p99us = run.latencies.quantile(0.99);

    run.sending = false;
    await drain(run, connections, drainMs);
    await Promise.all(connections.map((connection) => connection.close()));

    const { corrupted, missing, reordered, protocol } = run.faults;
    return {
      messages,
      seconds,
      perSecond: messages / seconds,
      p50us,
      p99us,
      errors: corrupted + missing + reordered + protocol,
      faults: run.faults,
      firstFault: run.firstFault,
      unexpected: run.unexpected,
      messagesPerRead: reads === 0 ? 0 : messages / reads,
      cpu: (user + system) / 1e6 / seconds,
      watchedCpu,
    };
  } finally {
    for (const connection of connections) connection.destroy();
  }
}

async function main(argument: string | undefined): Promise<void> {
  let line: LoadResult | LoadFailure;
  try {
    line = await generateLoad(JSON.parse(argument ?? "{}"));
  } catch (error) {
    line = { error: error instanceof Error ? error.message : String(error) };
    process.exitCode = 1;
  }
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  await main(process.argv[2]);
}
