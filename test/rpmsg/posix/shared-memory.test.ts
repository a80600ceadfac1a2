import {
  closeSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { errno } from "../../../rpmsg/posix/errno.ts";
import { libc } from "../../../rpmsg/posix/libc.ts";
import type { Mapping } from "../../../rpmsg/posix/shared-memory.ts";
import { createMemory, fileSize, mapShared, sealShrink } from "../../../rpmsg/posix/shared-memory.ts";
import { closeFd, socketPair } from "../../../rpmsg/posix/unix-socket.ts";
import { collectGarbage, descriptorCount, isMapped, memoryRanges, titled, unsupported } from "./support.ts";

const GiB = 2 ** 30;
const MiB = 2 ** 20;
const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;

const opened: number[] = [];

function memory(name: string, size: number): number {
  const fd = createMemory(name, size);
  expect(fd).toBeGreaterThanOrEqual(0);
  opened.push(fd);
  return fd;
}

function mapped(result: Mapping | number): Mapping {
  if (typeof result === "number") {
    throw new Error(`mapShared gave ${result}`);
  }
  return result;
}

function bytesOf(mapping: Mapping, window: number): Uint8Array {
  const found = mapping.windows[window];
  if (found === undefined) {
    throw new Error(`no window ${window}`);
  }
  return new Uint8Array(found.buffer);
}

function shape(mapping: Mapping): [number, number][] {
  return mapping.windows.map(({ offset, buffer }) => [offset, buffer.byteLength]);
}

/** The address range of the only mapping of that name. */
function rangeOf(name: string): { readonly start: bigint; readonly end: bigint } {
  const ranges = memoryRanges(name);
  expect(ranges).toHaveLength(1);
  return ranges[0] as { start: bigint; end: bigint };
}

afterEach(() => {
  for (const fd of opened.splice(0)) {
    closeFd(fd);
  }
});

describe.skipIf(unsupported !== undefined)(titled("shared memory"), () => {
  describe("files", () => {
    it("have the size asked for and cannot change it, but can be sealed further", () => {
      const fd = memory("sealed", 5 * GiB);
      expect(fileSize(fd)).toBe(5 * GiB);
      expect(libc().fcntl(fd, F_GET_SEALS, 0)).toBe(2 | 4); // F_SEAL_SHRINK, F_SEAL_GROW
      expect(libc().ftruncate(fd, 4 * GiB)).toBe(-1);
      expect(libc().error()).toBe(-errno.EPERM);
      expect(libc().ftruncate(fd, 6 * GiB)).toBe(-1);
      expect(sealShrink(fd)).toBe(true);
      expect(libc().fcntl(fd, F_ADD_SEALS, 1)).toBe(0); // F_SEAL_SEAL
      expect(sealShrink(fd)).toBe(true);
    });

    it.each([-1, 1.5, Number.NaN, 2 ** 53])("cannot have the size %d", (size) => {
      const before = descriptorCount();
      expect(createMemory("bad", size)).toBe(-errno.EINVAL);
      expect(descriptorCount()).toBe(before);
    });

    it("are refused with too long a name", () => {
      expect(createMemory("x".repeat(250), 4096)).toBe(-errno.EINVAL);
    });

    it("are sealed against shrinking where they allow it", () => {
      const c = libc();
      const open = c.memfd_create("open", 3);
      const closed = c.memfd_create("closed", 1); // without MFD_ALLOW_SEALING
      const [socket, other] = socketPair();
      opened.push(open, closed, socket, other);
      expect(sealShrink(open)).toBe(true);
      expect(sealShrink(closed)).toBe(false);
      expect(sealShrink(socket)).toBe(false);
      expect(sealShrink(-1)).toBe(false);
    });

    it("that are none have the size 0, closed ones -EBADF", () => {
      const [socket, other] = socketPair();
      opened.push(socket, other);
      expect(fileSize(socket)).toBe(0);
      expect(fileSize(-1)).toBe(-errno.EBADF);
      expect(fileSize(-100)).toBe(-errno.EBADF); // AT_FDCWD
    });

    it("in a directory report their size too", () => {
      const directory = mkdtempSync(join(tmpdir(), "rpmsg-posix-"));
      const path = join(directory, "file");
      writeFileSync(path, "");
      truncateSync(path, 3 * GiB + 5);
      const fd = openSync(path, "r");
      expect(fileSize(fd)).toBe(3 * GiB + 5);
      expect(mapShared(fd, 0, 4096)).toBe(-errno.EACCES); // read only
      closeSync(fd);
      rmSync(directory, { recursive: true });
    });
  });

  describe("mappings", () => {
    it("share their bytes with the file, from the offset on", () => {
      const fd = memory("shared", 16384);
      const mapping = mapped(mapShared(fd, 8192, 8000));
      expect(mapping.size).toBe(8000);
      expect(shape(mapping)).toEqual([[0, 8000]]);
      const bytes = bytesOf(mapping, 0);
      bytes.set([1, 2, 3], 10);
      const read = new Uint8Array(3);
      readSync(fd, read, 0, 3, 8192 + 10);
      expect([...read]).toEqual([1, 2, 3]);
      writeSync(fd, Uint8Array.of(9), 0, 1, 8192 + 7999);
      expect(bytes[7999]).toBe(9);
      mapping.unmap();
    });

    it.each([
      ["unaligned offset", 100, 4096, 4096, 0],
      ["negative offset", -4096, 4096, 4096, 0],
      ["empty", 0, 0, 4096, 0],
      ["fractional size", 0, 0.5, 4096, 0],
      ["behind the end of the file", 4096, 16384, 4096, 0],
      ["no progress", 0, 16384, 4096, 4096],
      ["window too large", 0, 16384, 2 * GiB, 0],
      ["unaligned window", 0, 16384, 4097, 0],
      ["unaligned overlap", 0, 16384, 4096, 1],
    ])("are refused: %s", (_, offset, size, windowSize, overlap) => {
      const fd = memory("refused", 16384);
      expect(mapShared(fd, offset, size, windowSize, overlap)).toBe(-errno.EINVAL);
      expect(memoryRanges("refused")).toEqual([]);
    });

    it("are refused for a closed descriptor and for a socket", () => {
      const [socket, other] = socketPair();
      opened.push(socket, other);
      expect(mapShared(-1, 0, 4096)).toBe(-errno.EBADF);
      expect(mapShared(socket, 0, 4096)).toBe(-errno.ENODEV);
    });

    it("survive the descriptor", () => {
      const fd = createMemory("closed", 4096);
      const mapping = mapped(mapShared(fd, 0, 4096));
      closeFd(fd);
      const bytes = bytesOf(mapping, 0);
      bytes[4095] = 5;
      expect(bytes[4095]).toBe(5);
      mapping.unmap();
    });
  });

  describe("windows", () => {
    it.each([
      // size, windowSize, overlap, then [offset, length] of every window
      [4096, 4096, 1024, [[0, 4096]]],
      [
        4104,
        4096,
        1024,
        [
          [0, 4096],
          [3072, 1032],
        ],
      ],
      [
        10240,
        4096,
        1024,
        [
          [0, 4096],
          [3072, 4096],
          [6144, 4096],
        ],
      ],
      [
        8192,
        4096,
        0,
        [
          [0, 4096],
          [4096, 4096],
        ],
      ],
    ])("of %d bytes, %d each, overlapping by %d", (size, windowSize, overlap, expected) => {
      const mapping = mapped(mapShared(memory("windows", size), 0, size, windowSize, overlap));
      expect(shape(mapping)).toEqual(expected);
      mapping.unmap();
    });

    it("of 3 GiB show the same bytes where they overlap, and take no memory", () => {
      const fd = memory("sparse", 3 * GiB);
      const mapping = mapped(mapShared(fd, 0, 3 * GiB));
      expect(shape(mapping)).toEqual([
        [0, GiB],
        [GiB - MiB, GiB],
        [2 * (GiB - MiB), GiB],
        [3 * (GiB - MiB), 3 * MiB],
      ]);
      for (let index = 0; index + 1 < mapping.windows.length; index++) {
        const lower = bytesOf(mapping, index);
        const upper = bytesOf(mapping, index + 1);
        lower[GiB - MiB] = 11; // first byte of the upper one
        expect(upper[0]).toBe(11);
        upper[MiB - 1] = 22; // last byte of the lower one
        expect(lower[GiB - 1]).toBe(22);
      }
      const last = bytesOf(mapping, 3);
      last[last.length - 1] = 33;
      const read = new Uint8Array(1);
      readSync(fd, read, 0, 1, 3 * GiB - 1);
      expect(read[0]).toBe(33);
      mapping.unmap();
    });

    it("stay right while garbage is collected", async () => {
      const mapping = mapped(mapShared(memory("pressure", 3 * GiB), 0, 3 * GiB));
      for (let round = 1; round <= 20; round++) {
        // new views of every window every time, and garbage with ArrayBuffers of its own
        const views = mapping.windows.map(({ buffer }) => new Uint32Array(buffer));
        const garbage = Array.from({ length: 200 }, () => new Uint8Array(65536).fill(round));
        for (const [index, view] of views.entries()) {
          view[round + index] = round * 100 + index;
        }
        await collectGarbage();
        for (const [index, { buffer }] of mapping.windows.entries()) {
          expect(new Uint32Array(buffer)[round + index]).toBe(round * 100 + index);
        }
        expect(garbage).toHaveLength(200);
      }
      mapping.unmap();
    });
  });

  describe("unmap", () => {
    it("releases the file at once and leaves zeros to late readers and writers", () => {
      const fd = memory("late", 8 * MiB);
      const mapping = mapped(mapShared(fd, 0, 8 * MiB, 4 * MiB, MiB));
      const views = mapping.windows.map(({ buffer }) => new Uint8Array(buffer));
      for (const view of views) {
        view.fill(0xff);
      }
      expect(memoryRanges("late")).toHaveLength(1);
      mapping.unmap();
      expect(memoryRanges("late")).toEqual([]);
      expect(mapping.windows).toEqual([]);
      for (const view of views) {
        expect(view.every((byte) => byte === 0)).toBe(true);
      }
      (views[0] as Uint8Array)[5] = 1;
      const read = new Uint8Array(1);
      readSync(fd, read, 0, 1, 5);
      expect(read[0]).toBe(0xff); // seen by nobody
    });

    it("may be called again, and does not touch what is mapped elsewhere since", () => {
      const mapping = mapped(mapShared(memory("first", 4096), 0, 4096));
      mapping.unmap();
      const other = mapped(mapShared(memory("second", 4096), 0, 4096));
      bytesOf(other, 0)[0] = 7;
      mapping.unmap();
      expect(bytesOf(other, 0)[0]).toBe(7);
      other.unmap();
    });

    it("returns the addresses when the last window has been collected, and not before", async () => {
      const held: Uint8Array[] = [];
      const range = (() => {
        const mapping = mapped(mapShared(memory("collected", 64 * MiB), 0, 64 * MiB, 16 * MiB, MiB));
        expect(mapping.windows).toHaveLength(5);
        held.push(bytesOf(mapping, 2)); // a view of one window holds the whole range
        const found = rangeOf("collected");
        mapping.unmap();
        return found;
      })();
      for (let round = 0; round < 5; round++) {
        await collectGarbage();
      }
      expect(isMapped(range)).toBe(true);
      expect(held[0]?.every((byte) => byte === 0)).toBe(true);
      held.length = 0;
      while (isMapped(range)) {
        await collectGarbage(); // the test's time limit bounds this
      }
    });

    it("is done by the collector for a mapping that was forgotten", async () => {
      (() => {
        mapped(mapShared(memory("forgotten", 64 * MiB), 0, 64 * MiB, 16 * MiB, MiB));
        rangeOf("forgotten");
      })();
      while (memoryRanges("forgotten").length > 0) {
        await collectGarbage(); // the test's time limit bounds this
      }
      expect(memoryRanges("forgotten")).toEqual([]);
    });

    it("does not take away memory from a window in use", async () => {
      const views = (() => {
        const mapping = mapped(mapShared(memory("used", 4 * MiB), 0, 4 * MiB, 2 * MiB, MiB));
        bytesOf(mapping, 0)[0] = 1;
        return [bytesOf(mapping, 0)];
      })();
      for (let round = 0; round < 5; round++) {
        await collectGarbage();
      }
      expect(memoryRanges("used")).toHaveLength(1);
      expect(views[0]?.[0]).toBe(1);
    });
  });
});
