import type { IncomingMessage } from "node:http";
import { Duplex } from "node:stream";
import { setImmediate as turn } from "node:timers/promises";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { WebSocket } from "ws";
import { WebSocketServer } from "ws";
import { FrameReader } from "../../server/channel/frame-reader.ts";

const BOUNDS = { maxPayload: 1000, maxFragments: 4 };

/** The bridge's end of a connection on which the handshake is done; what comes from the client is pushed by the test. */
class Near extends Duplex {
  override _read(): void {}
  override _write(_chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    done();
  }
}

function open(): { stream: Near; socket: WebSocket } {
  const server = new WebSocketServer({ noServer: true, perMessageDeflate: false, ...BOUNDS });
  const headers = {
    upgrade: "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "A".repeat(22).concat("=="),
  };
  const stream = new Near();
  let socket: WebSocket | undefined;
  server.handleUpgrade(
    { method: "GET", headers } as unknown as IncomingMessage,
    stream,
    Buffer.alloc(0),
    (each) => {
      socket = each;
    },
  );
  if (socket === undefined) throw new Error("no handshake");
  return { stream, socket };
}

/**
 * All that comes of these chunks, one line each, without a reader or with one.
 * @param rushed so many chunks come in one tick, the others each in a turn of its own
 */
async function outcome(chunks: readonly Buffer[], most?: number, rushed = 1): Promise<string[]> {
  const { stream, socket } = open();
  const lines: string[] = [];
  const binary = (bytes: Buffer) => lines.push(`binary ${bytes.toString("hex")}`);
  let reader: FrameReader | undefined;
  if (most !== undefined) {
    reader = new FrameReader(stream, most, (bytes, offset, length) => {
      taken++;
      binary(bytes.subarray(offset, offset + length));
    });
  }
  socket.on("message", (data: Buffer, isBinary) => {
    reader?.handedOut();
    if (isBinary) binary(data);
    else lines.push(`text ${data.toString("hex")}`);
  });
  socket.on("ping", (data) => lines.push(`ping ${data.toString("hex")}`));
  socket.on("pong", (data) => lines.push(`pong ${data.toString("hex")}`));
  socket.on("error", (error) => {
    reader?.end();
    lines.push(`error ${error.message}`);
  });
  socket.on("close", (code, reason) => lines.push(`close ${code} ${reason.toString("hex")}`));
  for (const [index, chunk] of chunks.entries()) {
    // Both unmask in place.
    stream.push(Buffer.from(chunk));
    if (index + 1 >= rushed) await turn();
  }
  stream.destroy();
  await turn();
  await turn();
  return lines;
}

/** Messages that a reader took past ws, of all tests. */
let taken = 0;

interface Frame {
  first: number;
  payload: Buffer;
  mask: Buffer | undefined;
  /** Bits of the length: 7, 16 or 64, at least as many as are needed. */
  bits: 7 | 16 | 64;
  /** More than there are bytes, which the next frame then is a part of. */
  more: number;
}

function encode({ first, payload, mask, bits, more }: Frame): Buffer {
  const length = payload.length + more;
  const masked = mask === undefined ? 0 : 0x80;
  const head = [Buffer.from([first])];
  if (bits === 7 && length < 126) head.push(Buffer.from([masked | length]));
  else if (bits !== 64 && length < 65_536) head.push(Buffer.from([masked | 126, length >> 8, length & 0xff]));
  else
    head.push(Buffer.from([masked | 127, 0, 0, 0, 0, 0, length >> 16, (length >> 8) & 0xff, length & 0xff]));
  if (mask === undefined) return Buffer.concat([...head, payload]);
  return Buffer.concat([...head, mask, payload.map((byte, i) => byte ^ (mask[i % 4] as number))]);
}

/** A frame as clients send it, masked with 1 2 3 4. */
const frame = (first: number, payload: Buffer | string = ""): Buffer =>
  encode({ first, payload: Buffer.from(payload), mask: Buffer.from([1, 2, 3, 4]), bits: 7, more: 0 });

const bytes = (maxLength: number) =>
  fc.uint8Array({ maxLength, size: "max" }).map((array) => Buffer.from(array));
const ordinary = fc.record({
  first: fc.constant(0x82),
  payload: fc.oneof(bytes(20), bytes(300)),
  mask: bytes(4).filter(({ length }) => length === 4),
  bits: fc.constantFrom(7 as const, 7 as const, 16 as const, 64 as const),
  more: fc.constant(0),
});
/** FIN or not, all opcodes, mostly those that exist. */
const first = fc.oneof(
  { weight: 8, arbitrary: fc.constantFrom(0x82, 0x81, 0x89, 0x8a, 0x02, 0x01, 0x00, 0x80) },
  { weight: 2, arbitrary: fc.constantFrom(0x88, 0x09, 0xc2, 0x92, 0x83, 0x8b) },
);
const payload = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.oneof(
      bytes(5),
      bytes(200),
      fc.string({ maxLength: 20 }).map((text) => Buffer.from(text)),
    ),
  },
  { weight: 1, arbitrary: fc.constantFrom(998, 1000, 1001, 1200).map((length) => Buffer.alloc(length, 7)) },
  {
    weight: 1,
    arbitrary: fc.constantFrom("03e8", "03e86f6b", "0000", "0bb8").map((hex) => Buffer.from(hex, "hex")),
  },
);
const strange = fc.record({
  first,
  payload,
  mask: fc.option(fc.constant(Buffer.from([0x10, 0, 0xff, 0x61])), { nil: undefined, freq: 12 }),
  bits: fc.constantFrom(7 as const, 16 as const, 64 as const),
  more: fc.oneof(
    { weight: 12, arbitrary: fc.constant(0) },
    { weight: 1, arbitrary: fc.constantFrom(1, 700) },
  ),
});
const frames = fc.array(fc.oneof({ weight: 3, arbitrary: ordinary }, { weight: 1, arbitrary: strange }), {
  maxLength: 14,
  size: "max",
});
const cuts = fc.oneof(fc.constant([]), fc.array(fc.nat(600), { maxLength: 12 }));

