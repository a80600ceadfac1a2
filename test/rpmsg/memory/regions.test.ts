import { describe, expect, it } from "vitest";
import type { MemoryRegion } from "../../../rpmsg/memory/guest-memory.ts";
import { GuestMemory } from "../../../rpmsg/memory/guest-memory.ts";
import { heapRegion } from "../../../rpmsg/memory/heap-memory.ts";
import { codeOf } from "../support/coded.ts";

const LIMIT = 2 ** 53;

/** A region without bytes: large ones cost nothing. */
function hollow(guestAddress: number, size: number, userAddress = guestAddress): MemoryRegion {
  return { guestAddress, userAddress, size, windows: [], close() {} };
}

describe("regions of guest memory", () => {
  it.each([
    ["one byte more than the rest of the address space", LIMIT - 0x1000, 0x1001, 0],
    ["the same in user addresses", 0, 0x1001, LIMIT - 0x1000],
    ["as large as the address space", 1, LIMIT, 0],
    ["an address beyond it", LIMIT, 1, 0],
    ["a user address beyond it", 0, 1, LIMIT],
    ["an address of 64 bits", 2 ** 64 - 0x1000, 0x1000, 0],
    ["a negative address", -1, 0x1000, 0],
    ["a negative user address", 0, 0x1000, -4096],
    ["no byte", 0, 0, 0],
    ["a negative size", 0x1000, -1, 0x1000],
    ["half a byte", 0, 0.5, 0],
    ["half an address", 0.5, 1, 0],
    ["no number", Number.NaN, 1, 0],
    ["no number of bytes", 0, Number.NaN, 0],
    ["endlessly many bytes", 0, Number.POSITIVE_INFINITY, 0],
  ])("are refused with %s", (_, guestAddress, size, userAddress) => {
    const memory = new GuestMemory();
    expect(codeOf(() => memory.add(hollow(guestAddress, size, userAddress)))).toBe("memory-range");
    expect(memory.regions).toEqual([]);
  });

  it("may reach up to the last address that a Number counts exactly", () => {
    const memory = new GuestMemory();
    memory.add(hollow(LIMIT - 0x1001, 0x1000));
    expect(memory.regions).toHaveLength(1);
  });

  it.each([
    ["is the same", 0x10000, 0x1000],
    ["begins inside", 0x10fff, 0x1000],
    ["ends inside", 0xf001, 0x1000],
    ["lies inside", 0x10400, 0x10],
    ["surrounds", 0xf000, 0x4000],
  ])("are refused where one %s another, in either kind of address", (_, start, size) => {
    const guest = new GuestMemory();
    guest.add(hollow(0x10000, 0x1000, 0x90000));
    expect(codeOf(() => guest.add(hollow(start, size, 0xf0_0000)))).toBe("memory-overlap");
    const user = new GuestMemory();
    user.add(hollow(0x90000, 0x1000, 0x10000));
    expect(codeOf(() => user.add(hollow(0xf0_0000, size, start)))).toBe("memory-overlap");
    expect(guest.regions).toHaveLength(1);
    expect(user.regions).toHaveLength(1);
  });

  it("may adjoin each other", () => {
    const memory = new GuestMemory();
    memory.add(hollow(0x10000, 0x1000));
    memory.add(hollow(0x11000, 0x1000));
    memory.add(hollow(0xf000, 0x1000));
    expect(memory.regions).toHaveLength(3);
  });

  it("are checked against all others, not only the last one", () => {
    const memory = new GuestMemory();
    memory.add(hollow(0x10000, 0x1000));
    memory.add(hollow(0x20000, 0x1000));
    memory.add(hollow(0x30000, 0x1000));
    expect(codeOf(() => memory.add(hollow(0x10fff, 1)))).toBe("memory-overlap");
  });

  it("go only by exactly their addresses and size, not closed, and can be found no more", () => {
    const memory = new GuestMemory();
    let closed = 0;
    const region = {
      ...heapRegion(0x10000, 0x1000, 0x90000),
      close() {
        closed++;
      },
    };
    memory.add(region);
    memory.add(heapRegion(0x20000, 0x1000, 0xa0000));
    expect(memory.remove(0x10000, 0x90000, 0xfff)).toBeUndefined();
    expect(memory.remove(0x10000, 0x90001, 0x1000)).toBeUndefined();
    expect(memory.remove(0x10001, 0x90000, 0x1000)).toBeUndefined();
    expect(memory.find(0x10000, 0x1000)).toBeDefined();
    expect(memory.remove(0x10000, 0x90000, 0x1000)).toBe(region);
    expect(closed).toBe(0);
    expect(memory.find(0x10000, 1)).toBeUndefined();
    expect(memory.findUser(0x90000, 1)).toBeUndefined();
    expect(memory.find(0x20000, 0x1000)).toBeDefined();
    expect(memory.remove(0x10000, 0x90000, 0x1000)).toBeUndefined();
    memory.add(region);
    expect(memory.find(0x10000, 1)).toBeDefined();
  });

  it("are all closed once by close", () => {
    const memory = new GuestMemory();
    const closed: number[] = [];
    for (const start of [0x1000, 0x2000, 0x3000]) {
      memory.add({ ...heapRegion(start, 0x1000), close: () => closed.push(start) });
    }
    memory.close();
    memory.close();
    expect(closed).toEqual([0x1000, 0x2000, 0x3000]);
    expect(memory.regions).toEqual([]);
    expect(memory.find(0x1000, 1)).toBeUndefined();
    memory.add(heapRegion(0x1000, 0x1000));
    expect(memory.find(0x1000, 1)).toBeDefined();
  });
});
