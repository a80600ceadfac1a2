import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { setTimeout as elapsed } from "node:timers/promises";
import { startProcess } from "../harness.ts";
import type { Sample, Scenario } from "../scenario.ts";

/** After this a process that has nothing to do has come to rest. */
const REST_MS = 1000;

/** Resident memory of a process, in MiB (proc_pid_status(5)). */
function residentMib(pid: number): number {
  const [, kib] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1")) ?? [];
  return Number(kib) / 1024;
}

async function measure(entry: string, args: readonly string[]): Promise<Sample> {
  const before = performance.now();
  const started = await startProcess(entry, args, { env: { RPMSG_BRIDGE_LOG_LEVEL: "warn" } });
  const readyMs = performance.now() - before;
  await elapsed(REST_MS);
  const rssMib = residentMib(started.pid);
  await started.stop();
  return { readyMs, rssMib };
}

/** How soon `serve` is ready and what it takes when it idles, beside Node alone and a bare HTTP server. */
export const starting: Scenario = {
  name: "start",
  title: "Start and memory of an idle bridge",
  figure: { name: "readyMs", label: "milliseconds until it is ready" },
  async start() {
    return {
      variants: {
        async node() {
          const before = performance.now();
          await once(spawn(process.execPath, ["-e", "0"], { stdio: "ignore" }), "exit");
          return { readyMs: performance.now() - before };
        },
        "bare http": () => measure("bench/load/bare-http-server.js", []),
        bridge: () => measure("server/main.js", ["serve", "--listen", "127.0.0.1:0"]),
      },
      stop: async () => undefined,
    };
  },
};
