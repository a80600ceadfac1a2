import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { endpointPath, parseChannelPath } from "../../server/endpoint-path.ts";

describe("a path is built and read", () => {
  test.each([
    ["echo", "echo"],
    ["rpmsg-client_1.0", "rpmsg-client_1.0"],
    ["a b", "a%20b"],
    ["a/b", "a%2Fb"],
    ["../..", "..%2F.."],
    ["~id", "%7Eid"],
    ["a@5", "a%405"],
    ["100%", "100%25"],
    ["%2e", "%252e"],
    ["a?b#c", "a%3Fb%23c"],
    ["\u00ff\u0001", "%FF%01"],
    ["\u00c3\u00bc", "%C3%BC"],
    ["a:b;c,d+e&f=g", "a%3Ab%3Bc%2Cd%2Be%26f%3Dg"],
  ])("name %j", (name, segment) => {
    expect(endpointPath("vm", { name })).toBe(`/ws/v1/vm/${segment}`);
    expect(parseChannelPath(`/ws/v1/vm/${segment}`)).toEqual({
      kind: "endpoint",
      guest: "vm",
      reference: { name },
    });
    expect(endpointPath("vm", { name, address: 7 })).toBe(`/ws/v1/vm/${segment}@7`);
    expect(parseChannelPath(`/ws/v1/vm/${segment}@7`)).toEqual({
      kind: "endpoint",
      guest: "vm",
      reference: { name, address: 7 },
    });
  });

  test("of an id", () => {
    expect(endpointPath("vm", { id: "e12", name: "x", address: 1 })).toBe("/ws/v1/vm/~e12");
    expect(parseChannelPath("/ws/v1/vm/~e12")).toEqual({
      kind: "endpoint",
      guest: "vm",
      reference: { id: "e12" },
    });
  });

  test("of any bytes and any address", () => {
    const bytes = fc.uint8Array({ minLength: 1, maxLength: 32 });
    const address = fc.option(fc.integer({ min: 0, max: 0xffff_fffe }), { nil: undefined });
    fc.assert(
      fc.property(bytes, address, (raw, at) => {
        const name = Buffer.from(raw).toString("latin1");
        const reference = at === undefined ? { name } : { name, address: at };
        const path = endpointPath("vm", reference);
        expect(path).toMatch(/^[!-~]*$/);
        expect(parseChannelPath(path)).toEqual({ kind: "endpoint", guest: "vm", reference });
      }),
      { numRuns: 1000 },
    );
  });
});

describe("what people and browsers write is read too", () => {
  test.each([
    ["small hex digits", "%c3%bc", { name: "\u00c3\u00bc" }],
    ["more encoded than must be", "%65%63ho", { name: "echo" }],
    ["characters that are not escaped", "ü", { name: "\u00c3\u00bc" }],
    ["an address with 0x", "echo@0x400", { name: "echo", address: 1024 }],
    ["an address with 0X", "echo@0X400", { name: "echo", address: 1024 }],
    ["an @ in the name and one before the address", "a%40b@1", { name: "a@b", address: 1 }],
    ["two @: the last one counts", "a@1@2", { name: "a@1", address: 2 }],
    ["an empty name with an address", "@5", { name: "", address: 5 }],
    ["an encoded @ is part of the name", "a%405", { name: "a@5" }],
    ["an encoded ~ is part of the name", "%7ee1", { name: "~e1" }],
    ["a + is no blank", "a+b", { name: "a+b" }],
    ["the largest address", "x@4294967294", { name: "x", address: 0xffff_fffe }],
  ])("%s", (_what, segment, reference) => {
    expect(parseChannelPath(`/ws/v1/vm/${segment}`)).toEqual({ kind: "endpoint", guest: "vm", reference });
  });
});

test.each([
  "",
  "/",
  "/ws",
  "/ws/v1x",
  "/ws/v1/vm/",
  "/ws/v1/vm/a/b",
  "/ws/v1/vm/a/",
  "/ws/v1//a/b",
  "/WS/v1/vm/a",
  "/ws/v10/vm/a",
  "/api/ws/v1/vm/a",
  "/ws/v1/vm/%",
  "/ws/v1/vm/%a",
  "/ws/v1/vm/%g0",
  "/ws/v1/vm/a%",
  "/ws/v1/vm/a@",
  "/ws/v1/vm/a@x",
  "/ws/v1/vm/a@-1",
  "/ws/v1/vm/a@1.0",
  "/ws/v1/vm/a@ 1",
  "/ws/v1/vm/a@0x",
  "/ws/v1/vm/a@0x100000000",
  "/ws/v1/vm/a@4294967295",
  "/ws/v1/vm/a@%31",
])("%j is not the path of a WebSocket", (path) => {
  expect(parseChannelPath(path)).toBeUndefined();
});

test("a guest alone is for a client that announces, and no guest for a mux connection", () => {
  expect(parseChannelPath("/ws/v1/vm")).toEqual({ kind: "guest", guest: "vm" });
  expect(parseChannelPath("/ws/v1")).toEqual({ kind: "mux" });
  expect(parseChannelPath("/ws/v1/")).toEqual({ kind: "mux" });
});

test("no path makes the reader throw", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary", maxLength: 60 }), (text) => {
      parseChannelPath(text);
      parseChannelPath(`/ws/v1/vm/${text}`);
    }),
  );
  expect(parseChannelPath("/ws/v1/vm/\ud800")).toEqual({
    kind: "endpoint",
    guest: "vm",
    reference: { name: "\u00ef\u00bf\u00bd" },
  });
});
