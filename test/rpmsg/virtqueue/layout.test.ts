import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { GuestMemory } from "../../../rpmsg/memory/guest-memory.ts";
import { heapRegion } from "../../../rpmsg/memory/heap-memory.ts";
import type { RingAddresses } from "../../../rpmsg/virtqueue/layout.ts";
import { isQueueSize, mapRing, needsEvent, ringSizes } from "../../../rpmsg/virtqueue/layout.ts";
import { codeOf } from "../support/coded.ts";
import { windowedRegion } from "../support/windows.ts";

const USER = 0x7f00_0000_0000;
const GUEST = 0x4000_0000;

describe("queue sizes", () => {
  it.each([1, 2, 4, 256, 1024, 32768])("%d is one", (size) => expect(isQueueSize(size)).toBe(true));
  it.each([
    0,
    -1,
    -2,
    3,
    255,
    257,
    32767,
    32769,
    65536,
    2 ** 31,
    2 ** 32,
    0.5,
    Number.NaN,
    Number.POSITIVE_INFINITY,
  ])("%d is none", (size) => {
    expect(isQueueSize(size)).toBe(false);
  });

  it("give the bytes of the three parts (virtio 1.3, 2.7: 16n, 6 + 2n, 6 + 8n)", () => {
    expect(ringSizes(1)).toEqual({ descriptors: 16, available: 8, used: 14 });
    expect(ringSizes(256)).toEqual({ descriptors: 4096, available: 518, used: 2054 });
  });
});

describe("a ring in memory", () => {
  const size = 4; // 64, 14 and 38 bytes
  const good: RingAddresses = { descriptors: USER + 0x100, available: USER + 0x180, used: USER + 0x200 };

  function setup(addresses: Partial<RingAddresses>, entries = size) {
    const memory = new GuestMemory();
    memory.add(heapRegion(GUEST, 0x1000, USER));
    return {
      memory,
      size: entries,
      addresses: { ...good, ...addresses },
      indirect: false,
      eventIndex: false,
    };
  }

  it("is found by user addresses, where the views say", () => {
    const memory = new GuestMemory();
    const region = heapRegion(GUEST, 0x1000, USER);
    memory.add(region);
    const views = mapRing({ ...setup({}), memory });
    const bytes = region.windows[0]?.u8 ?? new Uint8Array();
    views.descriptors[4] = 1;
    views.available[1] = 2;
    views.used[1] = 3;
    views.usedElements[0] = 4;
    expect([bytes[0x110], bytes[0x182], bytes[0x202], bytes[0x204]]).toEqual([1, 2, 3, 4]);
  });

  it("may end with the last byte of its region", () => {
    const ends = { descriptors: USER + 0x1000 - 64, available: USER + 0x1000 - 14, used: USER + 0x1000 - 40 };
    for (const [part, address] of Object.entries(ends)) {
      expect(codeOf(() => mapRing(setup({ [part]: address })))).toBeUndefined();
    }
  });

  it.each<[string, Partial<RingAddresses>, string]>([
    ["descriptors end behind memory", { descriptors: USER + 0x1000 - 48 }, "ring-range"],
    ["available ring ends behind memory, by used_event", { available: USER + 0x1000 - 12 }, "ring-range"],
    ["used ring ends behind memory, by avail_event", { used: USER + 0x1000 - 36 }, "ring-range"],
    ["descriptors are at a guest-physical address", { descriptors: GUEST }, "ring-range"],
    ["available ring is at 0", { available: 0 }, "ring-range"],
    ["used ring begins before memory", { used: USER - 4 }, "ring-range"],
    ["used ring is at the end of the address space", { used: 2 ** 64 - 4 }, "ring-range"],
    ["descriptors are aligned to 8 bytes only", { descriptors: USER + 0x108 }, "ring-alignment"],
    ["available ring is at an odd address", { available: USER + 0x181 }, "ring-alignment"],
    ["used ring is aligned to 2 bytes only", { used: USER + 0x202 }, "ring-alignment"],
  ])("is refused where its %s", (_, addresses, code) => {
    expect(codeOf(() => mapRing(setup(addresses)))).toBe(code);
  });

  it("is refused where its address is aligned, but its place in the mapping is not", () => {
    const memory = new GuestMemory();
    memory.add(heapRegion(GUEST, 0x1000, USER + 8));
    expect(codeOf(() => mapRing({ ...setup({}), memory }))).toBe("ring-alignment");
  });

  it("is refused where its place in the mapping is aligned, but its address is not", () => {
    const memory = new GuestMemory();
    memory.add(heapRegion(GUEST, 0x1000, USER + 8));
    const addresses = { descriptors: USER + 0x108, available: USER + 0x188, used: USER + 0x208 };
    expect(codeOf(() => mapRing({ ...setup(addresses), memory }))).toBe("ring-alignment");
  });

  it.each([0, 3, 65536])("is refused with %d entries", (entries) => {
    expect(codeOf(() => mapRing(setup({}, entries)))).toBe("ring-size");
  });

  it("must lie whole in one window: two regions that adjoin are not enough, an overlap is", () => {
    const two = new GuestMemory();
    two.add(heapRegion(GUEST, 0x120, USER));
    two.add(heapRegion(GUEST + 0x120, 0x1000, USER + 0x120));
    expect(codeOf(() => mapRing({ ...setup({}), memory: two }))).toBe("ring-range");
    const windows = new GuestMemory();
    windows.add(windowedRegion(GUEST, USER, 0x1000, 0x120, 0x40));
    const views = mapRing({ ...setup({}), memory: windows });
    expect(views.descriptors.byteOffset).toBe(0x100);
  });
});

describe("needsEvent", () => {
  it("says whether the event lies in the step, with wrap at 16 bits", () => {
    const event = fc.integer({ min: 0, max: 0xffff });
    // Half of the events near the step: far away ones are never in it.
    fc.assert(
      fc.property(
        event,
        fc.nat(300),
        fc.oneof(event, fc.integer({ min: -3, max: 303 })),
        (before, step, place) => {
          const asked = place >= -3 && place <= 303 ? (before + place) & 0xffff : place;
          let expected = false;
          for (let i = 0; i < step; i++) if (((before + i) & 0xffff) === asked) expected = true;
          expect(needsEvent(asked, (before + step) & 0xffff, before)).toBe(expected);
        },
      ),
      { numRuns: 5000 },
    );
  });

  it.each([
    ["the event is the first of the step", 10, 11, 10, true],
    ["the event is the last of the step", 14, 15, 10, true],
    ["the event is the index itself, not reached yet", 15, 15, 10, false],
    ["the event was passed before", 9, 15, 10, false],
    ["nothing was added", 10, 10, 10, false],
    ["the step wraps and the event is before the wrap", 0xffff, 2, 0xfffe, true],
    ["the step wraps and the event is behind the wrap", 0, 2, 0xfffe, true],
    ["the step wraps and the event is not reached", 2, 2, 0xfffe, false],
    ["the step wraps and the event was passed", 0xfffd, 2, 0xfffe, false],
  ])("%s", (_, event, after, before, expected) => {
    expect(needsEvent(event, after, before)).toBe(expected);
  });
});
