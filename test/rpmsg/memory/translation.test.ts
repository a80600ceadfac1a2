import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { GuestMemory } from "../../../rpmsg/memory/guest-memory.ts";
import { heapRegion } from "../../../rpmsg/memory/heap-memory.ts";
import { windowedRegion, windowOf } from "../support/windows.ts";

const GUEST = 0x1_0000_0000;
const USER = 0x7f00_0000_0000;

/** Windows [0, 64) [48, 112) [96, 160) [144, 200) at GUEST, then 56 more bytes, a hole of 8, and 32 bytes. */
function pieces() {
  const memory = new GuestMemory();
  const windowed = windowedRegion(GUEST, USER, 200, 64, 16);
  const adjoining = heapRegion(GUEST + 200, 56, USER + 0x10000);
  const behindHole = heapRegion(GUEST + 264, 32, USER + 0x20000);
  // Not in the order of their addresses.
  memory.add(behindHole);
  memory.add(windowed);
  memory.add(adjoining);
  const bytes = new Uint8Array(296);
  for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 7 + 1) & 0xff;
  windowed.bytes.set(bytes.subarray(0, 200));
  windowOf(adjoining).u8.set(bytes.subarray(200, 256));
  windowOf(behindHole).u8.set(bytes.subarray(264, 296));
  return { memory, windowed, adjoining, behindHole, bytes };
}

/** Whether all bytes are in memory: the model of what follows. */
function present(offset: number, length: number): boolean {
  for (let at = offset; at < offset + length; at++) {
    if (at < 0 || at >= 296 || (at >= 256 && at < 264)) return false;
  }
  return true;
}

describe("translation of guest addresses", () => {
  it("finds the window that holds a range whole", () => {
    const { memory: m, windowed, adjoining, behindHole } = pieces();
    expect(m.find(GUEST, 64)).toBe(windowOf(windowed, 0));
    expect(m.find(GUEST + 48, 64)).toBe(windowOf(windowed, 1));
    expect(m.find(GUEST + 60, 5)).toBe(windowOf(windowed, 1));
    expect(m.find(GUEST + 199, 1)).toBe(windowOf(windowed, 3));
    expect(m.find(GUEST + 200, 56)).toBe(windowOf(adjoining));
    expect(m.find(GUEST + 264, 32)).toBe(windowOf(behindHole));
  });

  it.each([
    ["begins before memory", -1, 2],
    ["is longer than every window", 0, 65],
    ["is longer than the overlap and crosses into the next window", 40, 64 + 9],
    ["crosses into an adjoining region", 199, 2],
    ["ends in a hole", 255, 2],
    ["lies in a hole", 257, 1],
    ["begins in a hole", 263, 2],
    ["ends behind memory", 295, 2],
    ["begins behind memory", 296, 1],
    ["has a length that wraps around", 10, 2 ** 64],
    ["has a length of 2^53", 10, 2 ** 53],
    ["has a negative length", 10, -1],
    ["has no length", 10, Number.NaN],
  ])("finds no window where a range %s", (_, offset, length) => {
    const { memory: m } = pieces();
    expect(m.find(GUEST + offset, length)).toBeUndefined();
  });

  it.each([2 ** 53, 2 ** 63, 2 ** 64 - 1, Number.POSITIVE_INFINITY, -1])("finds nothing at %d", (at) => {
    const { memory: m } = pieces();
    expect(m.find(at, 1)).toBeUndefined();
    expect(m.findLongest(at)).toBeUndefined();
    expect(m.findUser(at, 1)).toBeUndefined();
    expect(m.read(at, new Uint8Array(1), 0, 1)).toBe(false);
  });

  it("tells guest-physical from user addresses", () => {
    const { memory: m, windowed, adjoining } = pieces();
    expect(m.findUser(USER, 64)).toBe(windowOf(windowed, 0));
    expect(m.findUser(USER + 60, 40)).toBe(windowOf(windowed, 1));
    expect(m.findUser(USER + 0x10000, 56)).toBe(windowOf(adjoining));
    expect(m.findUser(USER + 200, 1)).toBeUndefined();
    expect(m.findUser(USER - 1, 2)).toBeUndefined();
    expect(m.findUser(USER + 0x10000, 57)).toBeUndefined();
    expect(m.findUser(USER, -1)).toBeUndefined();
    expect(m.findUser(GUEST, 1)).toBeUndefined();
    expect(m.find(USER, 1)).toBeUndefined();
  });

  it("finds the window with the most bytes from an address on", () => {
    const { memory: m, windowed, adjoining } = pieces();
    expect(m.findLongest(GUEST + 47)).toBe(windowOf(windowed, 0));
    expect(m.findLongest(GUEST + 48)).toBe(windowOf(windowed, 1));
    expect(m.findLongest(GUEST + 63)).toBe(windowOf(windowed, 1));
    expect(m.findLongest(GUEST + 150)).toBe(windowOf(windowed, 3));
    expect(m.findLongest(GUEST + 200)).toBe(windowOf(adjoining));
    expect(m.findLongest(GUEST + 256)).toBeUndefined();
    expect(m.findLongest(GUEST + 296)).toBeUndefined();
  });

  it("reads any range that is all in memory, across windows and regions, and says so when it is not", () => {
    const { memory: m, bytes } = pieces();
    fc.assert(
      fc.property(fc.integer({ min: -4, max: 300 }), fc.nat(300), fc.nat(5), (offset, length, into) => {
        const target = new Uint8Array(length + into + 3).fill(0xee);
        expect(m.read(GUEST + offset, target, into, length)).toBe(present(offset, length));
        expect(target.subarray(0, into).every((byte) => byte === 0xee)).toBe(true);
        expect(target.subarray(into + length).every((byte) => byte === 0xee)).toBe(true);
        if (!present(offset, length)) return;
        expect(
          Buffer.compare(target.subarray(into, into + length), bytes.subarray(offset, offset + length)),
        ).toBe(0);
      }),
      { numRuns: 2000 },
    );
  });

  it("reads nothing from anywhere", () => {
    const { memory: m } = pieces();
    expect(m.read(2 ** 63, new Uint8Array(), 0, 0)).toBe(true);
  });
});
