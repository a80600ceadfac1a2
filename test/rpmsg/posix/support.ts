import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import process from "node:process";
import { setImmediate } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type * as Koffi from "koffi";
import { createEventfd, signalEventfd } from "../../../rpmsg/posix/eventfd.ts";
import type { Poller } from "../../../rpmsg/posix/poller.ts";
import { closeFd } from "../../../rpmsg/posix/unix-socket.ts";

/** Why the suites of this folder do not run here, or undefined where they do. */
export const unsupported: string | undefined =
  process.platform === "linux" && (process.arch === "x64" || process.arch === "arm64")
    ? undefined
    : `needs Linux on x64 or arm64, this is ${process.platform} ${process.arch}`;

/** The name of a suite, with the reason when it is skipped. */
export function titled(name: string): string {
  return unsupported === undefined ? name : `${name} (skipped: ${unsupported})`;
}

/** Open descriptors of this process, with the one that the listing itself uses. */
export function descriptorCount(): number {
  return readdirSync("/proc/self/fd").length;
}

/**
 * Refuses descriptor numbers from `limit` on (RLIMIT_NOFILE, getrlimit(2)): with 0, every new one.
 * @returns ends that
 */
export function limitDescriptors(limit: number): () => void {
  const koffi = createRequire(import.meta.url)("koffi") as typeof Koffi;
  const library = koffi.load(null);
  const getrlimit = library.func("int getrlimit(int resource, void *limits)");
  const setrlimit = library.func("int setrlimit(int resource, const void *limits)");
  const limits = new BigUint64Array(2);
  const done = [
    getrlimit(7, limits),
    setrlimit(7, BigUint64Array.of(BigInt(limit), limits[1] as bigint)),
  ] as const;
  if (done.some((result) => result !== 0)) throw new Error("cannot limit the descriptors");
  return () => {
    if (setrlimit(7, limits) !== 0) throw new Error("cannot raise the limit of descriptors");
  };
}

/** Calls a function while descriptor numbers from `limit` on are refused. */
export function withDescriptorLimit<T>(limit: number, call: () => T): T {
  const end = limitDescriptors(limit);
  try {
    return call();
  } finally {
    end();
  }
}

/** Status flags and O_CLOEXEC of a descriptor (proc_pid_fdinfo(5)). */
export function flagsOf(fd: number): number {
  const flags = /^flags:\s+([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "latin1"));
  return Number.parseInt(flags?.[1] ?? "", 8);
}

/** Mappings of this process. */
export function mappingCount(): number {
  return mappings().length;
}

/** The address ranges at which this process has a memfd of that name mapped. */
export function memoryRanges(name: string): { readonly start: bigint; readonly end: bigint }[] {
  return mappings()
    .filter((line) => line.includes(`/memfd:${name}`))
    .map(rangeOf);
}

/** Whether any part of a range of addresses is mapped. */
export function isMapped(range: { readonly start: bigint; readonly end: bigint }): boolean {
  return mappings()
    .map(rangeOf)
    .some(({ start, end }) => start < range.end && end > range.start);
}

/** Resolves when the poller has delivered an event that was signalled now, and so all that were signalled before. */
export async function settle(poller: Poller): Promise<void> {
  const fd = createEventfd();
  await new Promise((resolve) => {
    poller.add(fd, resolve);
    signalEventfd(fd);
  });
  poller.remove(fd);
  closeFd(fd);
  await setImmediate(); // the rest of that batch
}

/** Collects garbage, and lets finalizers run. */
export async function collectGarbage(): Promise<void> {
  setFlagsFromString("--expose-gc");
  const gc = runInNewContext("gc") as () => void;
  gc();
  await setImmediate();
}

function mappings(): string[] {
  return readFileSync("/proc/self/maps", "latin1").split("\n").filter(Boolean);
}

function rangeOf(line: string): { readonly start: bigint; readonly end: bigint } {
  const [start, end] = line.slice(0, line.indexOf(" ")).split("-");
  return { start: BigInt(`0x${start}`), end: BigInt(`0x${end}`) };
}