/** The bytes in pieces of these sizes, the rest in one. */
function cut(whole: Buffer, sizes: readonly number[]): Buffer[] {
  const pieces: Buffer[] = [];
  let at = 0;
  for (const size of sizes) {
    if (size > 0 && at < whole.length) pieces.push(whole.subarray(at, at + size));
    at += size;
  }
  if (at < whole.length) pieces.push(whole.subarray(at));
  return pieces;
}

test("whatever comes, in whatever pieces, comes to the same as with ws alone", async () => {
  let alone = 0;
  const most = fc.constantFrom(0, 50, 1000);
  const property = fc.asyncProperty(frames, cuts, most, fc.nat(4), async (list, sizes, taken, rushed) => {
    const chunks = cut(Buffer.concat(list.map(encode)), sizes);
    const expected = await outcome(chunks, undefined, rushed);
    alone += expected.length;
    expect(await outcome(chunks, taken, rushed)).toEqual(expected);
  });
  taken = 0;
  await fc.assert(property, { numRuns: 1500 });
  // Of what was compared, a good part had gone past ws.
  expect(taken).toBeGreaterThan(alone / 10);
});

describe("cut after any byte", () => {
  // Messages among all other frames: a ping between fragments, text, one with a long header, the good-bye.
  const whole = Buffer.concat([
    frame(0x82, "one"),
    frame(0x02, "tw"),
    frame(0x89, "ping"),
    frame(0x80, "o"),
    frame(0x82, "three"),
    frame(0x81, "four"),
    encode({ first: 0x82, payload: Buffer.alloc(300, 5), mask: Buffer.from("mask"), bits: 64, more: 0 }),
    frame(0x82),
    frame(0x82, "six"),
    frame(0x88, Buffer.from("03e8", "hex")),
    frame(0x82, "behind the good-bye"),
  ]);
  const hex = (text: string) => Buffer.from(text).toString("hex");
  const expected = [
    `binary ${hex("one")}`,
    `ping ${hex("ping")}`,
    `binary ${hex("two")}`,
    `binary ${hex("three")}`,
    `text ${hex("four")}`,
    `binary ${"05".repeat(300)}`,
    "binary ",
    `binary ${hex("six")}`,
    "close 1000 ",
  ];

  test("into two", async () => {
    for (let at = 1; at < whole.length; at++) {
      expect(await outcome(cut(whole, [at]), 1000)).toEqual(expected);
    }
  });

  test("byte by byte", async () => {
    expect(
      await outcome(
        [...whole].map((byte) => Buffer.from([byte])),
        1000,
      ),
    ).toEqual(expected);
  });
});

test.each([
  // What comes after what is against the rules is not taken, though it is in order itself.
  ["a reserved bit", frame(0xc2, "no"), "error Invalid WebSocket frame: RSV1 must be clear"],
  ["no mask", Buffer.from("820178", "hex"), "error Invalid WebSocket frame: MASK must be set"],
  [
    "text that is not UTF-8",
    frame(0x81, Buffer.from([0xff])),
    "error Invalid WebSocket frame: invalid UTF-8 sequence",
  ],
  ["a fragment of nothing", frame(0x80, "no"), "error Invalid WebSocket frame: invalid opcode 0"],
  [
    "a fragment that goes on as another message",
    frame(0x02, "no"),
    "error Invalid WebSocket frame: invalid opcode 2",
  ],
  ["too much", frame(0x82, Buffer.alloc(1001)), "error Max payload size exceeded"],
])("nothing is taken behind %s", async (_what, bad, error) => {
  const good = frame(0x82, "good");
  const together = await outcome([Buffer.concat([good, bad, good])], 1000);
  expect(together.slice(0, 2)).toEqual([`binary ${Buffer.from("good").toString("hex")}`, error]);
  expect(together.filter((line) => line.startsWith("binary"))).toHaveLength(1);
  expect(await outcome([good, bad, good], 1000)).toEqual(together);
  expect(await outcome([good, bad, good, good], 1000, 4)).toEqual(together);
});

test("messages that ws alone reads, beside one that it would read too, are refused at the start", () => {
  const { stream } = open();
  stream.on("data", () => {});
  expect(() => new FrameReader(stream, 1000, () => {})).toThrow("ws reads the connection in another way");
});
