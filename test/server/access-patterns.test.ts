import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Config } from "../../schemas/index.ts";
import { Patterns } from "../../server/access/patterns.ts";

describe("a pattern", () => {
  test.each([
    ["vm0/echo", "vm0", "echo", true],
    ["vm0/echo", "vm0", "echo2", false],
    ["vm0/echo", "vm1", "echo", false],
    ["vm0/Echo", "vm0", "echo", false],
    ["*/echo", "vm1", "echo", true],
    ["vm*/echo", "vm", "echo", true],
    ["vm*/echo", "demo", "echo", false],
    ["vm0/*", "vm0", "", true],
    ["vm0/*", "vm0", "a/b", true],
    ["vm0/a/*", "vm0", "a/b", true],
    ["vm0/rpmsg-*", "vm0", "rpmsg-tty", true],
    ["vm0/rpmsg-*", "vm0", "my-rpmsg-tty", false],
    ["vm0/*-tty", "vm0", "rpmsg-tty", true],
    ["vm0/a*a", "vm0", "a", false],
    ["vm0/a*a", "vm0", "aa", true],
    ["vm0/a*b*c", "vm0", "a-b-b-c", true],
    ["vm0/a*b*c", "vm0", "acb", false],
    // The byte 2a is no wildcard, ff is no UTF-8.
    ["vm0/%2A", "vm0", "*", true],
    ["vm0/%2A", "vm0", "x", false],
    ["vm0/%ff*", "vm0", "\xff\xfe", true],
    ["vm0/%FF", "vm0", "\xff", true],
    // A character beyond ASCII is its bytes in UTF-8: c3 a9.
    ["vm0/é", "vm0", "\xc3\xa9", true],
    ["vm0/~e1", "vm0", "~e1", true],
    ["vm0/name@7", "vm0", "name@7", true],
    ["vm0/name@7", "vm0", "name", false],
    ["vm0/.*", "vm0", "xx", false],
  ])("%s, of %s/%j: %s", (pattern, guest, name, expected) => {
    expect(new Patterns([pattern]).match(guest, name)).toBe(expected);
  });

  test("of all is */*, and what amounts to it", () => {
    for (const text of ["*/*", "**/*", "*/***"]) expect(new Patterns([text]).matchAll).toBe(true);
    for (const text of ["vm0/*", "*/a*", "*/%2A", "v*/*"]) expect(new Patterns([text]).matchAll).toBe(false);
    expect(new Patterns([]).matchAll).toBe(false);
    // Together they are all, but no one says so.
    expect(new Patterns(["a*/*", "*/b*"]).matchAll).toBe(false);
  });

  test("matches guests that could have such an endpoint", () => {
    const patterns = new Patterns(["vm*/echo", "demo/*"]);
    expect(["vm0", "demo", "other"].map((guest) => patterns.matchGuest(guest))).toEqual([true, true, false]);
  });
});

/** Says the same by trying everything: of text and pattern, what is left after their first character. */
function model(pattern: readonly string[], text: string): boolean {
  const [first, ...rest] = pattern;
  if (first === undefined) return text === "";
  if (first !== "*") return text[0] === first && model(rest, text.slice(1));
  return model(rest, text) || (text !== "" && model(pattern, text.slice(1)));
}

test("patterns match as their simplest description says, for any bytes", () => {
  // Few different bytes, so that much matches; "*" and "/" among those of names.
  const byte = fc.constantFrom("a", "b", "*", "/", "%", "\xff", "\n");
  const item = fc.oneof({ arbitrary: fc.constant("any"), weight: 2 }, { arbitrary: byte, weight: 3 });
  fc.assert(
    fc.property(
      fc.array(item, { minLength: 1, maxLength: 8 }),
      fc.array(byte, { maxLength: 10 }),
      (items, name) => {
        const text = items
          .map((each) => (each === "any" ? "*" : `%${each.charCodeAt(0).toString(16).padStart(2, "0")}`))
          .join("");
        const config = { name: "t", hash: `sha256:${"0".repeat(64)}`, rights: { read: [`g/${text}`] } };
        const [token] = Config.parse({ tokens: [config] }).tokens;
        const patterns = new Patterns(token?.rights.read ?? []);
        // In the model "*" is the wildcard, and the byte is another character.
        const plain = (each: string) => (each === "*" ? "\u{100}" : each);
        const parts = items.map((each) => (each === "any" ? "*" : plain(each)));
        expect(patterns.match("g", name.join(""))).toBe(model(parts, name.map(plain).join("")));
        expect(patterns.match("h", name.join(""))).toBe(false);
      },
    ),
    { numRuns: 3000 },
  );
});

test.each(["", "echo", "/echo", "vm0/", "vm.0/echo", "vm0/%2", "vm0/%zz", "vm 0/echo", "-vm/echo", "vm0/%"])(
  "%j is no pattern",
  (pattern) => {
    const config = { name: "t", hash: `sha256:${"0".repeat(64)}`, rights: { read: [pattern] } };
    expect(Config.safeParse({ tokens: [config] }).success).toBe(false);
  },
);
