import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Origin } from "../../schemas/index.ts";
import { Directory } from "../../server/directory.ts";
import { parseChannelPath } from "../../server/endpoint-path.ts";
import type { EndpointPort } from "../../server/endpoint-port.ts";

/** An endpoint that cannot be opened. `name` is one character a byte. */
function endpoint(name: string, address: number, origin: Origin = "guest", guest = "vm"): EndpointPort {
  const counters = {
    accepted: 0,
    messagesToGuest: 0,
    bytesToGuest: 0,
    undelivered: 0,
    unconfirmed: 0,
    messagesFromGuest: 0,
    bytesFromGuest: 0,
    noClient: 0,
    messagesToClients: 0,
    dropped: 0,
  };
  return {
    guest,
    guestState: "attached",
    name,
    address,
    origin,
    ns: origin === "guest" ? "up" : "down",
    peer: undefined,
    state: "connected",
    generation: 1,
    mtu: 496,
    clients: 0,
    counters,
    open: () => "no-address",
    restore: () => {
      throw new Error("not here");
    },
  };
}

/** What a request for that path and query gets. */
function lookup(directory: Directory, path: string, origin?: Origin): EndpointPort | undefined {
  const target = parseChannelPath(path);
  if (target?.kind !== "endpoint") return undefined;
  return directory.find(target.guest, { ...target.reference, ...(origin && { origin }) });
}

function paths(directory: Directory): string[] {
  return directory.list().endpoints.map((each) => each.path);
}

describe("ids", () => {
  test("are never used again, of whatever guest", () => {
    const directory = new Directory();
    const seen = new Set<string>();
    for (let i = 0; i < 100; i++) {
      const port = endpoint("echo", 1, "guest", `vm${i % 3}`);
      directory.add(port);
      for (const each of directory.list().endpoints) seen.add(each.id);
      directory.remove(port);
    }
    expect(seen.size).toBe(100);
    expect(directory.list().endpoints).toEqual([]);
  });

  test("find their endpoint, in its guest only", () => {
    const directory = new Directory();
    const port = endpoint("echo", 1);
    directory.add(port);
    directory.add(endpoint("echo", 1, "guest", "other"));
    const [first] = directory.list((port) => port.guest === "vm").endpoints;
    expect(lookup(directory, `/ws/v1/vm/~${first?.id}`)).toBe(port);
    expect(lookup(directory, `/ws/v1/other/~${first?.id}`)).toBeUndefined();
    directory.remove(port);
    expect(lookup(directory, `/ws/v1/vm/~${first?.id}`)).toBeUndefined();
  });
});

describe("paths", () => {
  test("the oldest holder of a name has the plain one, a later one @address, a twin ~id", () => {
    const directory = new Directory();
    const ports = [endpoint("x", 5), endpoint("x", 6), endpoint("x", 5, "host"), endpoint("x", 6, "host")];
    for (const port of ports) directory.add(port);
    expect(paths(directory)).toEqual(["/ws/v1/vm/x", "/ws/v1/vm/x@6", "/ws/v1/vm/~e3", "/ws/v1/vm/~e4"]);
    expect(paths(directory).map((path) => lookup(directory, path))).toEqual(ports);
  });

  test("stay while the endpoint lives, whoever goes and comes", () => {
    const directory = new Directory();
    const [first, second, third] = [endpoint("x", 1), endpoint("x", 2), endpoint("x", 1)];
    directory.add(first);
    directory.add(second);
    directory.remove(first);
    expect(paths(directory)).toEqual(["/ws/v1/vm/x@2"]);
    // The name alone means the oldest that is left.
    expect(lookup(directory, "/ws/v1/vm/x")).toBe(second);
    directory.add(third);
    expect(paths(directory)).toEqual(["/ws/v1/vm/x@2", "/ws/v1/vm/x@1"]);
    expect(lookup(directory, "/ws/v1/vm/x")).toBe(second);
    directory.remove(second);
    expect(paths(directory)).toEqual(["/ws/v1/vm/x@1"]);
    directory.remove(third);
    directory.add(endpoint("x", 3));
    expect(paths(directory)).toEqual(["/ws/v1/vm/x"]);
  });

  test("other guests and other names do not matter", () => {
    const directory = new Directory();
    for (const port of [endpoint("x", 1), endpoint("y", 1), endpoint("x", 1, "guest", "other")]) {
      directory.add(port);
    }
    expect(paths(directory)).toEqual(["/ws/v1/vm/x", "/ws/v1/vm/y", "/ws/v1/other/x"]);
  });

  test.each(["", ".", ".."])("the name %j cannot stand alone in a path: it goes with its address", (name) => {
    const directory = new Directory();
    const port = endpoint(name, 7);
    directory.add(port);
    const [path = ""] = paths(directory);
    expect(path).toBe(`/ws/v1/vm/${name}@7`);
    expect(new URL(path, "http://h").pathname).toBe(path);
    expect(lookup(directory, path)).toBe(port);
  });

  test("?origin= picks a side", () => {
    const directory = new Directory();
    const [up, down] = [endpoint("x", 5), endpoint("x", 5, "host")];
    directory.add(up);
    directory.add(down);
    expect(lookup(directory, "/ws/v1/vm/x")).toBe(up);
    expect(lookup(directory, "/ws/v1/vm/x", "host")).toBe(down);
    expect(lookup(directory, "/ws/v1/vm/x@5", "host")).toBe(down);
    expect(lookup(directory, "/ws/v1/vm/x@6", "host")).toBeUndefined();
    expect(lookup(directory, "/ws/v1/vm/~e1", "host")).toBeUndefined();
  });

  test("any coming and going: every listed path is unique, stays, finds its endpoint, and survives a URL", () => {
    const step = fc.record({
      name: fc.constantFrom("x", "y", "", ".", "..", "~e1", "a@1", "%", "\u00ff", "a/b", "__proto__"),
      address: fc.integer({ min: 1, max: 3 }),
      origin: fc.constantFrom<Origin>("guest", "host"),
      remove: fc.option(fc.nat()),
    });
    const property = fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const directory = new Directory();
      const live: EndpointPort[] = [];
      const pathOf = new Map<string, string>();
      for (const { name, address, origin, remove } of steps) {
        if (remove !== null && live.length > 0) {
          const [gone] = live.splice(remove % live.length, 1);
          if (gone !== undefined) directory.remove(gone);
        } else {
          const port = endpoint(name, address, origin);
          live.push(port);
          directory.add(port);
        }
        const listed = directory.list((port) => port.guest === "vm").endpoints;
        expect(new Set(listed.map((each) => each.path)).size).toBe(live.length);
        for (const [i, { id, path }] of listed.entries()) {
          expect(path).toBe(pathOf.get(id) ?? path);
          pathOf.set(id, path);
          expect(lookup(directory, path)).toBe(live[i]);
          expect(new URL(path, "http://h").pathname).toBe(path);
        }
      }
    });
    fc.assert(property, { numRuns: 300 });
  });
});

test("a description shows the name as UTF-8, and what is none as U+FFFD", () => {
  const directory = new Directory();
  for (const [i, bytes] of [Buffer.from("grüß"), Buffer.from([0x61, 0xff, 0x62])].entries()) {
    directory.add(endpoint(bytes.toString("latin1"), i));
  }
  expect(directory.list().endpoints.map(({ name, path }) => [name, path])).toEqual([
    ["grüß", "/ws/v1/vm/gr%C3%BC%C3%9F"],
    ["a\ufffdb", "/ws/v1/vm/a%FFb"],
  ]);
});
