import { closeSync, ftruncateSync, openSync, readSync, unlinkSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { GuestMemory } from "../../../rpmsg/memory/guest-memory.ts";
import { mappedRegion } from "../../../rpmsg/memory/mapped-memory.ts";
import { libc } from "../../../rpmsg/posix/libc.ts";
import { createMemory } from "../../../rpmsg/posix/shared-memory.ts";
import { socketPair } from "../../../rpmsg/posix/unix-socket.ts";
import { descriptorCount, memoryRanges, titled, unsupported } from "../posix/support.ts";
import { codeOf } from "../support/coded.ts";
import { windowOf } from "../support/windows.ts";

const MFD_ALLOW_SEALING = 2;
const F_GET_SEALS = 1034;
const F_SEAL_SHRINK = 2;
const PAGE = 4096;
const GiB = 2 ** 30;
const MiB = 2 ** 20;

function memfd(name: string, size: number, flags = 1 | MFD_ALLOW_SEALING): number {
  const fd = libc().memfd_create(name, flags);
  expect(fd).toBeGreaterThanOrEqual(0);
  ftruncateSync(fd, size);
  return fd;
}

/** A file of a directory, which cannot be sealed. */
function plainFile(size: number, flags: "w+" | "r"): number {
  const path = join(tmpdir(), `rpmsg-mapped-${process.pid}`);
  const fd = openSync(path, "w+");
  ftruncateSync(fd, size);
  if (flags === "w+") {
    unlinkSync(path);
    return fd;
  }
  const other = openSync(path, flags);
  closeSync(fd);
  unlinkSync(path);
  return other;
}

describe.skipIf(unsupported !== undefined)(titled("mapped memory"), () => {
  it("shares bytes with its file from the offset on, in both directions", () => {
    const fd = memfd("both", 4 * PAGE);
    const region = mappedRegion(fd, PAGE, 0x8000_0000, 0x7f00_0000_0000, 2 * PAGE);
    expect(region).toMatchObject({
      fd,
      guestAddress: 0x8000_0000,
      userAddress: 0x7f00_0000_0000,
      size: 2 * PAGE,
    });
    const { u8, u16, u32 } = windowOf(region);
    expect([u8.length, u16.length, u32.length]).toEqual([2 * PAGE, PAGE, PAGE / 2]);
    u32[1] = 0x04030201;
    const read = new Uint8Array(4);
    readSync(fd, read, 0, 4, PAGE + 4);
    expect([...read]).toEqual([1, 2, 3, 4]);
    writeSync(fd, Uint8Array.of(0x34, 0x12), 0, 2, 3 * PAGE - 2);
    expect(u16[PAGE - 1]).toBe(0x1234);
    region.close();
  });

  it("keeps its descriptor open until it is closed, then lets go of file and descriptor", () => {
    const before = descriptorCount();
    const region = mappedRegion(memfd("life", PAGE), 0, 0, 0, PAGE);
    expect(descriptorCount()).toBe(before + 1);
    const { u8 } = windowOf(region);
    u8[0] = 1;
    expect(memoryRanges("life")).toHaveLength(1);
    region.close();
    expect(descriptorCount()).toBe(before);
    expect(memoryRanges("life")).toEqual([]);
    // A view that is still about is harmless.
    expect(u8[0]).toBe(0);
    u8[0] = 2;
  });

  it("seals its file against shrinking where the file allows it", () => {
    const fd = memfd("sealed", 2 * PAGE);
    expect(libc().fcntl(fd, F_GET_SEALS, 0)).toBe(0);
    const region = mappedRegion(fd, 0, 0, 0, PAGE);
    expect(libc().fcntl(fd, F_GET_SEALS, 0)).toBe(F_SEAL_SHRINK);
    expect(() => ftruncateSync(fd, 0)).toThrow("EPERM");
    expect(windowOf(region).u8[PAGE - 1]).toBe(0);
    region.close();
  });

  it("takes files that cannot be sealed", () => {
    for (const fd of [memfd("unsealable", PAGE, 1), plainFile(PAGE, "w+")]) {
      const region = mappedRegion(fd, 0, 0, 0, PAGE);
      windowOf(region).u8[5] = 9;
      expect(windowOf(region).u8[5]).toBe(9);
      region.close();
    }
  });

  it.each<[string, () => number, number, number, string]>([
    ["a file one byte too small", () => memfd("bad", PAGE - 1), 0, PAGE, "memory-range"],
    ["an empty file", () => memfd("bad", 0), 0, PAGE, "memory-range"],
    ["a region that ends behind the file", () => memfd("bad", 2 * PAGE), PAGE, PAGE + 1, "memory-range"],
    ["a region that begins behind the file", () => memfd("bad", PAGE), 2 * PAGE, PAGE, "memory-range"],
    ["an end that is no exact Number", () => memfd("bad", PAGE), 2 ** 53, PAGE, "memory-range"],
    ["an end beyond 64 bits", () => memfd("bad", PAGE), 2 ** 64, 2 ** 64, "memory-range"],
    ["no bytes", () => memfd("bad", PAGE), 0, 0, "memory-range"],
    ["a negative size", () => memfd("bad", PAGE), 0, -PAGE, "memory-range"],
    ["no number of bytes", () => memfd("bad", PAGE), 0, Number.NaN, "memory-range"],
    ["no number as offset", () => memfd("bad", PAGE), Number.NaN, PAGE, "memory-range"],
    ["a negative offset", () => memfd("bad", PAGE), -PAGE, PAGE, "memory-map"],
    ["an unaligned offset", () => memfd("bad", 2 * PAGE), 8, PAGE, "memory-map"],
    ["a file that is read only", () => plainFile(PAGE, "r"), 0, PAGE, "memory-map"],
    ["a socket", () => oneSocket(), 0, PAGE, "memory-range"],
  ])("refuses %s, and closes the descriptor", (_, open, offset, size, code) => {
    const before = descriptorCount();
    const fd = open();
    expect(codeOf(() => mappedRegion(fd, offset, 0, 0, size))).toBe(code);
    expect(descriptorCount()).toBe(before);
    expect(memoryRanges("bad")).toEqual([]);
  });

  it("refuses a closed descriptor", () => {
    const fd = memfd("gone", PAGE);
    closeSync(fd);
    expect(codeOf(() => mappedRegion(fd, 0, 0, 0, PAGE))).toBe("memory-map");
  });

  it("leaks nothing when it is mapped, refused and closed again and again", () => {
    const before = descriptorCount();
    for (let round = 0; round < 50; round++) {
      const memory = new GuestMemory();
      memory.add(mappedRegion(createMemory("again", PAGE), 0, 0, 0, PAGE));
      const second = mappedRegion(createMemory("again", PAGE), 0, 0, 0, PAGE);
      expect(codeOf(() => memory.add(second))).toBe("memory-overlap");
      second.close();
      expect(codeOf(() => mappedRegion(createMemory("again", PAGE), 0, 0, 0, 2 * PAGE))).toBe("memory-range");
      memory.close();
    }
    expect(descriptorCount()).toBe(before);
    expect(memoryRanges("again")).toEqual([]);
  });

  it("of more than a GiB is one piece for its users", () => {
    const fd = createMemory("large", 2 * GiB);
    const guest = 0x1_0000_0000;
    const user = 0x7f00_0000_0000;
    const memory = new GuestMemory();
    memory.add(mappedRegion(fd, 0, guest, user, 2 * GiB));
    const text = Buffer.from("across the border of two windows");
    for (const border of [GiB, 2 * GiB - 2 * MiB, 2 * GiB - MiB]) {
      writeSync(fd, text, 0, text.length, border - 16);
      const read = Buffer.alloc(text.length);
      expect(memory.read(guest + border - 16, read, 0, text.length)).toBe(true);
      expect(read.equals(text)).toBe(true);
      // Anything small lies whole in one window.
      const window = memory.find(guest + border - 16, text.length);
      expect(window).toBeDefined();
      expect(memory.findUser(user + border - 16, text.length)).toBe(window);
      const offset = guest + border - 16 - (window?.guestAddress ?? 0);
      expect(Buffer.from(window?.u8.subarray(offset, offset + text.length) ?? []).equals(text)).toBe(true);
    }
    expect(memory.find(guest, 2 * GiB)).toBeUndefined();
    memory.close();
  });
});

/** A descriptor that has no size. */
function oneSocket(): number {
  const [socket, other] = socketPair();
  closeSync(other);
  return socket;
}
