import { Readable } from "node:stream";
import { text } from "node:stream/consumers";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Endpoint } from "../../schemas/index.ts";
import { EndpointList, GuestList, Problem } from "../../schemas/index.ts";
import { Directory } from "../../server/directory.ts";
import { parseChannelPath } from "../../server/endpoint-path.ts";
import type { EndpointPort } from "../../server/endpoint-port.ts";
import { inSlices } from "../../server/routes/slices.ts";
import { titled, unsupported } from "../rpmsg/posix/support.ts";
import type { Declaration } from "./name-service-guest.ts";
import { call, guestBridge } from "./name-service-guest.ts";
import type { RunningBridge } from "./support.ts";
import { testBridge } from "./support.ts";

/** An endpoint whose address may change, as that of one that the guest is to announce. */
function endpoint(name: string, address: number | undefined): EndpointPort & { address: number | undefined } {
  return {
    ...{ guest: "vm", guestState: "attached", name, address, origin: "guest", ns: "up", peer: undefined },
    ...{ state: "declared", generation: 1, mtu: 496, clients: 0 },
    counters: {
      ...{ accepted: 0, messagesToGuest: 0, bytesToGuest: 0, undelivered: 0, unconfirmed: 0 },
      ...{ messagesFromGuest: 0, bytesFromGuest: 0, noClient: 0, messagesToClients: 0, dropped: 0 },
    },
    open: () => "no-address",
    restore: () => {
      throw new Error("not here");
    },
  };
}

describe("a directory", () => {
  test("in pages: what stays is listed once and in order, whatever comes and goes between two pages", () => {
    const change = fc.oneof(fc.record({ add: fc.constantFrom("x", "y") }), fc.record({ remove: fc.nat() }));
    const changes = fc.array(change, { maxLength: 6 });
    const property = fc.property(
      fc.nat({ max: 20 }),
      fc.integer({ min: 1, max: 5 }),
      fc.array(changes, { maxLength: 12 }),
      fc.constantFrom(undefined, "x", "none"),
      (atFirst, limit, rounds, name) => {
        const directory = new Directory();
        const live: EndpointPort[] = [];
        const add = (named: string) => {
          const port = endpoint(named, live.length);
          live.push(port);
          directory.add(port);
        };
        for (let i = 0; i < atFirst; i++) add(i % 2 === 0 ? "x" : "y");
        const where = (port: EndpointPort) => name === undefined || port.name === name;
        const ids = () => live.filter(where).map((port) => directory.idOf(port));
        let stayed = ids();
        const seen: string[] = [];
        let after: string | undefined;
        for (let page = 0; ; page++) {
          expect(page).toBeLessThan(200);
          const { endpoints, next } = directory.list(where, limit, after);
          expect(endpoints.length).toBeLessThanOrEqual(limit);
          seen.push(...endpoints.map((each) => each.id));
          if (next === null) break;
          // A page that is not the last one is full.
          expect(endpoints).toHaveLength(limit);
          expect(next).toBe(endpoints.at(-1)?.id);
          expect(directory.list(where, 1, next).endpoints).toHaveLength(1);
          after = next;
          for (const step of rounds[page] ?? []) {
            if ("add" in step) add(step.add);
            else if (live.length > 0) {
              const [gone] = live.splice(step.remove % live.length, 1);
              if (gone !== undefined) directory.remove(gone);
            }
          }
          const left = new Set(ids());
          stayed = stayed.filter((id) => left.has(id));
        }
        expect(new Set(seen).size).toBe(seen.length);
        expect(seen).toEqual(seen.toSorted((a, b) => Number(a.slice(1)) - Number(b.slice(1))));
        expect(seen).toEqual(expect.arrayContaining(stayed));
      },
    );
    fc.assert(property, { numRuns: 500 });
  });

  test("paths are unique and find their endpoint, though addresses change", () => {
    const address = fc.option(fc.integer({ min: 1, max: 3 }), { nil: undefined });
    const step = fc.record({
      what: fc.constantFrom("add", "add", "move", "remove"),
      which: fc.nat(),
      address,
    });
    const property = fc.property(fc.array(step, { maxLength: 25 }), (steps) => {
      const directory = new Directory();
      const live: ReturnType<typeof endpoint>[] = [];
      const pathOf = new Map<EndpointPort, string>();
      for (const { what, which, address } of steps) {
        const port = live[which % Math.max(live.length, 1)];
        if (what === "add") {
          const added = endpoint("x", address);
          live.push(added);
          directory.add(added);
          pathOf.set(added, directory.describe(added).path);
        } else if (port !== undefined && what === "move") {
          port.address = address;
        } else if (port !== undefined) {
          live.splice(live.indexOf(port), 1);
          directory.remove(port);
        }
        expect(new Set(directory.list().endpoints.map((each) => each.path)).size).toBe(live.length);
        for (const each of live) {
          const path = pathOf.get(each) ?? "";
          expect(directory.describe(each).path).toBe(path);
          const target = parseChannelPath(path);
          if (target?.kind !== "endpoint") throw new Error(path);
          // The plain path means the oldest, which it was given to.
          expect(directory.find("vm", target.reference)).toBe(each);
        }
      }
    });
    fc.assert(property, { numRuns: 500 });
  });
});

