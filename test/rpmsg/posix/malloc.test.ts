import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import process from "node:process";
import type * as Koffi from "koffi";
import { describe, expect, it } from "vitest";
import { libc, loadedLibc } from "../../../rpmsg/posix/libc.ts";
import { trimMalloc } from "../../../rpmsg/posix/malloc.ts";
import { titled, unsupported } from "./support.ts";

const MiB = 2 ** 20;
/** Less than glibc gives memory of its own that goes back with it (M_MMAP_THRESHOLD is 128 KiB at least). */
const BLOCK = 32 * 1024;

const isGlibc = "glibcVersionRuntime" in (process.report.getReport() as { header: object }).header;

/** Resident bytes that belong to no file: of the others, code that is used for the first time is part. */
function residentMemory(): number {
  const [, kibibytes] = /^RssAnon:\s+(\d+) kB/m.exec(readFileSync("/proc/self/status", "latin1")) ?? [];
  return Number(kibibytes) * 1024;
}

/** Blocks in use for a while, and one behind them that stays: malloc keeps what is before it. */
function leaveFree(bytes: number): void {
  const koffi = createRequire(import.meta.url)("koffi") as typeof Koffi;
  const library = koffi.load(null);
  const malloc = library.func("void *malloc(size_t size)");
  const memset = library.func("void *memset(void *block, int byte, size_t size)");
  const free = library.func("void free(void *block)");
  const blocks = Array.from({ length: bytes / BLOCK }, () => memset(malloc(BLOCK), 1, BLOCK) as unknown);
  malloc(BLOCK);
  for (const block of blocks) free(block);
}

it("nothing is trimmed, and nothing loaded for it, before the C library is used", () => {
  expect(trimMalloc()).toBe(false);
  expect(loadedLibc()).toBeUndefined();
});

describe.skipIf(unsupported !== undefined)(titled("malloc"), () => {
  it.skipIf(!isGlibc)("gives back what is free in the midst of its heap", () => {
    libc();
    leaveFree(64 * MiB);
    const before = residentMemory();
    expect(trimMalloc()).toBe(true);
    expect(before - residentMemory()).toBeGreaterThan(48 * MiB);
  });

  it("is left alone where the C library cannot do that", () => {
    expect(trimMalloc({ ...libc(), malloc_trim: undefined })).toBe(false);
  });
});
