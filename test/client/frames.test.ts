import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { parseFrame } from "../../client/frames.ts";
import { errorCodes, ServerFrame } from "../../schemas/index.ts";

/** The schema, as far as the client relies on it: any guest name and any error code will do. */
const Relied = z.union(
  ServerFrame.options.map((option) => {
    const shape: Record<string, z.ZodType> = { ...option.shape };
    if (shape["guest"] !== undefined) shape["guest"] = z.string();
    if (shape["code"] !== undefined) shape["code"] = z.string();
    return z.object(shape);
  }),
);

const int = (min: number, max = Number.MAX_SAFE_INTEGER) => fc.integer({ min, max });
const address = fc.oneof(int(0, 2000), int(0, 0xffff_fffe));
const id = fc.oneof(fc.string({ maxLength: 64 }), int(Number.MIN_SAFE_INTEGER));
const endpointState = fc.constantFrom("declared", "announced", "connected");
const guestState = fc.constantFrom("waiting", "detached", "suspended", "attached");

const valid = fc.oneof(
  fc.record({
    type: fc.constant("hello"),
    protocol: fc.constant("rpmsg.v1.json"),
    guest: fc.constantFrom("demo", "vm-0"),
    endpoint: fc.string(),
    id: fc.string(),
    local: address,
    endpointState,
    guestState,
    generation: int(1),
    mtu: int(0),
    instance: fc.string(),
    session: fc.string(),
    resumed: fc.boolean(),
  }),
  fc.record({
    type: fc.constant("message"),
    seq: int(1),
    src: address,
    data: fc.string(),
    encoding: fc.constantFrom("utf8", "base64", "hex"),
  }),
  fc.record({ type: fc.constant("sent"), id }),
  fc.record(
    { type: fc.constant("error"), id, code: fc.constantFrom(...errorCodes), message: fc.string() },
    { requiredKeys: ["type", "code", "message"] },
  ),
  fc.record({ type: fc.constant("dropped"), count: int(1) }),
  fc.record(
    {
      type: fc.constant("state"),
      state: fc.constantFrom("up", "down"),
      reason: fc.constantFrom("reset", "withdrawn"),
      endpointState,
      guestState,
      generation: int(1),
    },
    { requiredKeys: ["type", "state", "endpointState", "guestState", "generation"] },
  ),
  fc.record({ type: fc.constant("pong") }),
) as fc.Arbitrary<Record<string, unknown>>;

/** What breaks a field, or almost. */
const odd = fc.oneof(
  fc.constantFrom(null, true, false, 0, -0, -1, 0.5, 1e300, 2 ** 53, 0xffff_ffff, 0xffff_fffe, "", [], {}),
  fc.constantFrom("hello", "message", "toString", "__proto__", "constructor", "up", "UP", "waiting", "53"),
  fc.string({ minLength: 60, maxLength: 70 }),
  fc.jsonValue(),
);

const mutated = fc
  .tuple(
    valid,
    fc.array(fc.tuple(fc.nat(), fc.option(odd, { nil: undefined })), { minLength: 1, maxLength: 3 }),
  )
  .map(([frame, changes]) => {
    const broken = { ...frame };
    const keys = [...Object.keys(frame), "extra"];
    for (const [at, value] of changes) broken[keys[at % keys.length] as string] = value;
    return broken;
  });

function expectAgreement(value: unknown): void {
  const text = JSON.stringify(value);
  const accepted = parseFrame(text) !== undefined;
  // As it is after JSON: undefined fields are gone.
  if (Relied.safeParse(JSON.parse(text)).success !== accepted) expect.unreachable(`accepted: ${accepted}`);
}

describe("the client's checks of frames are those of the schemas", () => {
  test("valid frames", () => {
    fc.assert(
      fc.property(valid, (frame) => {
        expect(ServerFrame.parse(frame)).toEqual(frame);
        expect(parseFrame(JSON.stringify(frame))).toEqual(frame);
      }),
      { numRuns: 500 },
    );
  });

  test("frames with fields that are missing, odd or too many", () => {
    fc.assert(fc.property(mutated, expectAgreement), { numRuns: 10_000 });
  });

  test("every field of every frame, without it and with each odd value", () => {
    for (const option of ServerFrame.options) {
      const [frame] = fc.sample(
        valid.filter(
          (each) => option.safeParse(each).success && Object.keys(option.shape).every((key) => key in each),
        ),
        1,
      ) as [Record<string, unknown>];
      for (const key of Object.keys(option.shape)) {
        expectAgreement({ ...frame, [key]: undefined });
        for (const value of fc.sample(odd, 200)) expectAgreement({ ...frame, [key]: value });
      }
    }
  });

  test("any JSON", () => {
    fc.assert(fc.property(fc.jsonValue(), expectAgreement));
  });
});

test("what is not JSON, or not text, is no frame", () => {
  for (const data of [
    "",
    "{",
    '{"type":"pong"',
    undefined,
    new ArrayBuffer(4),
    Buffer.from('{"type":"pong"}'),
  ]) {
    expect(parseFrame(data)).toBeUndefined();
  }
  expect(parseFrame('{"type":"pong"}')).toEqual({ type: "pong" });
});