describe("a long answer", () => {
  /** A directory, and the answer with so many of its endpoints; told of each part of its making. */
  async function answer(
    ports: readonly EndpointPort[],
    { limit, onPart = () => {} }: { limit: number; onPart?: (part: number, directory: Directory) => void },
  ): Promise<EndpointList> {
    const directory = new Directory();
    for (const port of ports) directory.add(port);
    let part = 0;
    const list = (most: number, after?: string) => {
      onPart(part++, directory);
      return directory.list(undefined, most, after);
    };
    const made = inSlices(list, limit);
    if ("endpoints" in made) return made;
    return EndpointList.strict().parse(JSON.parse(await text(Readable.from(made))));
  }
  const some = (count: number) => Array.from({ length: count }, (_, i) => endpoint(`n${i}`, i));

  test.each([
    [0, 1000],
    [99, 1000],
    [100, 1000],
    [101, 1000],
    [200, 1000],
    [350, 1000],
    [350, 350],
    [350, 349],
    [350, 200],
    [350, 100],
    [350, 1],
  ])("of %d endpoints, at most %d, is the same as made at once", async (count, limit) => {
    const ports = some(count);
    const whole = new Directory();
    for (const port of ports) whole.add(port);
    expect(await answer(ports, { limit })).toEqual(whole.list(undefined, limit));
  });

  test("others have their turn between two parts of it", async () => {
    let turns = 0;
    let going = true;
    const turn = () => {
      turns++;
      if (going) setImmediate(turn);
    };
    setImmediate(turn);
    const turnOf: number[] = [];
    const { endpoints } = await answer(some(1000), { limit: 1000, onPart: () => turnOf.push(turns) });
    going = false;
    expect(endpoints).toHaveLength(1000);
    expect(turnOf.length).toBeGreaterThanOrEqual(10);
    expect(new Set(turnOf).size).toBe(turnOf.length);
  });

  test("what goes meanwhile is not listed, what comes is, and what stays is once", async () => {
    const ports = some(250);
    const late = endpoint("late", 1000);
    const { endpoints, next } = await answer(ports, {
      limit: 1000,
      onPart(part, directory) {
        if (part !== 1) return;
        for (const port of [...ports.slice(0, 50), ...ports.slice(150)]) directory.remove(port);
        directory.add(late);
      },
    });
    const expected = [...ports.slice(0, 150), late];
    expect(endpoints.map((each) => each.name)).toEqual(expected.map((each) => each.name));
    expect(next).toBeNull();
  });

  test("ends well where all that were left are gone", async () => {
    const ports = some(250);
    const { endpoints, next } = await answer(ports, {
      limit: 1000,
      onPart(part, directory) {
        if (part === 1) for (const port of ports.slice(100)) directory.remove(port);
      },
    });
    expect([endpoints.length, next]).toEqual([100, null]);
  });
});

async function page(running: RunningBridge, path: string): Promise<EndpointList> {
  const response = await fetch(`${running.url}/api/v1/${path}`);
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toBe("application/json; charset=utf-8");
  return EndpointList.strict().parse(await response.json());
}

