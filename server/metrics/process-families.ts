import { readdirSync } from "node:fs";
import { performance } from "node:perf_hooks";
import { getHeapStatistics } from "node:v8";
import { mostDescriptors } from "../descriptors.ts";
import type { Histogram } from "../histogram.ts";
import type { Family } from "./family.ts";
import { counter, gauge, histogram } from "./family.ts";

/** The process, under the names that all Prometheus clients use. */
export function processFamilies(lag: Histogram): Family[] {
  const heap = getHeapStatistics();
  const rss = residentMemory();
  const { user, system } = process.cpuUsage();
  const families = [
    histogram("nodejs_eventloop_lag_seconds", "How late timers are, while somebody scrapes.", [
      { labels: {}, histogram: lag },
    ]),
    counter(
      "nodejs_eventloop_active_seconds_total",
      "Time in which the event loop did not wait for anything.",
      performance.eventLoopUtilization().active / 1000,
    ),
    ...(rss === undefined ? [] : [gauge("process_resident_memory_bytes", "Resident memory.", rss)]),
    gauge(
      "process_start_time_seconds",
      "When the process started, since 1970.",
      performance.timeOrigin / 1000,
    ),
    counter("process_cpu_seconds_total", "Processor time, of user and system.", (user + system) / 1e6),
    gauge("nodejs_heap_size_total_bytes", "Heap of JavaScript, as reserved.", heap.total_heap_size),
    gauge("nodejs_heap_size_used_bytes", "Heap of JavaScript, as used.", heap.used_heap_size),
    gauge(
      "nodejs_external_memory_bytes",
      "Memory outside the heap that belongs to its objects.",
      heap.external_memory,
    ),
  ];
  const descriptors = descriptorsOf();
  if (descriptors === undefined) return families;
  return [
    ...families,
    gauge("process_open_fds", "File descriptors that are open. Linux only.", descriptors.open),
    gauge("process_max_fds", "File descriptors that may be open. Linux only.", descriptors.most),
  ];
}

/** Undefined when no descriptor is left to ask for it. */
function residentMemory(): number | undefined {
  try {
    return process.memoryUsage.rss();
  } catch {
    return undefined;
  }
}

/** How many file descriptors there are and may be; undefined where the system does not tell (not Linux). */
function descriptorsOf(): { open: number; most: number } | undefined {
  try {
    // One is that of the directory itself.
    const open = readdirSync("/proc/self/fd").length - 1;
    return { open, most: mostDescriptors };
  } catch (error) {
    const none = (error as NodeJS.ErrnoException).code === "EMFILE";
    return none ? { open: mostDescriptors, most: mostDescriptors } : undefined;
  }
}
