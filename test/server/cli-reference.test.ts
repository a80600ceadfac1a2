import fc from "fast-check";
import { expect, test } from "vitest";
import { channelPath, parseReference, referenceOf } from "../../server/cli/reference.ts";
import { endpointPath } from "../../server/endpoint-path.ts";

const nameBytes = fc.oneof(
  fc.uint8Array({ minLength: 1, maxLength: 31 }).map((bytes) => Buffer.from(bytes)),
  fc.string({ unit: "grapheme", minLength: 1, maxLength: 8 }).map((text) => Buffer.from(text)),
  fc.stringMatching(/^[a-c@~/%1x]{1,6}$/).map((text) => Buffer.from(text)),
);
const address = fc.option(fc.integer({ min: 0, max: 0xffff_fffe }), { nil: undefined });

test("what is shown for a listed endpoint leads back to it", () => {
  fc.assert(
    fc.property(nameBytes, address, (bytes, at) => {
      const name = bytes.toString("latin1");
      const path = endpointPath("demo", at === undefined ? { name } : { name, address: at });
      const reference = referenceOf({ guest: "demo", id: "e7", path });
      expect([path, "/ws/v1/demo/~e7"]).toContain(channelPath(parseReference(reference)));
      // Neither control characters nor line ends, which would end a candidate of a shell's completion.
      expect(reference).not.toMatch(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
    }),
  );
});

test.each([
  ["/ws/v1/demo/echo", "demo/echo"],
  ["/ws/v1/demo/echo@1043", "demo/echo@1043"],
  ["/ws/v1/demo/two%20words", "demo/two words"],
  ["/ws/v1/demo/gr%C3%BC%C3%9F", "demo/grüß"],
  ["/ws/v1/demo/a%40b", "demo/a@b"],
  ["/ws/v1/demo/a%2Fb", "demo/a/b"],
  // Would be read as an address, as an id, or not at all.
  ["/ws/v1/demo/a%405", "demo/~e7"],
  ["/ws/v1/demo/a%405@6", "demo/a@5@6"],
  ["/ws/v1/demo/%7Ex", "demo/~e7"],
  ["/ws/v1/demo/%FF", "demo/~e7"],
  ["/ws/v1/demo/bidi%E2%80%AE", "demo/~e7"],
  ["/ws/v1/demo/%0A", "demo/~e7"],
  ["/ws/v1/demo/@1043", "demo/@1043"],
  ["/ws/v1/demo/~e7", "demo/~e7"],
])("%s is written %s", (path, reference) => {
  expect(referenceOf({ guest: "demo", id: "e7", path })).toBe(reference);
});
