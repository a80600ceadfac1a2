import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { JsonClient } from "./json-client.ts";
import { testBridge } from "./support.ts";

const ALL_BYTES = Buffer.from(Array.from({ length: 256 }, (_, i) => i));

async function echo(query = ""): Promise<JsonClient> {
  const running = await testBridge();
  await running.endpoint("echo");
  return JsonClient.open(running, `/ws/v1/demo/echo${query}`);
}

describe("the guest's messages", () => {
  test.each<[string, string, "utf8" | "base64", string]>([
    ["text", "68656c6c6f", "utf8", "hello"],
    ["nothing", "", "utf8", ""],
    ["a zero byte", "00", "utf8", "\u0000"],
    ["quotes and controls", "225c080a1f7f", "utf8", '"\\\b\n\u001f\u007f'],
    ["line separators", "e280a8e280a9", "utf8", "\u2028\u2029"],
    ["characters beyond 16 bits", "f09f92a1f48fbfbf", "utf8", "\u{1f4a1}\u{10ffff}"],
    ["a byte order mark", "efbbbf78", "utf8", "\ufeffx"],
    ["the replacement character itself", "efbfbd", "utf8", "\ufffd"],
    ["a byte that is no UTF-8", "ff", "base64", "/w=="],
    ["a character that is cut off", "78f09f92", "base64", "ePCfkg=="],
    ["an overlong form", "c080", "base64", "wIA="],
    ["half of a surrogate pair", "eda080", "base64", "7aCA"],
    ["beyond the last character", "f4908080", "base64", "9JCAgA=="],
    ["all bytes", ALL_BYTES.toString("hex"), "base64", ALL_BYTES.toString("base64")],
  ])("are utf8 where they are valid UTF-8, else base64: %s", async (_what, hex, encoding, data) => {
    const client = await echo();
    client.send(hex, { encoding: "hex" });
    expect(await client.next("message")).toMatchObject({ seq: 1, encoding, data });
  });

  test.each<["utf8" | "base64" | "hex", string[]]>([
    ["hex", ["", "68c3a9", "ff00"]],
    ["base64", ["", "aMOp", "/wA="]],
    // Bytes that are no UTF-8 are lost where it is forced.
    ["utf8", ["", "hé", "\ufffd\u0000"]],
  ])("are %s where the query says so", async (encoding, expected) => {
    const client = await echo(`?encoding=${encoding}`);
    for (const hex of ["", "68c3a9", "ff00"]) client.send(hex, { encoding: "hex" });
    expect(await client.take(3)).toEqual(
      expected.map((data, i) => expect.objectContaining({ seq: i + 1, encoding, data }) as unknown),
    );
  });

  test("come back as they were, whatever their bytes, in every encoding of either way", async () => {
    const client = await echo();
    const forced = await Promise.all(["hex", "base64"].map((each) => echo(`?encoding=${each}`)));
    const payload = fc.oneof(
      fc.uint8Array({ maxLength: 496 }),
      fc.string({ unit: "binary", maxLength: 120 }).map((text) => Buffer.from(text)),
    );
    await fc.assert(
      fc.asyncProperty(payload, fc.constantFrom("hex", "base64"), async (raw, encoding) => {
        const bytes = Buffer.from(raw);
        for (const each of [client, ...forced]) {
          each.send(bytes.toString(encoding), { encoding });
          const message = await each.next("message");
          expect(Buffer.from(message.data, message.encoding)).toEqual(bytes);
          if (each !== client) continue;
          const isText = Buffer.from(bytes.toString()).equals(bytes);
          expect(message.encoding).toBe(isText ? "utf8" : "base64");
        }
      }),
      { numRuns: 200 },
    );
  });

  test("each single byte, and the longest message", async () => {
    const client = await echo("?encoding=hex");
    for (let byte = 0; byte < 256; byte++)
      client.send(Buffer.of(byte).toString("base64"), { encoding: "base64" });
    expect(await client.texts(256)).toEqual(Array.from(ALL_BYTES, (byte) => Buffer.of(byte).toString("hex")));
    client.send("00".repeat(496), { encoding: "hex" });
    expect(await client.texts(1)).toEqual(["00".repeat(496)]);
  });
});

describe("a client's data", () => {
  test.each<[string, "utf8" | "base64" | "hex" | undefined, string]>([
    ["", undefined, ""],
    ["", "base64", ""],
    ["", "hex", ""],
    ["hello", undefined, "68656c6c6f"],
    ["hello", "utf8", "68656c6c6f"],
    ["\u{1f4a1}", "utf8", "f09f92a1"],
    ["\u0000", "utf8", "00"],
    ["aGk=", "base64", "6869"],
    ["aGk=", "utf8", "61476b3d"],
    ["+/+/", "base64", "fbffbf"],
    ["00fF", "hex", "00ff"],
  ])("%j in %s is taken", async (data, encoding, bytes) => {
    const client = await echo("?encoding=hex");
    client.send(data, encoding === undefined ? {} : { encoding });
    expect((await client.next("message")).data).toBe(bytes);
  });

  test.each<[string, "utf8" | "base64" | "hex"]>([
    ["aGk", "base64"],
    ["a", "base64"],
    ["a===", "base64"],
    ["aGk=aGk=", "base64"],
    ["aGk=\n", "base64"],
    [" aGk=", "base64"],
    ["-_-_", "base64"],
    ["aG\u00e9=", "base64"],
    ["=", "base64"],
    ["0", "hex"],
    ["0g", "hex"],
    ["0x00", "hex"],
    ["00 01", "hex"],
    ["00\n", "hex"],
    // Half a character has no UTF-8.
    ["\ud83d", "utf8"],
    ["x\udca1\ud83d", "utf8"],
  ])("%j in %s is none: bad-frame, and nothing is sent", async (data, encoding) => {
    const client = await echo();
    client.send(data, { encoding, id: 1 });
    const error = await client.next("error");
    expect(error).toMatchObject({ id: 1, code: "bad-frame" });
    expect(error.message).toContain(encoding);
    client.send("next");
    expect(await client.next("message")).toMatchObject({ seq: 1, data: "next" });
  });
});