/** All pages, and how many endpoints each had. */
async function walk(
  running: RunningBridge,
  path: string,
  between: (round: number) => Promise<void> = async () => {},
): Promise<{ endpoints: Endpoint[]; sizes: number[] }> {
  const endpoints: Endpoint[] = [];
  const sizes: number[] = [];
  const join = path.includes("?") ? "&" : "?";
  for (let after = ""; ; ) {
    const list = await page(running, `${path}${after}`);
    endpoints.push(...list.endpoints);
    sizes.push(list.endpoints.length);
    if (list.next === null) return { endpoints, sizes };
    after = `${join}after=${list.next}`;
    await between(sizes.length);
  }
}

/** Two guests, one with 300 endpoints and one with 5. */
async function many(): Promise<RunningBridge> {
  const endpoints: Declaration[] = Array.from({ length: 300 }, (_, i) => ({
    ...(i % 3 === 0 ? { name: "same", ns: "none" as const, address: 2000 + i } : { name: `n${i}`, ns: "up" }),
  }));
  return testBridge({
    guests: { big: { kind: "emulated", endpoints }, small: { kind: "emulated" } },
  });
}

describe("several hundred endpoints", () => {
  test("in pages of any size: each once, and as in the whole list", async () => {
    const running = await many();
    const all = await running.endpoints();
    expect(all).toHaveLength(310);
    for (const [limit, sizes] of [
      [100, [100, 100, 100, 10]],
      [155, [155, 155]],
      [309, [309, 1]],
      [310, [310]],
      [10_000, [310]],
    ] as const) {
      expect(await walk(running, `endpoints?limit=${limit}`)).toEqual({ endpoints: all, sizes });
    }
  });

  test("the filters go for all pages", async () => {
    const running = await many();
    const all = await running.endpoints();
    const of = (where: (each: Endpoint) => boolean) => all.filter(where);
    for (const [query, expected] of [
      ["guest=big", of((each) => each.guest === "big")],
      ["name=same", of((each) => each.name === "same")],
      ["origin=host", of((each) => each.origin === "host")],
      ["guest=small&origin=guest", of((each) => each.guest === "small")],
      ["guest=big&name=n1&origin=guest", of((each) => each.name === "n1")],
      ["guest=small&name=same", []],
    ] as const) {
      expect((await walk(running, `endpoints?limit=7&${query}`)).endpoints).toEqual(expected);
    }
    expect((await walk(running, "guests/big/endpoints?limit=100")).sizes).toEqual([100, 100, 100, 5]);
    expect((await walk(running, "guests/small/endpoints?limit=5")).sizes).toEqual([5]);
    expect(await page(running, "endpoints?guest=nobody")).toEqual({ endpoints: [], next: null });
  });

  test("without a limit there are 1000", async () => {
    const endpoints: Declaration[] = Array.from({ length: 1001 }, (_, i) => ({ name: `n${i}`, ns: "up" }));
    const running = await testBridge({
      guests: { big: { kind: "emulated", endpoints } },
      limits: { declaredEndpoints: 1001 },
    });
    expect((await walk(running, "endpoints")).sizes).toEqual([1000, 6]);
    expect((await walk(running, "guests/big/endpoints")).sizes).toEqual([1000, 6]);
  });

  test("while endpoints come and go: what stays is listed once", async () => {
    const running = await many();
    const before = await running.endpoints();
    const base = `${running.url}/api/v1/guests/big/endpoints`;
    const gone = new Set<string>();
    const { endpoints } = await walk(running, "guests/big/endpoints?limit=30", async (round) => {
      // What was listed, what is next, and what comes at the end.
      for (const at of [round * 30 - 1, round * 30 + 3, 299 - round]) {
        const { id = "", guest } = before[at] ?? {};
        if (guest !== "big") continue;
        const { status } = await fetch(`${base}/${id}`, { method: "DELETE" });
        if (status === 204) gone.add(id);
      }
      const body = JSON.stringify({ name: "same", ns: "up" });
      await fetch(base, { method: "POST", headers: { "content-type": "application/json" }, body });
    });
    expect(gone.size).toBeGreaterThan(20);
    const ids = endpoints.map((each) => each.id);
    expect(new Set(ids).size).toBe(ids.length);
    const stayed = before.filter((each) => each.guest === "big" && !gone.has(each.id));
    expect(ids).toEqual(expect.arrayContaining(stayed.map((each) => each.id)));
    // Those that came are behind all others, and none of them twice.
    expect(ids.slice(-3)).toEqual(
      (await page(running, "guests/big/endpoints")).endpoints.slice(-3).map((each) => each.id),
    );
  });

  test("`after` may be gone, the last one, or yet to come", async () => {
    const running = await testBridge({
      guests: { demo: { kind: "emulated", endpoints: [{ name: "a" }, { name: "b" }] } },
    });
    const all = await running.endpoints();
    const [first, second] = all;
    await fetch(`${running.url}/api/v1/guests/demo/endpoints/${first?.id}`, { method: "DELETE" });
    const ids = async (after: string) =>
      (await page(running, `endpoints?after=${after}`)).endpoints.map((each) => each.id);
    expect(await ids(first?.id ?? "")).toEqual(all.slice(1).map((each) => each.id));
    expect(await ids(second?.id ?? "")).toEqual(all.slice(2).map((each) => each.id));
    expect(await ids(all.at(-1)?.id ?? "")).toEqual([]);
    expect(await ids("e0")).toEqual(all.slice(1).map((each) => each.id));
    expect(await ids("e999999")).toEqual([]);
  });

  test.each([
    ["limit=0", "limit"],
    ["limit=-1", "limit"],
    ["limit=10001", "limit"],
    ["limit=1.5", "limit"],
    ["limit=ten", "limit"],
    ["limit=", "limit"],
    ["limit=1&limit=2", "limit"],
    ["after=", "after"],
    ["after=x", "after"],
    ["after=7", "after"],
    ["after=e-1", "after"],
    ["after=e1e9", "after"],
    ["after=e1&after=e2", "after"],
    ["before=e1", "before"],
  ])("what is not understood is 400, for both lists: %s", async (query, key) => {
    const running = await testBridge();
    for (const list of ["endpoints", "guests/demo/endpoints"]) {
      const response = await fetch(`${running.url}/api/v1/${list}?${query}`);
      const problem = Problem.strict().parse(await response.json());
      expect(problem).toMatchObject({ status: 400, code: "bad-request" });
      expect(problem.detail).toContain(key);
    }
  });

  test("a guest's list has no filters, and a guest that there is not has none", async () => {
    const running = await testBridge();
    const get = async (path: string) => (await fetch(`${running.url}/api/v1/${path}`)).json();
    expect(await get("guests/demo/endpoints?name=echo")).toMatchObject({ status: 400, code: "bad-request" });
    expect(await get("guests/nobody/endpoints?limit=1")).toMatchObject({
      status: 404,
      code: "guest-unknown",
    });
  });
});

