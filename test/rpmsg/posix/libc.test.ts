import { createRequire } from "node:module";
import process from "node:process";
import { afterEach, describe, expect, it, vi } from "vitest";
import { titled, unsupported } from "./support.ts";

const modules = ["libc", "poller", "eventfd", "shared-memory", "unix-socket", "errno"] as const;

function koffiIsLoaded(): boolean {
  return Object.keys(createRequire(import.meta.url).cache).some((path) => path.includes("koffi"));
}

afterEach(() => {
  vi.unstubAllGlobals();
  vi.resetModules();
});

describe("loading the C library", () => {
  it.each([
    ["darwin", "arm64"],
    ["win32", "x64"],
    ["linux", "riscv64"],
  ])("is refused on %s %s, with a reason", async (platform, arch) => {
    const found = { platform: process.platform, arch: process.arch };
    const { createEventfd } = await import("../../../rpmsg/posix/eventfd.ts");
    Object.defineProperties(process, { platform: { value: platform }, arch: { value: arch } });
    try {
      expect(() => createEventfd()).toThrow(
        "vhost-user needs Linux on x86-64 or arm64; emulated guests work everywhere",
      );
    } finally {
      Object.defineProperties(process, { platform: { value: found.platform }, arch: { value: found.arch } });
    }
    expect(koffiIsLoaded()).toBe(false);
  });
});

describe.skipIf(unsupported !== undefined)(titled("koffi"), () => {
  it("is loaded by the first call, not by an import", async () => {
    for (const name of modules) {
      await import(`../../../rpmsg/posix/${name}.ts`);
    }
    expect(koffiIsLoaded()).toBe(false);
    const { libc } = await import("../../../rpmsg/posix/libc.ts");
    expect(libc()).toBe(libc());
    expect(koffiIsLoaded()).toBe(true);
  });

  it("allocates zeroed and aligned blocks", async () => {
    const { libc } = await import("../../../rpmsg/posix/libc.ts");
    const { address, buffer } = libc().allocate(1000);
    expect(address % 16n).toBe(0n);
    expect(new Uint8Array(buffer)).toEqual(new Uint8Array(1000));
  });
});
