import { execFileSync } from "node:child_process";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { numericFields } from "../../web/fields.ts";
import { endpointLines, qemuLines, quoted } from "../../web/lines.ts";
import {
  cut,
  hexDump,
  hexOf,
  lineOf,
  parseHex,
  printable,
  printableName,
  wholeOf,
} from "../../web/payload.ts";
import { endpointAddress, guestAddress, parseRoute, titleOf } from "../../web/route.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

describe("payloads", () => {
  test("nothing that moves the text or hides in it is left, and all else is", () => {
    expect(printable("a\u0000\u001b[2J\n\u007f\u202eb\u200b\u0085ü€😀")).toBe(
      "a␀␛[2J␊␡\\u202eb\\u200b\\u0085ü€😀",
    );
  });

  test("nor is what fills no space: soft hyphens, joiners, fillers, tags", () => {
    expect(printable("a\u00ad\u034f\u115f\u1160\u180e\u3164b\u{e0001}\u{e0041}\u{e007f}")).toBe(
      "a\\u00ad\\u034f\\u115f\\u1160\\u180e\\u3164b\\u{e0001}\\u{e0041}\\u{e007f}",
    );
    expect(printable("\ufff9a\ufffb\u{1d173}")).toBe("\\ufff9a\\ufffb\\u{1d173}");
  });

  test("a name has no blanks that a page would swallow, or that look like others", () => {
    const names = [" ", "   ", " a b ", "a  b", "a\u00a0b", "\u3000", "a\n "];
    expect(names.map(printableName)).toEqual(["␠", "␠␠␠", "␠a b␠", "a␠ b", "a\\u00a0b", "\\u3000", "a␊␠"]);
  });

  test("are cut in pieces that are no longer than a message, and are the same together", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), fc.integer({ min: 1, max: 120 }), (data, most) => {
        const pieces = cut(data, most);
        expect(Uint8Array.from(pieces.flatMap((piece) => [...piece]))).toEqual(data);
        expect(pieces.slice(0, -1).every(({ length }) => length === most)).toBe(true);
        expect(pieces.at(-1)?.length).toBeLessThanOrEqual(most);
        expect(pieces.length).toBe(Math.max(Math.ceil(data.length / most), 1));
      }),
    );
    // The length of a message is 0 where it is not known.
    expect(() => cut(new Uint8Array(5), 0)).toThrow("pieces of 0 bytes");
  });

  test("hexadecimal digits are read back as they are shown, with blanks or without", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (data) => {
        expect(parseHex(hexOf(data))).toEqual(data);
        expect(parseHex(hexOf(data).replaceAll(" ", "").toUpperCase())).toEqual(data);
      }),
    );
    for (const wrong of ["0", "0g", "abc", "é0"]) expect(() => parseHex(wrong)).toThrow("not hexadecimal");
  });

  test("a dump has the offset, the bytes and the characters of 16 bytes a line", () => {
    expect(hexDump(bytes("0123456789abcdef\n"))).toBe(
      [
        "0000  30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  0123456789abcdef",
        `0010  0a${" ".repeat(45)}  .`,
      ].join("\n"),
    );
  });

  test("what is no JSON is text, and JSON is in one line or in several", () => {
    const json = bytes('{"a":\n1,"b":"\u202e"}');
    expect(lineOf(json, "json")).toBe('{"a":1,"b":"\\u202e"}');
    expect(wholeOf(json, "json")).toBe('{\n  "a": 1,\n  "b": "\\u202e"\n}');
    expect(lineOf(bytes("no\n"), "json")).toBe("no␊");
    expect(lineOf(Uint8Array.of(0x7b, 0xff), "json")).toBe("{\ufffd");
  });
});

