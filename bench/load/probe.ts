/**
 * Loaded into a process that is measured (`--import`): answers the harness over the channel between parent and child.
 * It does nothing until it is asked, and does not keep the process alive.
 */
import { monitorEventLoopDelay } from "node:perf_hooks";

/** The first tick of the delay's timer is only where it begins: before that, standing still is not seen. */
const FIRST_TICK_MS = 5;

/** figures: what the process uses now, garbage collected; watch: from now on, how long the event loop stands still. */
export type ProbeQuestion = "figures" | "watch";

export interface ProbeAnswer {
  /** Bytes. */
  rss: number;
  heapUsed: number;
  external: number;
  /** Longest time that a timer of 1 ms was late since `watch`, in milliseconds; 0 without it. */
  blockedMs: number;
}

const delay = monitorEventLoopDelay({ resolution: 1 });

function answer(question: ProbeQuestion): ProbeAnswer {
  const blockedMs = delay.max / 1e6;
  delay.reset();
  if (question === "watch") delay.enable();
  else {
    delay.disable();
    globalThis.gc?.();
  }
  const { rss, heapUsed, external } = process.memoryUsage();
  return { rss, heapUsed, external, blockedMs };
}

process.on("message", (question: ProbeQuestion) => {
  const figures = answer(question);
  setTimeout(() => process.send?.(figures), question === "watch" ? FIRST_TICK_MS : 0);
});
process.channel?.unref();
