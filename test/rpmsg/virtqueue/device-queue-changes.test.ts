import { describe, expect, it } from "vitest";
import { GuestMemory } from "../../../rpmsg/memory/guest-memory.ts";
import { heapRegion } from "../../../rpmsg/memory/heap-memory.ts";
import { DeviceQueue } from "../../../rpmsg/virtqueue/device-queue.ts";
import { codeOf } from "../support/coded.ts";
import { INDIRECT, NEXT } from "../support/raw-ring.ts";
import { windowOf } from "../support/windows.ts";

const TABLE = 0x10_0000;
const RINGS = 0x20_0000;
const LARGE = 0x1_0000_0000;
const INDIRECT_TABLE = 0x40_0000;

/**
 * A ring whose descriptor table changes under the reader: a word gives what was written once, then `later`. Its table
 * lies in a region of its own.
 */
function changing(later: number, words: readonly number[]) {
  const memory = new GuestMemory();
  const table = heapRegion(TABLE, 0x1000);
  const window = windowOf(table);
  window.u32.set(words);
  const reads = new Map<string, number>();
  const changingWords = (array: Uint32Array): Uint32Array =>
    new Proxy(array, {
      get(target, key) {
        // A view of a part of the table sees it change, too.
        if (key === "subarray")
          return (begin: number, end: number) => changingWords(target.subarray(begin, end));
        const count = (reads.get(String(key)) ?? 0) + 1;
        reads.set(String(key), count);
        return count > 1 && typeof key === "string" && /^\d+$/.test(key)
          ? later
          : Reflect.get(target, key, target);
      },
    });
  const u32 = changingWords(window.u32);
  memory.add({ ...table, windows: [{ ...window, u32 }] });
  const rings = heapRegion(RINGS, 0x2000);
  memory.add(rings);
  memory.add(heapRegion(LARGE, 0x1000));
  const indirect = heapRegion(INDIRECT_TABLE, 0x1000);
  memory.add(indirect);
  const { u16 } = windowOf(rings);
  u16[1] = 1; // one chain is available, at head 0
  const addresses = { descriptors: TABLE, available: RINGS, used: RINGS + 0x1000 };
  const queue = new DeviceQueue({ memory, size: 4, addresses, indirect: true, eventIndex: false }, 0);
  return { queue, reads, available: u16, indirect: windowOf(indirect).u32 };
}

describe("a guest that changes its memory while the device looks at it", () => {
  it.each([0, 0xffff_ffff])("has each field of a descriptor read once, before it becomes %d", (later) => {
    const { queue, reads } = changing(later, [
      0x10,
      1,
      16,
      NEXT | (1 << 16), // addr, len, flags and next: on to 1
      0x20,
      1,
      32,
      0,
    ]);
    expect(queue.peek()).toBe(true);
    expect([...reads.values()]).toEqual([1, 1, 1, 1, 1, 1, 1, 1]);
    expect(queue.readableLength).toBe(48);
    expect(queue.segments.map(({ offset, length }) => [offset, length])).toEqual([
      [0x10, 16],
      [0x20, 32],
    ]);
  });

  it("has what was read of an indirect descriptor used, not what is there later", () => {
    const { queue, reads, indirect } = changing(0, [INDIRECT_TABLE, 0, 16, INDIRECT]);
    indirect.set([0x30, 1, 8, 0]);
    expect(queue.peek()).toBe(true);
    expect([...reads.values()]).toEqual([1, 1, 1, 1]);
    expect(queue.readableLength).toBe(8);
  });

  it("does not change the current chain any more", () => {
    const { queue, available } = changing(0xffff_ffff, [0x10, 1, 16, 0]);
    expect(queue.peek()).toBe(true);
    available[2] = 0xffff; // the ring entry
    available[1] = 0x7777; // the index
    expect(queue.peek()).toBe(true);
    expect(queue.head).toBe(0);
    expect(queue.readableLength).toBe(16);
    queue.complete(0);
    // Only the next look sees the index.
    expect(codeOf(() => queue.peek())).toBe("avail-index-jump");
  });
});
