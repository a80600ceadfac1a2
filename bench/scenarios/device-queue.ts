import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkout, startProcess } from "../harness.ts";
import type { QueueLoopOptions, QueueLoopResult } from "../load/device-queue-loop.ts";
import type { BenchOptions, Running, Sample, Scenario } from "../scenario.ts";

const SOURCE = join(checkout, "bench/native/device-queue.c");
const COMPILER = ["cc", "gcc", "clang"].find((name) => spawnSync(name, ["--version"]).error === undefined);
const LOOPS = ["request", "response"] as const;

async function run(options: QueueLoopOptions): Promise<QueueLoopResult> {
  const started = await startProcess("bench/load/device-queue-loop.js", [JSON.stringify(options)]);
  await started.stop();
  return started.ready as unknown as QueueLoopResult;
}

/** The device side of both queues, in C where there is a compiler and in this project; and what copying alone costs. */
async function start(size: number, { measureMs }: BenchOptions): Promise<Running> {
  const directory = mkdtempSync(join(tmpdir(), "rpmsg-bench-"));
  const program = join(directory, "device-queue");
  if (COMPILER !== undefined && existsSync(SOURCE)) {
    execFileSync(COMPILER, ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, SOURCE]);
  }
  const variants: Record<string, () => Promise<Sample>> = {
    "memcpy ts": async () => ({ ns: (await run({ loop: "memcpy", size, measureMs, heap: false })).ns }),
  };
  const notes: string[] = [];
  for (const loop of LOOPS) {
    // Once: what is allocated does not depend on what else the machine does.
    const { bytes: heapBytes, allocations } = await run({ loop, size, measureMs, heap: true });
    notes.push(...allocations.map((each) => `Heap profile, ${loop}: ${each} a message`));
    if (existsSync(program)) {
      variants[`${loop} c`] = async () => {
        const output = execFileSync(program, [loop, String(size), String(measureMs)]);
        return { ns: (JSON.parse(String(output)) as { ns: number }).ns };
      };
    }
    variants[`${loop} ts`] = async () => {
      const { ns } = await run({ loop, size, measureMs, heap: false });
      return { ns, heapBytes };
    };
  }
  return {
    variants,
    notes: () => notes,
    stop: async () => rmSync(directory, { recursive: true }),
  };
}

export const deviceQueues = [64, 496].map(
  (size): Scenario => ({
    name: `device-queue-${size}`,
    title: `The device side of a queue, ${size} bytes`,
    figure: { name: "ns", label: "nanoseconds a message" },
    short: size === 64,
    start: (options) => start(size, options),
  }),
);
