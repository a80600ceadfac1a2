import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AddressTable } from "../../rpmsg/address-table.ts";
import { codeOf } from "./support/coded.ts";

const ANY = 0xffff_ffff;

describe("an address table", () => {
  it("allocates from 1024 to 65535 when nothing else is said", () => {
    const table = new AddressTable<number>();
    for (let expected = 1024; expected <= 65535; expected++) {
      if (table.allocate(expected) !== expected) expect.fail(`not ${expected}`);
    }
    expect(table.size).toBe(65536 - 1024);
    expect(codeOf(() => table.allocate(0))).toBe("address-space-full");
    expect(table.get(1024)).toBe(1024);
    expect(table.get(65535)).toBe(65535);
  });

  it("uses no address a second time before the space was used once", () => {
    const table = new AddressTable<string>(10, 14);
    const given: number[] = [];
    for (let i = 0; i < 5; i++) {
      const address = table.allocate("x");
      given.push(address);
      table.release(address);
    }
    expect(given).toEqual([10, 11, 12, 13, 14]);
  });

  it("then uses the one that has been free for longest", () => {
    const table = new AddressTable<string>(10, 13);
    for (let i = 0; i < 4; i++) table.allocate("x");
    for (const address of [12, 10, 13]) table.release(address);
    expect([table.allocate("y"), table.allocate("y")]).toEqual([12, 10]);
    table.release(12);
    expect([table.allocate("z"), table.allocate("z")]).toEqual([13, 12]);
    expect(codeOf(() => table.allocate("z"))).toBe("address-space-full");
    table.release(11);
    expect(table.allocate("z")).toBe(11);
  });

  it("takes as long for an address once all were used as before", () => {
    const table = new AddressTable<number>();
    const [first, last] = [1024, 65535];
    for (let address = first; address <= last; address++) table.release(table.allocate(address));
    // With a Set of freed addresses that is 100 seconds.
    for (let i = 0; i < 1_000_000; i++) {
      const address = table.allocate(i);
      if (address !== first + (i % (last - first + 1))) expect.fail(`the ${i}th is ${address}`);
      table.release(address);
    }
    expect(table.cursor.freed).toHaveLength(last - first + 1);
  });

  it("goes on as another one, with its order of freed addresses", () => {
    const table = new AddressTable<string>(10, 14);
    for (let i = 0; i < 4; i++) table.allocate("x");
    for (const address of [12, 10, 13]) table.release(address);
    const { cursor } = table;
    expect(cursor).toEqual({ next: 14, freed: [12, 10, 13] });
    const other = new AddressTable<string>(10, 14);
    other.claim(11, "x");
    other.claim(10, "claimed since");
    other.restore(cursor);
    expect([other.allocate("y"), other.allocate("y"), other.allocate("y")]).toEqual([14, 12, 13]);
    expect(codeOf(() => other.allocate("y"))).toBe("address-space-full");
  });

  it("passes over claimed addresses, and over those that were claimed and freed", () => {
    const table = new AddressTable<string>(10, 14);
    table.claim(10, "x");
    table.claim(12, "x");
    table.claim(13, "x");
    table.release(12);
    expect([table.allocate("y"), table.allocate("y")]).toEqual([11, 14]);
    expect(table.allocate("y")).toBe(12);
    expect(codeOf(() => table.allocate("y"))).toBe("address-space-full");
  });

  it("may have a freed address claimed, and starts its rest anew", () => {
    const table = new AddressTable<string>(10, 11);
    table.allocate("x");
    table.allocate("x");
    table.release(10);
    table.release(11);
    table.claim(10, "y");
    table.release(10);
    expect([table.allocate("z"), table.allocate("z")]).toEqual([11, 10]);
  });

  it.each([
    ["negative", -1],
    ["a fraction", 1.5],
    ["ANY", ANY],
    ["beyond 32 bits", 2 ** 32],
    ["no number", Number.NaN],
    ["endless", Number.POSITIVE_INFINITY],
  ])("refuses a claim of an address that is %s", (_, address) => {
    const table = new AddressTable<string>();
    expect(codeOf(() => table.claim(address, "x"))).toBe("address-invalid");
    expect(table.size).toBe(0);
  });

  it.each([0, 53, 1023, 1024, 65535, 65536, 0x8000_0000, ANY - 1])(
    "has %d claimed, found, refused again, released",
    (address) => {
      const table = new AddressTable<string>();
      expect(table.get(address)).toBeUndefined();
      expect(table.claim(address, "x")).toBe(address);
      expect(table.get(address)).toBe("x");
      expect(codeOf(() => table.claim(address, "y"))).toBe("address-in-use");
      expect(table.get(address)).toBe("x");
      expect([...table.values()]).toEqual(["x"]);
      table.release(address);
      table.release(address);
      expect(table.get(address)).toBeUndefined();
      expect(table.size).toBe(0);
      expect([...table.values()]).toEqual([]);
      expect(table.claim(address, "y")).toBe(address);
    },
  );

  it("finds nothing at addresses that a guest may name", () => {
    const table = new AddressTable<string>();
    table.claim(53, "x");
    for (const address of [0, 52, 54, 65535, 65536, ANY]) expect(table.get(address)).toBeUndefined();
  });

  it("allocates beyond 65535 too", () => {
    const table = new AddressTable<string>(65534, 65537);
    expect([1, 2, 3, 4].map(() => table.allocate("x"))).toEqual([65534, 65535, 65536, 65537]);
    table.release(65536);
    table.release(65535);
    expect([table.allocate("y"), table.allocate("y")]).toEqual([65536, 65535]);
    expect(table.size).toBe(4);
    expect([...table.values()].toSorted()).toEqual(["x", "x", "y", "y"]);
  });

  it("does as a list of free addresses does, in the order in which they were freed", () => {
    const first = 65530;
    const last = 65541;
    const around = Array.from({ length: last - first + 5 }, (_, i) => first - 2 + i);
    const near = fc.integer({ min: first - 2, max: last + 2 });
    const action = fc.oneof(
      fc.constant({ kind: "allocate" as const, address: 0 }),
      fc.record({
        kind: fc.constantFrom("claim" as const, "release" as const, "release" as const),
        address: near,
      }),
    );
    fc.assert(
      fc.property(fc.array(action, { minLength: 20, maxLength: 120, size: "max" }), (actions) => {
        const table = new AddressTable<number>(first, last);
        const used = new Map<number, number>();
        /** Never used ones in order, then the used and freed ones. */
        const fresh = Array.from({ length: last - first + 1 }, (_, i) => first + i);
        let freed: number[] = [];
        for (const [serial, { kind, address }] of actions.entries()) {
          if (kind === "allocate") {
            const expected = fresh.shift() ?? freed.shift();
            if (expected === undefined) {
              expect(codeOf(() => table.allocate(serial))).toBe("address-space-full");
              continue;
            }
            expect(table.allocate(serial)).toBe(expected);
            used.set(expected, serial);
          } else if (kind === "claim") {
            expect(codeOf(() => table.claim(address, serial))).toBe(
              used.has(address) ? "address-in-use" : undefined,
            );
            if (used.has(address)) continue;
            used.set(address, serial);
            if (fresh.includes(address)) fresh.splice(fresh.indexOf(address), 1);
            freed = freed.filter((each) => each !== address);
          } else {
            table.release(address);
            if (used.delete(address) && address >= first && address <= last) freed.push(address);
          }
          expect(table.size).toBe(used.size);
          expect(around.map((each) => table.get(each))).toEqual(around.map((each) => used.get(each)));
        }
        const inOrder = (a: number, b: number) => a - b;
        expect([...table.values()].toSorted(inOrder)).toEqual([...used.values()].toSorted(inOrder));
      }),
      { numRuns: 200 },
    );
  });
});
