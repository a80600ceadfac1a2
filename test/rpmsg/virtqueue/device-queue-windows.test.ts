import { describe, expect, it } from "vitest";
import { wordsOf } from "../../../rpmsg/memory/copy-bytes.ts";
import { DirtyLog, LOG_PAGE } from "../../../rpmsg/memory/dirty-log.ts";
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

  it.each(["writeMessage", "writeWords"])("is filled as one by %s, and nothing around it", (method) => {
    for (const [from, length] of [
      [3, 181],
      [44, 60],
      [112, 61],
      [120, 31],
      [48, 64],
      [0, 64],
      [128, 41],
    ] as const) {
      const { ring, all } = crossing();
      const blank = all();
      ring.chain([{ address: far + from, length, flags: WRITE }]);
      const queue = ring.device();
      expect(queue.peek()).toBe(true);
      expect(queue.writableLength).toBe(length);
      const header = "\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0";
      const message = header + "p".repeat(length - 16);
      const source = wordsOf(new ArrayBuffer(256));
      source.u8.set(Buffer.from(message, "latin1"), 8);
      if (method === "writeWords") queue.writeWords(source, 8, length);
      else queue.writeMessage(Uint32Array.of(1, 2, 3, 4), source.u8, 8 + 16, length - 16);
      expect(all()).toBe(blank.slice(0, from) + message + blank.slice(from + length));
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

describe("a buffer behind one that was in the same window", () => {
  const size = 0x1000;
  const wrap = 2 ** 32;

  // Addresses have 64 bits, small integers of V8 32: in each half, across their border, and with a sign.
  it.each([
    ["low", 0x1000_0000],
    ["with the sign of 32 bits", 0x9000_0000],
    ["across 2^32", wrap - size / 2],
    ["up to 2^32", wrap - size],
    ["at 2^32", wrap],
    ["beyond 32 bits", 0x1_2345_6000],
    ["with the sign of 32 bits in its upper half", 0x8_9234_5000],
    ["at the end of the numbers", 2 ** 53 - 2 * size],
  ])("is found where it is, and only there: %s", (_, start) => {
    const inside = [0, 16, size / 2 - 16, size / 2 - 8, size / 2, size - 16].map((at) => [at, 16] as const);
    const outside = [
      ...[-16, -1, size - 15, size, wrap / 2, wrap, wrap + 16, wrap - size / 2, -wrap, 16 - wrap].map(
        (at) => [at, 16] as const,
      ),
      ...[size + 1, 0x4000_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff].map((length) => [0, length] as const),
      [16, 0xffff_fff8] as const,
    ];
    for (const [at, length] of [...inside, ...outside.filter(([place]) => start + place >= 0)]) {
      for (const flags of [0, WRITE]) {
        const ring = new RawRing();
        ring.memory.add(heapRegion(start, size, 0x6000_0000));
        const queue = ring.device();
        ring.chain([{ address: start + 32, length: 32 }]);
        expect(queue.peek()).toBe(true);
        queue.complete(0);
        ring.chain([{ address: start + at, length, flags }]);
        const code = codeOf(() => queue.peek());
        if (code !== undefined) {
          expect([at, code]).toEqual([at, "descriptor-range"]);
          expect(outside).toContainEqual([at, length]);
          continue;
        }
        expect(inside).toContainEqual([at, length]);
        const [segment] = queue.segments;
        expect(segment).toMatchObject({ window: { guestAddress: start }, offset: at, length });
        const written = flags === WRITE;
        expect(queue).toMatchObject({
          descriptorCount: 1,
          segmentCount: 1,
          readableCount: written ? 0 : 1,
          readableLength: written ? 0 : length,
          writableLength: written ? length : 0,
        });
      }
    }
  });

  it("may lie in another window after one that took both", () => {
    const ring = new RawRing();
    const far = 0x9_0000_0000;
    // Windows [0, 64) [48, 112) [96, 128).
    const { bytes, ...windowed } = windowedRegion(far, 0x5000_0000, 128, 64, 16);
    ring.memory.add(windowed);
    const content = "0123456789".repeat(13).slice(0, 128);
    bytes.set(Buffer.from(content));
    const queue = ring.device();
    for (const [from, length] of [
      [0, 8],
      [40, 60],
      [100, 4],
      [90, 38],
      [4, 8],
    ] as const) {
      ring.chain([{ address: far + from, length }]);
      expect(queue.peek()).toBe(true);
      expect(gathered(queue)).toBe(content.slice(from, from + length));
      queue.complete(0);
    }
  });
});

describe("the log of written pages", () => {
  it.each([
    ["writeMessage", 64, [8, 9]],
    ["writeWords", 64, [8, 9]],
    ["writeWords", 16, [8]],
  ] as const)("has those that %s wrote with %d bytes", (method, length, pages) => {
    const ring = new RawRing();
    ring.chain([{ address: GUEST_BASE + 0x8ff0, length: 512, flags: WRITE }]);
    const queue = ring.device();
    const bits = new Uint8Array((GUEST_BASE + 0x10_000) / LOG_PAGE / 8);
    queue.log = { pages: new DirtyLog(bits, () => {}), used: undefined };
    expect(queue.peek()).toBe(true);
    if (method === "writeWords") queue.writeWords(wordsOf(new ArrayBuffer(64)), 0, length);
    else queue.writeMessage(new Uint32Array(4), new Uint8Array(length - 16), 0, length - 16);
    const first = GUEST_BASE / LOG_PAGE;
    const marked = Array.from({ length: 16 }, (_, i) => i).filter(
      (page) => ((bits[(first + page) >> 3] ?? 0) >> ((first + page) & 7)) & 1,
    );
    expect(marked).toEqual(pages);
  });
});
