import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { arch, availableParallelism, cpus, loadavg, release, totalmem } from "node:os";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { setTimeout as elapsed } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { LoadOptions, LoadResult } from "./load/load-options.ts";
import type { ProbeAnswer, ProbeQuestion } from "./load/probe.ts";

const STOP_TIMEOUT_MS = 5000;
/** Linux: sysconf(_SC_CLK_TCK), 100 on all architectures that Node runs on. */
const TICKS_PER_SECOND = 100;
/** Above this share of a core the generator may be what a figure measures. */
const GENERATOR_CPU_LIMIT = 0.9;
/** From this share of a core on a process that was watched is the bottleneck itself. */
const SERVER_CPU_BUSY = 0.95;

export interface StartOptions {
  /** Options of Node itself, as --expose-gc. */
  nodeArguments?: readonly string[];
  env?: Readonly<Record<string, string>>;
  /** Core to keep the process on (taskset). */
  core?: number;
  /** How long to wait for the ready line. Default: 20 seconds. */
  readyTimeoutMs?: number;
  /** Loads bench/load/probe.ts into the process, for `ask`. */
  probe?: boolean;
}

export interface StartedProcess {
  /** The first line that the process printed, which has to be a JSON object. */
  ready: Record<string, unknown>;
  pid: number;
  /** What the probe in the process answers. @throws {Error} the process was started without one, or ends meanwhile */
  ask(question: ProbeQuestion): Promise<ProbeAnswer>;
  /** Ends the process and resolves once it is gone. */
  stop(): Promise<void>;
}

/** The root of the checkout, wherever this file runs from. */
export const checkout = fileURLToPath(
  new URL(import.meta.url.endsWith(".ts") ? "../" : "../../", import.meta.url),
);

/** A compiled file: `entry` is its path inside dist/ ("bench/load/load-generator.js"), wherever this file runs from. */
export function compiled(entry: string): string {
  const root = import.meta.url.endsWith(".ts") ? "../dist/" : "../";
  return fileURLToPath(new URL(root + entry, import.meta.url));
}

/**
 * Starts a Node process and waits for it to print a line of JSON: that it is ready, or its result.
 *
 * Its standard error is passed on. It is ended with this process at the latest.
 *
 * @param entry Path of a compiled file inside dist/, "bench/load/naive-echo-server.js"
 * @throws {Error} when the process ends, prints something else or the time is over before that
 */
export async function startProcess(
  entry: string,
  args: readonly string[] = [],
  options: StartOptions = {},
): Promise<StartedProcess> {
  const { env = {}, core, readyTimeoutMs = 20_000, probe = false } = options;
  const nodeArguments = [...(options.nodeArguments ?? [])];
  if (probe) nodeArguments.push("--expose-gc", "--import", compiled("bench/load/probe.js"));
  const command = core === undefined ? process.execPath : "taskset";
  const prefix = core === undefined ? [] : ["-c", String(core), process.execPath];
  const child = spawn(command, [...prefix, ...nodeArguments, compiled(entry), ...args], {
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "inherit", ...(probe ? ["ipc" as const] : [])],
  });
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill);
  const exited = new Promise<void>((resolve) => {
    child.once("error", () => resolve());
    child.once("exit", () => resolve());
  }).finally(() => process.removeListener("exit", kill));

  async function stop(): Promise<void> {
    child.kill("SIGTERM");
    const timeout = setTimeout(kill, STOP_TIMEOUT_MS);
    await exited;
    clearTimeout(timeout);
  }

  const ended = exited.then(() => Promise.reject(new Error(`${entry} has ended`)));
  ended.catch(() => undefined);
  async function ask(question: ProbeQuestion): Promise<ProbeAnswer> {
    if (!probe) throw new Error(`${entry} runs without a probe`);
    const answer = once(child, "message");
    child.send(question);
    const [figures] = await Promise.race([answer, ended]);
    return figures as ProbeAnswer;
  }

  try {
    const lines = createInterface({ input: child.stdout as Readable });
    const timeout = AbortSignal.timeout(readyTimeoutMs);
    const failed = once(child, "error", { signal: timeout }).then(([error]) =>
      Promise.reject(error as Error),
    );
    const closed = once(lines, "close").then(() => Promise.reject(new Error("it ended before that")));
    const first = once(lines, "line", { signal: timeout }).then(
      ([line]) => JSON.parse(line as string) as unknown,
    );
    const ready = await Promise.race([first, closed, failed]);
    if (typeof ready !== "object" || ready === null) throw new Error(`it printed ${JSON.stringify(ready)}`);
    return { ready: ready as Record<string, unknown>, pid: child.pid as number, ask, stop };
  } catch (cause) {
    await stop();
    throw new Error(`${entry} printed no ready line`, { cause });
  }
}

