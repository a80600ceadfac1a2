import { describe, expect, it } from "vitest";
import { heapRegion } from "../../../rpmsg/memory/heap-memory.ts";
import type { DeviceQueue } from "../../../rpmsg/virtqueue/device-queue.ts";
import { codeOf } from "../support/coded.ts";
import { GUEST_BASE, INDIRECT, NEXT, offsetOf, RawRing, WRITE } from "../support/raw-ring.ts";
import { windowedRegion } from "../support/windows.ts";

const TABLE = GUEST_BASE + offsetOf.tables;

/** All readable bytes of the current chain. */
function gathered(queue: DeviceQueue, length = queue.readableLength): string {
  const target = new Uint8Array(length);
  queue.gather(target, length);
  return Buffer.from(target).toString("latin1");
}

describe("a buffer that crosses windows and regions", () => {
  const far = 0x9_0000_0000;

  function crossing() {
    const ring = new RawRing();
    // Windows [0, 64) [48, 112) [96, 128), then an adjoining region of 64 bytes.
    const windowed = windowedRegion(far, 0x5000_0000, 128, 64, 16);
    ring.memory.add(windowed);
    const behind = heapRegion(far + 128, 64, 0x6000_0000);
    ring.memory.add(behind);
    const bytes = [windowed.bytes, behind.windows[0]?.u8 ?? new Uint8Array()] as const;
    const all = () => Buffer.concat(bytes).toString("latin1");
    return { ring, bytes, all };
  }

  it("is gathered as one", () => {
    const { ring, bytes } = crossing();
    const content = Buffer.from(Array.from({ length: 192 }, (_, i) => 255 - i));
    bytes[0].set(content.subarray(0, 128));
    bytes[1].set(content.subarray(128));
    for (const [from, length] of [
      [0, 192],
      [1, 190],
      [40, 60],
      [60, 4],
      [63, 2],
      [127, 2],
      [128, 64],
    ] as const) {
      ring.chain([{ address: far + from, length }]);
      const queue = ring.device(ring.availableIndex - 1);
      expect(queue.peek()).toBe(true);
      expect(queue.readableLength).toBe(length);
      expect(gathered(queue)).toBe(content.toString("latin1", from, from + length));
    }
  });

  it("is filled as one, and nothing around it", () => {
    for (const [from, length] of [
      [3, 181],
      [44, 60],
      [112, 61],
      [120, 31],
      [48, 64],
    ] as const) {
      const { ring, all } = crossing();
      const blank = all();
      ring.chain([{ address: far + from, length, flags: WRITE }]);
      const queue = ring.device();
      expect(queue.peek()).toBe(true);
      expect(queue.writableLength).toBe(length);
      const source = Buffer.alloc(length - 16 + 5, 0x70);
      queue.writeMessage(Uint32Array.of(1, 2, 3, 4), source, 5, length - 16);
      const header = "\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0";
      const written = header + "p".repeat(length - 16);
      expect(all()).toBe(blank.slice(0, from) + written + blank.slice(from + length));
    }
  });

  it.each([
    ["ends behind the last region", 100, 93],
    ["begins before the first one", -1, 10],
  ])("is refused where it %s", (_, from, length) => {
    const { ring } = crossing();
    ring.chain([{ address: far + from, length }]);
    expect(codeOf(() => ring.device().peek())).toBe("descriptor-range");
  });

  it("is refused where it crosses a hole, though both ends are in memory", () => {
    const { ring } = crossing();
    ring.memory.add(heapRegion(far + 200, 64, 0x6100_0000));
    ring.chain([{ address: far + 180, length: 40 }]);
    expect(codeOf(() => ring.device().peek())).toBe("descriptor-range");
  });

  it("is found before the region of the buffer that came before, and behind it", () => {
    const { ring } = crossing();
    const near = ring.buffer(0);
    // One queue sees them all: it remembers the region of its last buffer.
    const queue = ring.device();
    for (const address of [far + 130, near, far + 20, far + 130, near]) {
      ring.chain([
        { address, length: 16, flags: WRITE },
        { address: address + 16, length: 4, flags: WRITE },
      ]);
      expect(queue.peek()).toBe(true);
      for (const { offset } of queue.segments.slice(0, 2)) expect(offset).toBeGreaterThanOrEqual(0);
      const places = queue.segments.slice(0, 2).map(({ window, offset }) => window.guestAddress + offset);
      expect(places).toEqual([address, address + 16]);
      queue.complete(0);
    }
  });

  it("may hold an indirect table, an entry across the border", () => {
    const { ring, bytes } = crossing();
    const table = new RawRing();
    const entry = { address: ring.buffer(0), length: 5, flags: NEXT, next: 1 };
    table.table(TABLE, [entry, { address: ring.buffer(100), length: 6 }]);
    const raw = table.at(TABLE, 32);
    bytes[0].set(raw.subarray(0, 8), 120);
    bytes[1].set(raw.subarray(8));
    ring.chain([{ address: far + 120, length: 32, flags: INDIRECT }]);
    const queue = ring.device();
    expect(queue.peek()).toBe(true);
    expect(queue).toMatchObject({ readableLength: 11, descriptorCount: 2 });
  });
});
