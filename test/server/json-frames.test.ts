import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { ServerFrame } from "../../schemas/index.ts";
import { ClientFrame } from "../../schemas/index.ts";
import { JsonClient } from "./json-client.ts";
import { testBridge } from "./support.ts";

const int = (min: number, max: number) => fc.integer({ min, max });
const id = fc.oneof(
  fc.string({ maxLength: 64 }),
  int(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
  fc.constantFrom(0, "", "0", "\u0000", "__proto__", "\u{1f4a1}"),
);
const bytes = fc.uint8Array({ maxLength: 520 }).map((each) => Buffer.from(each));
const payload = fc.oneof(
  fc.record({ data: fc.string({ unit: "binary", maxLength: 200 }) }),
  fc.record({ data: fc.string({ unit: "grapheme", maxLength: 80 }), encoding: fc.constant("utf8") }),
  bytes.map((each) => ({ data: each.toString("base64"), encoding: "base64" })),
  bytes.map((each) => ({ data: each.toString("hex"), encoding: "hex" })),
);

/** A message for this address. */
function sendFrame(peer: number): fc.Arbitrary<Record<string, unknown>> {
  const fields = fc.record(
    { id, dst: fc.constant(peer), timeout: fc.oneof(int(1, 86_400_000), fc.constantFrom(1, 86_400_000)) },
    { requiredKeys: [] },
  );
  return fc.tuple(fields, payload).map(([some, data]) => ({ type: "send", ...some, ...data }));
}

/** What breaks a field, or almost. */
const odd = fc.oneof(
  fc.constantFrom(null, true, 0, -0, -1, 0.5, 1e300, 2 ** 53, 0xffff_ffff, 86_400_001, "", [], {}, "53"),
  fc.constantFrom("send", "ping", "pong", "hello", "toString", "constructor", "UTF8", "utf-8", "base64url"),
  fc.string({ minLength: 60, maxLength: 70 }),
  fc.jsonValue(),
);

const mutations = fc.array(fc.tuple(fc.nat(), fc.option(odd, { nil: undefined })), {
  minLength: 1,
  maxLength: 3,
});

/** An object with some fields gone, some odd, and perhaps one too many. */
function mutate(frame: Record<string, unknown>, changes: [number, unknown][]): Record<string, unknown> {
  const broken = { ...frame };
  const keys = [...Object.keys(frame), "extra"];
  for (const [at, value] of changes) broken[keys[at % keys.length] as string] = value;
  return broken;
}

/** The id that an error carries, where there is one that the schema allows. */
function idOf(value: unknown): unknown {
  const given: unknown = typeof value === "object" && value !== null && "id" in value ? value.id : undefined;
  return (typeof given === "string" && given.length <= 64) || Number.isSafeInteger(given) ? given : undefined;
}

async function echoClient(): Promise<{ client: JsonClient; peer: number }> {
  const running = await testBridge();
  const { address } = await running.endpoint("echo");
  return { client: await JsonClient.open(running, "/ws/v1/demo/echo"), peer: address as number };
}

/** A message is answered, whatever came before it. */
async function expectEcho(client: JsonClient): Promise<void> {
  client.send("still here", { id: "last" });
  const [sent, message] = await client.take(2);
  expect(sent).toEqual({ type: "sent", id: "last" });
  expect(message).toMatchObject({ type: "message", data: "still here" });
}

describe("client frames", () => {
  test("every valid one is taken", async () => {
    const { client, peer } = await echoClient();
    let seq = 0;
    await fc.assert(
      fc.asyncProperty(sendFrame(peer), async (frame) => {
        const read = ClientFrame.parse(frame);
        if (read.type !== "send") throw new Error("no message");
        client.write(frame);
        const sent = Buffer.from(read.data, read.encoding);
        const named = read.id === undefined ? {} : { id: read.id };
        if (sent.length > 496) {
          expect(await client.next("error")).toMatchObject({ ...named, code: "too-large" });
          return;
        }
        if (read.id !== undefined) expect(await client.next("sent")).toEqual({ type: "sent", ...named });
        const { data, encoding, ...rest } = await client.next("message");
        expect(rest).toEqual({ type: "message", seq: ++seq, src: peer });
        expect(Buffer.from(data, encoding)).toEqual(sent);
      }),
      { numRuns: 500 },
    );
    expect(seq).toBeGreaterThan(100);
    expect(await client.all()).toEqual([]);
  });

  test("every other one is answered by bad-frame with its id, and the socket stays open", async () => {
    const { client, peer } = await echoClient();
    const bad = fc
      .tuple(sendFrame(peer), mutations)
      .map(([frame, changes]) => mutate(frame, changes))
      .filter((frame) => !ClientFrame.safeParse(JSON.parse(JSON.stringify(frame))).success);
    await fc.assert(
      fc.asyncProperty(fc.oneof({ weight: 5, arbitrary: bad }, fc.jsonValue()), async (value) => {
        client.write(value);
        const given = idOf(JSON.parse(JSON.stringify(value)));
        const error = await client.next("error");
        expect(error).toMatchObject({ type: "error", code: "bad-frame" });
        expect(error.id).toBe(given);
        expect(error.message).not.toBe("");
      }),
      { numRuns: 500 },
    );
    await expectEcho(client);
  });

  test.each([
    ["", undefined],
    ["{", undefined],
    ['{"type":"send","id":"a","data":"x"', undefined],
    ['{"type":"ping"}x', undefined],
    ["null", undefined],
    ['"send"', undefined],
    ["[]", undefined],
    ['[{"type":"ping"}]', undefined],
    ["{}", undefined],
    ['{"type":"ping","id":1}', 1],
    ['{"type":"Send","data":"x","id":"a"}', "a"],
    ['{"data":"x","id":"a"}', "a"],
    ['{"type":"send","id":7}', 7],
    ['{"type":"send","id":7,"data":null}', 7],
    ['{"type":"send","id":1.5,"data":"x"}', undefined],
    ['{"type":"send","id":1e300,"data":"x"}', undefined],
    ['{"type":"send","id":9007199254740992,"data":"x"}', undefined],
    [`{"type":"send","id":"${"x".repeat(65)}","data":"x"}`, undefined],
    ['{"type":"send","id":null,"data":"x"}', undefined],
    ['{"type":"send","id":"a","data":"x","to":5}', "a"],
    ['{"type":"send","id":"a","data":"x","__proto__":{}}', "a"],
    ['{"type":"send","id":"a","data":"x","encoding":"ascii"}', "a"],
    ['{"type":"send","id":"a","data":"x","dst":-1}', "a"],
    ['{"type":"send","id":"a","data":"x","dst":4294967295}', "a"],
    ['{"type":"send","id":"a","data":"x","dst":"1024"}', "a"],
    ['{"type":"send","id":"a","data":"x","timeout":0}', "a"],
    ['{"type":"send","id":"a","data":"x","timeout":86400001}', "a"],
    ['{"type":"send","id":"a","data":"x","timeout":1.5}', "a"],
    ['{"type":"sent","id":"a"}', "a"],
    ['{"type":"message","seq":1,"src":1,"data":"x","encoding":"utf8"}', undefined],
  ])("%s is answered by bad-frame", async (text, given) => {
    const { client } = await echoClient();
    client.socket.send(text);
    const error = await client.next("error");
    expect(error).toMatchObject({ code: "bad-frame" });
    expect(error.id).toBe(given);
    await expectEcho(client);
  });

  test("the error names the field", async () => {
    const { client } = await echoClient();
    const wrong: [Record<string, unknown>, string][] = [
      [{ type: "send" }, "data"],
      [{ type: "send", data: "x", timeout: -1 }, "timeout"],
      [{ type: "send", data: "x", more: 1 }, "more"],
      [{ type: "send", data: "!", encoding: "hex" }, "data"],
      [{ type: "shout" }, "type"],
    ];
    for (const [frame, name] of wrong) {
      client.write(frame);
      expect((await client.next("error")).message).toContain(name);
    }
  });
});

describe("ping", () => {
  test("is answered by pong, each in its place", async () => {
    const { client } = await echoClient();
    const expected: Partial<ServerFrame>[] = [];
    for (let i = 0; i < 3; i++) {
      client.write({ type: "ping" });
      client.write({ type: "send", id: i, data: "x", encoding: "hex" });
      expected.push({ type: "pong" }, { type: "error", id: i });
    }
    const frames = await client.take(6);
    expect(frames).toEqual(expected.map((each) => expect.objectContaining(each) as unknown));
  });
});

describe("what is no text frame", () => {
  test("a binary message is answered by an error and closes with 1003", async () => {
    const { client } = await echoClient();
    client.socket.send(Buffer.from('{"type":"ping"}'));
    expect(await client.next("error")).toMatchObject({ code: "bad-frame" });
    expect(await client.closed).toEqual({ code: 1003, reason: "rpmsg.v1.json has text frames only" });
  });

  test("text that is not UTF-8 closes with 1007", async () => {
    const { client } = await echoClient();
    client.socket.send(Buffer.from([0x22, 0xff, 0x22]), { binary: false });
    expect((await client.closed).code).toBe(1007);
  });

  test("a frame beyond any message closes with 1009", async () => {
    const { client } = await echoClient();
    client.send("x".repeat(1_000_000));
    expect((await client.closed).code).toBe(1009);
  });
});