describe("numbers of a JSON value", () => {
  test.each([
    [
      { t: 1, deep: { x: 2.5, list: [3, "4", null] }, text: "5" },
      { t: 1, "deep.x": 2.5, "deep.list.0": 3 },
    ],
    [7, { value: 7 }],
    [[1, 2], { 0: 1, 1: 2 }],
    ["7", {}],
    [undefined, {}],
    [null, {}],
  ])("%j", (value, fields) => {
    expect(Object.fromEntries(numericFields(value))).toEqual(fields);
  });

  test("are so many at most, however deep and wide it is", () => {
    const wide = Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`f${i}`, i]));
    expect(numericFields(wide).size).toBe(12);
    let deep: unknown = 1;
    for (let i = 0; i < 1000; i++) deep = { deep };
    expect(numericFields(deep).size).toBe(0);
  });
});

describe("lines to copy", () => {
  test("a shell reads what is quoted as one word, whatever is in it", () => {
    const character = fc.constantFrom(
      "a",
      "'",
      '"',
      "\\",
      "$",
      "`",
      " ",
      "\n",
      "!",
      "*",
      "ü",
      ";",
      "&",
      "~",
      "#",
    );
    fc.assert(
      fc.property(fc.string({ unit: character, minLength: 1, maxLength: 20 }), (text) => {
        expect(execFileSync("bash", ["-c", `printf %s ${quoted(text)}`]).toString()).toBe(text);
      }),
      { numRuns: 50, examples: [["~"], ["~a"], ["a=~"], ["a:~"]] },
    );
  });

  test("have the bridge's address, below a path too, and the token's place where one is needed", () => {
    const endpoint = { guest: "vm0", id: "e7", name: "it's", path: "/ws/v1/vm0/it's@1024" };
    const text = endpointLines(endpoint, new URL("https://x.example/lab/"), true)
      .map((line) => line.text)
      .join("\n");
    expect(text).toContain(
      "npx wscat -c 'wss://x.example/lab/ws/v1/vm0/it'\\''s@1024' -H \"Authorization: Bearer $RPMSG_BRIDGE_TOKEN\"",
    );
    expect(text).toContain("https://x.example/lab/api/v1/guests/vm0/endpoints/e7/messages");
    expect(text).toContain(
      'connect("wss://x.example/lab/ws/v1/vm0/it\'s@1024", { token: process.env.RPMSG_BRIDGE_TOKEN })',
    );
    expect(text).toContain("connect --url https://x.example/lab/ vm0/~e7");
  });

  test("QEMU gets a socket with commas in its path", () => {
    const [bridge, qemu] = qemuLines({ name: "vm0" }, "/tmp/a,b.sock");
    expect(bridge?.text).toContain("--guest vm0=vhost-user:/tmp/a,b.sock");
    expect(qemu?.text).toContain("-chardev socket,id=rpmsg,path=/tmp/a,,b.sock \\");
  });
});

describe("places of the dashboard", () => {
  test.each([
    ["", { page: "overview" }],
    ["#/", { page: "overview" }],
    ["#/guests/<b>", { page: "overview" }],
    [guestAddress("vm-0"), { page: "guest", guest: "vm-0" }],
    [endpointAddress("/ws/v1/vm/a%20b@7"), { page: "endpoint", path: "/ws/v1/vm/a%20b@7", tab: undefined }],
    [endpointAddress("/ws/v1/vm/a", "plot"), { page: "endpoint", path: "/ws/v1/vm/a", tab: "plot" }],
    ["#/ws/v1/vm/a?view=nothing", { page: "endpoint", path: "/ws/v1/vm/a", tab: undefined }],
  ])("%s", (hash, route) => {
    expect(parseRoute(hash)).toEqual(route);
  });

  test.each([
    ["#/", "rpmsg-bridge"],
    ["#/guests/vm-0", "vm-0 · rpmsg-bridge"],
    ["#/ws/v1/vm/a%20b@7?view=plot", "vm/a b@7 · rpmsg-bridge"],
    ["#/ws/v1/vm/%E2%80%AE", "vm/\\u202e · rpmsg-bridge"],
    ["#/ws/v1/vm/100%", "vm/100% · rpmsg-bridge"],
  ])("%s is called %s", (hash, title) => {
    expect(titleOf(parseRoute(hash))).toBe(title);
  });
});
