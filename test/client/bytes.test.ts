import fc from "fast-check";
import { expect, test } from "vitest";
import { fromText, toBase64, utf8Bytes, utf8Text } from "../../client/bytes.ts";

test("base64 is that of Node, for any length", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 20_000 }), (bytes) => {
      const text = Buffer.from(bytes).toString("base64");
      expect(toBase64(bytes)).toBe(text);
      expect(fromText(text, "base64")).toEqual(bytes);
    }),
  );
});

test("hexadecimal digits become bytes, in both cases; anything else is refused", () => {
  fc.assert(
    fc.property(fc.uint8Array(), (bytes) => {
      const text = Buffer.from(bytes).toString("hex");
      expect(fromText(text, "hex")).toEqual(bytes);
      expect(fromText(text.toUpperCase(), "hex")).toEqual(bytes);
    }),
  );
  for (const text of ["0", "0g", "00 0", " 00"]) expect(fromText(text, "hex")).toBeUndefined();
});

test("what is not base64 is refused", () => {
  for (const text of ["*", "a", "====", "aé=="]) expect(fromText(text, "base64")).toBeUndefined();
});

test("text keeps a byte order mark, and shows what is not UTF-8", () => {
  expect(utf8Text(utf8Bytes("\uFEFFä🚂"))).toBe("\uFEFFä🚂");
  expect(utf8Text(Uint8Array.of(0x61, 0xff))).toBe("a\uFFFD");
});
