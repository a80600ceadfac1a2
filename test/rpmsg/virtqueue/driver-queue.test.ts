import { describe, expect, it } from "vitest";
import { codeOf } from "../support/coded.ts";
import { GUEST_BASE, INDIRECT, NEXT, offsetOf, RawRing, WRITE } from "../support/raw-ring.ts";
import { windowOf } from "../support/windows.ts";

const TABLE = GUEST_BASE + offsetOf.tables;
const HIGH = 0x1234_5678_9abc;

/** A descriptor as it is in memory: u64 addr; u32 len; u16 flags; u16 next */
function descriptor(ring: RawRing, offset: number) {
  return {
    address: Number(ring.view.getBigUint64(offset, true)),
    length: ring.view.getUint32(offset + 8, true),
    flags: ring.view.getUint16(offset + 12, true),
    next: ring.view.getUint16(offset + 14, true),
  };
}

function slot(ring: RawRing, index: number): number {
  return ring.view.getUint16(offsetOf.available + 4 + 2 * index, true);
}

describe("a driver queue", () => {
  it("describes a buffer, offers it, and shows it with publish only", () => {
    const ring = new RawRing({ size: 4 });
    const queue = ring.driver();
    const first = queue.add(HIGH, 512, true);
    const second = queue.add(0x1000, 0xffff_ffff, false);
    expect(descriptor(ring, offsetOf.descriptors + 16 * first)).toEqual({
      address: HIGH,
      length: 512,
      flags: WRITE,
      next: 0,
    });
    expect(descriptor(ring, offsetOf.descriptors + 16 * second)).toEqual({
      address: 0x1000,
      length: 0xffff_ffff,
      flags: 0,
      next: 0,
    });
    expect([slot(ring, 0), slot(ring, 1)]).toEqual([first, second]);
    expect(ring.availableIndex).toBe(0);
    expect(queue.publish()).toBe(true);
    expect(ring.availableIndex).toBe(2);
    expect(queue.publish()).toBe(false);
  });

  it("links a chain", () => {
    const ring = new RawRing({ size: 4 });
    const queue = ring.driver();
    const head = queue.addChain([
      { address: 0x1000, length: 1, writable: false },
      { address: 0x2000, length: 2, writable: false },
      { address: HIGH, length: 3, writable: true },
    ]);
    expect(queue.free).toBe(1);
    const chain = [];
    for (let index = head, more = true; more; ) {
      const each = descriptor(ring, offsetOf.descriptors + 16 * index);
      chain.push([each.address, each.length, each.flags]);
      more = (each.flags & NEXT) !== 0;
      index = each.next;
    }
    expect(chain).toEqual([
      [0x1000, 1, NEXT],
      [0x2000, 2, NEXT],
      [HIGH, 3, WRITE],
    ]);
    expect(slot(ring, 0)).toBe(head);
  });

  it("writes an indirect table, unaligned, and takes one descriptor for it", () => {
    const ring = new RawRing({ size: 2 });
    const queue = ring.driver();
    const buffers = [
      { address: HIGH, length: 7, writable: false },
      { address: 0x2000, length: 8, writable: true },
    ];
    const head = queue.addIndirect(buffers, windowOf(ring.region), TABLE + 1);
    expect(queue.free).toBe(1);
    expect(descriptor(ring, offsetOf.descriptors + 16 * head)).toEqual({
      address: TABLE + 1,
      length: 32,
      flags: INDIRECT,
      next: 0,
    });
    expect(descriptor(ring, offsetOf.tables + 1)).toEqual({ address: HIGH, length: 7, flags: NEXT, next: 1 });
    expect(descriptor(ring, offsetOf.tables + 17)).toEqual({
      address: 0x2000,
      length: 8,
      flags: WRITE,
      next: 0,
    });
  });

  it("makes no indirect table that was not negotiated, and no empty chain", () => {
    const ring = new RawRing({ indirect: false });
    const queue = ring.driver();
    const buffer = { address: 0x1000, length: 1, writable: false };
    expect(() => queue.addIndirect([buffer], windowOf(ring.region), TABLE)).toThrow(RangeError);
    expect(() => queue.addChain([])).toThrow(RangeError);
    expect(queue.free).toBe(8);
  });

  it("gives every descriptor out once, and those that came back again", () => {
    const ring = new RawRing({ size: 8 });
    const queue = ring.driver();
    const buffer = { address: 0x1000, length: 4, writable: true };
    const chain = queue.addChain([buffer, buffer, buffer]);
    const heads = new Set([chain]);
    for (let i = 0; i < 5; i++) heads.add(queue.add(0x1000, 4, true));
    expect(heads.size).toBe(6);
    expect([...heads].every((head) => head >= 0 && head < 8)).toBe(true);
    expect(queue.free).toBe(0);
    expect(queue.add(0x1000, 4, true)).toBe(-1);
    expect(queue.addIndirect([buffer], windowOf(ring.region), TABLE)).toBe(-1);
    queue.publish();
    ring.giveBack(chain, 12);
    expect(queue.popUsed()).toBe(chain);
    expect(queue.usedLength).toBe(12);
    expect(queue.free).toBe(3);
    // Too long for what is free: nothing is taken.
    expect(queue.addChain([buffer, buffer, buffer, buffer])).toBe(-1);
    expect(queue.free).toBe(3);
    const again = [queue.add(0x1000, 4, true), queue.add(0x1000, 4, true), queue.add(0x1000, 4, true)];
    for (const head of heads) if (head !== chain) expect(again).not.toContain(head);
    expect(new Set(again).size).toBe(3);
    expect(again.every((head) => head >= 0 && head < 8)).toBe(true);
    expect(queue.add(0x1000, 4, true)).toBe(-1);
  });

  it("takes buffers back in any order", () => {
    const ring = new RawRing({ size: 4 });
    const queue = ring.driver();
    const heads = [1, 2, 3, 4].map((length) => queue.add(0x1000, length, true));
    queue.publish();
    for (const i of [2, 0, 3, 1]) ring.giveBack(heads[i] as number, i + 1);
    for (const i of [2, 0, 3, 1]) {
      expect(queue.popUsed()).toBe(heads[i]);
      expect(queue.usedLength).toBe(i + 1);
    }
    expect(queue.popUsed()).toBe(-1);
    expect(queue.free).toBe(4);
  });

  it.each<[string, string, (ring: RawRing, head: number) => void]>([
    ["an id that is not out", "used-unknown-id", (ring, head) => ring.giveBack(head ^ 1, 0)],
    ["an id of size", "used-unknown-id", (ring) => ring.giveBack(4, 0)],
    ["an id of 2^32 - 1", "used-unknown-id", (ring) => ring.giveBack(0xffff_ffff, 0)],
    [
      "an id whose lower 16 bits are out",
      "used-unknown-id",
      (ring, head) => ring.giveBack(head + 0x10000, 0),
    ],
    ["a length of one byte more", "used-length", (ring, head) => ring.giveBack(head, 65)],
    ["a length of 2^32 - 1", "used-length", (ring, head) => ring.giveBack(head, 0xffff_ffff)],
    ["an index of size + 1", "used-index-jump", (ring) => ring.setUsedIndex(5)],
    ["an index that goes backwards", "used-index-jump", (ring) => ring.setUsedIndex(0xffff)],
  ])("refuses %s: %s", (_, code, act) => {
    const ring = new RawRing({ size: 4 });
    const queue = ring.driver();
    const head = queue.add(0x1000, 64, true);
    queue.publish();
    act(ring, head);
    expect(codeOf(() => queue.popUsed())).toBe(code);
    expect(queue.free).toBe(3);
  });

  it("refuses a buffer that came back twice, and one inside a chain", () => {
    const ring = new RawRing({ size: 4 });
    const queue = ring.driver();
    const head = queue.addChain([
      { address: 0x1000, length: 8, writable: false },
      { address: 0x2000, length: 8, writable: true },
    ]);
    const second = descriptor(ring, offsetOf.descriptors + 16 * head).next;
    queue.publish();
    ring.giveBack(head, 8);
    ring.giveBack(head, 8);
    expect(queue.popUsed()).toBe(head);
    expect(codeOf(() => queue.popUsed())).toBe("used-unknown-id");
    const other = new RawRing({ size: 4 });
    const chain = other.driver();
    chain.addChain([
      { address: 0x1000, length: 8, writable: false },
      { address: 0x2000, length: 8, writable: true },
    ]);
    other.giveBack(second, 0);
    expect(codeOf(() => chain.popUsed())).toBe("used-unknown-id");
  });

  it("counts only what is writable as room for a used length", () => {
    const ring = new RawRing({ size: 8 });
    const queue = ring.driver();
    const buffers = [
      { address: 0x1000, length: 100, writable: false },
      { address: 0x2000, length: 8, writable: true },
      { address: 0x3000, length: 9, writable: true },
    ];
    const heads = [queue.addChain(buffers), queue.addIndirect(buffers, windowOf(ring.region), TABLE)];
    heads.push(queue.add(0x1000, 100, false));
    for (const [i, length] of [17, 17, 0].entries()) ring.giveBack(heads[i] as number, length);
    for (const head of heads) expect(queue.popUsed()).toBe(head);
    ring.giveBack(queue.addIndirect(buffers, windowOf(ring.region), TABLE), 18);
    expect(codeOf(() => queue.popUsed())).toBe("used-length");
  });

  it("kicks and asks for calls by flags", () => {
    const ring = new RawRing();
    const queue = ring.driver();
    ring.bytes[offsetOf.used] = 1; // NO_NOTIFY
    queue.add(0x1000, 1, false);
    expect(queue.publish()).toBe(false);
    ring.bytes[offsetOf.used] = 0;
    queue.add(0x1000, 1, false);
    expect(queue.publish()).toBe(true);
    queue.wantCalls(false);
    expect(ring.view.getUint16(offsetOf.available, true)).toBe(1);
    queue.wantCalls(true);
    expect(ring.view.getUint16(offsetOf.available, true)).toBe(0);
  });

  it("kicks and asks for calls by indexes with EVENT_IDX", () => {
    const ring = new RawRing({ size: 8, eventIndex: true });
    const queue = ring.driver();
    ring.bytes[offsetOf.used] = 1; // means nothing now
    const event = offsetOf.used + 4 + 8 * 8;
    const kicks: boolean[] = [];
    ring.view.setUint16(event, 1, true);
    for (let i = 0; i < 3; i++) {
      queue.add(0x1000, 1, false);
      kicks.push(queue.publish());
    }
    expect(kicks).toEqual([false, true, false]);
    ring.giveBack(0, 0);
    expect(queue.popUsed()).toBe(0);
    queue.wantCalls(true);
    expect(ring.view.getUint16(offsetOf.available + 4 + 2 * 8, true)).toBe(1);
    expect(ring.view.getUint16(offsetOf.available, true)).toBe(0);
  });
});