describe.skipIf(unsupported !== undefined)(titled("the generation"), () => {
  test("is in every resource, and grows with every reset", async () => {
    const { running, attach } = await guestBridge(
      [
        { name: "down" },
        { name: "both", ns: "both" },
        { name: "up", ns: "up" },
        { name: "none", ns: "none", address: 7 },
      ],
      {},
    );
    const { vm } = await attach();
    for (const generation of [1, 2, 3]) {
      await running.endpoint("tty", (each) => each.generation === generation);
      const get = async (path: string): Promise<unknown> =>
        (await fetch(`${running.url}/api/v1/${path}`)).json();
      const { guests } = GuestList.parse(await get("guests"));
      expect(guests.map((each) => each.generation)).toEqual([generation]);
      expect(await get("guests/vm")).toMatchObject({ generation });
      const { endpoints } = await page(running, "endpoints");
      expect(endpoints).toHaveLength(9);
      for (const each of endpoints) {
        expect(each.generation).toBe(generation);
        expect(await get(`guests/vm/endpoints/${each.id}`)).toMatchObject({ id: each.id, generation });
      }
      const { body } = await call(running, "POST", "", { name: "new" });
      expect(body.generation).toBe(generation);
      await call(running, "DELETE", `/${body.id}`);
      await vm.reboot();
    }
  });
});
