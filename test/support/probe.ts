/**
 * Loaded into the process of a bridge before its program (`node --import`): answers what only the process itself can
 * tell. The program runs unchanged.
 */
import { Session } from "node:inspector/promises";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { setImmediate as nextTurn } from "node:timers/promises";
import { trimMalloc } from "../../rpmsg/posix/malloc.ts";
import type { Probed, ProbeQuestion } from "./bridge-process.ts";

/** Milliseconds between two looks at the event loop. */
const RESOLUTION = 5;

const inspector = new Session();
inspector.connect();
const lag = monitorEventLoopDelay({ resolution: RESOLUTION });

process.on("message", (question: ProbeQuestion) => {
  if (question === "figures") {
    void figures().then((answer) => process.send?.(answer));
    return;
  }
  lag.reset();
  lag.enable();
  process.send?.({});
});
// The program decides how long it lives.
process.channel?.unref();

async function figures(): Promise<Probed> {
  lag.disable();
  // What finalizers and closed handles hold is free a turn later.
  for (let i = 0; i < 3; i++) {
    gc?.();
    await nextTurn();
  }
  // As V8 does where it is told that memory is short: without holes between what is left.
  await inspector.post("HeapProfiler.collectGarbage");
  await nextTurn();
  trimMalloc();
  const { heapUsed, external, arrayBuffers, rss } = process.memoryUsage();
  const resources: Record<string, number> = {};
  for (const name of process.getActiveResourcesInfo()) resources[name] = (resources[name] ?? 0) + 1;
  // The histogram counts the wait itself, too; NaN when it has not been watched.
  const ms = (share: number) => Math.max(0, lag.percentile(share) / 1e6 - RESOLUTION);
  return {
    rss,
    heapUsed,
    external,
    arrayBuffers,
    resources,
    lag: { p50: ms(50), p99: ms(99), max: Math.max(0, lag.max / 1e6 - RESOLUTION) },
  };
}