/**
 * Puts a server under load from a process of its own.
 *
 * Give the server's process in `watchPids` to learn its CPU use in the measured time.
 *
 * @throws {Error} when a connection cannot be opened; what is wrong with answers is counted in the result
 */
export async function runLoad(load: LoadOptions, options: StartOptions = {}): Promise<LoadResult> {
  const { warmupMs = 500, measureMs = 2000, drainMs = 2000 } = load;
  const generator = await startProcess("bench/load/load-generator.js", [JSON.stringify(load)], {
    readyTimeoutMs: 20_000 + warmupMs + measureMs + drainMs,
    ...options,
  });
  await generator.stop();
  const { error } = generator.ready;
  if (typeof error === "string") throw new Error(`no load: ${error}`);
  return generator.ready as unknown as LoadResult;
}

/**
 * Whether the generator had time to spare, so that the figures are the server's. Warns when not.
 *
 * A watched process that was busy all the time is the bottleneck, however much the generator used: towards a server
 * that sends its answers one by one it wakes up for each of them, and would take more at a time if it had to.
 */
export function assertGeneratorNotBottleneck(
  result: LoadResult,
  warn: (text: string) => void = console.warn,
): boolean {
  if (result.cpu <= GENERATOR_CPU_LIMIT || result.watchedCpu.some((cpu) => cpu >= SERVER_CPU_BUSY))
    return true;
  warn(
    `The load generator used ${result.cpu.toFixed(2)} of a core: the server may be faster than this figure.`,
  );
  return false;
}

/**
 * CPU time that a process has used, all its threads, in seconds; the kernel counts in 10 ms.
 *
 * @throws {Error} ENOENT when there is no such process
 */
export function processCpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  // proc_pid_stat(5): the name may have blanks and parentheses; utime and stime are fields 14 and 15, state is 3.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/** Cores that a process uses on average while something runs, by default an interval of so many milliseconds. */
export async function cpuUse(pid: number, during: number | (() => Promise<unknown>)): Promise<number> {
  const before = processCpuSeconds(pid);
  const start = performance.now();
  await (typeof during === "number" ? elapsed(during) : during());
  return ((processCpuSeconds(pid) - before) * 1000) / (performance.now() - start);
}

/** Of an even number of values, the mean of the middle two; NaN of none. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const upper = sorted[sorted.length >> 1] ?? Number.NaN;
  const lower = sorted[(sorted.length - 1) >> 1] ?? Number.NaN;
  return (lower + upper) / 2;
}

/** Columns of text under their headings, as a Markdown table: texts to the left, numbers to the right. */
export function formatTable(rows: readonly Readonly<Record<string, string | number>>[]): string {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))].map((name) => {
    const cells = rows.map((row) => String(row[name] ?? ""));
    const numeric = rows.every((row) => typeof row[name] !== "string");
    const width = Math.max(3, name.length, ...cells.map((cell) => cell.length));
    const pad = (cell: string) => (numeric ? cell.padStart(width) : cell.padEnd(width));
    const rule = numeric ? `${"-".repeat(width - 1)}:` : "-".repeat(width);
    return [pad(name), rule, ...cells.map(pad)];
  });
  const lines = Array.from({ length: rows.length + 2 }, (_, line) => columns.map((cells) => cells[line]));
  return lines.map((cells) => `| ${cells.join(" | ")} |\n`).join("");
}

/** What the figures were measured on: processor, cores, memory, kernel, Node, and what else was running. */
export function describeMachine(): string {
  const model = cpus()[0]?.model.trim() ?? "unknown processor";
  const memory = `${(totalmem() / 2 ** 30).toFixed(0)} GiB`;
  const load = loadavg()[0]?.toFixed(2);
  const system = `${process.platform} ${release()} ${arch()}`;
  return `${model}, ${availableParallelism()} cores, ${memory}, ${system}, Node ${process.version}, load ${load}`;
}
