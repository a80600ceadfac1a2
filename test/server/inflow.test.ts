import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Duplex } from "node:stream";
import fc from "fast-check";
import { expect, onTestFinished, test } from "vitest";
import { WebSocketServer } from "ws";
import { Inflow, InflowLine, SLICE } from "../../server/channel/inflow.ts";
import { clientFrame, opcode, RawClient } from "./raw-client.ts";

interface Handled {
  readonly client: string;
  /** A message, or the code of the close. */
  readonly what: string;
}

/** A server of WebSockets, and what it handled in its order. The path of each is its name. */
async function inflowServer(onMessage: (inflow: Inflow, handled: number) => void = () => {}) {
  const handled: Handled[] = [];
  const ended = new Map<string, () => void>();
  const line = new InflowLine();
  const http = createServer().listen(0, "127.0.0.1");
  const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false });
  http.on("upgrade", (request, stream, head) => {
    const client = (request.url ?? "").slice(1);
    const inflow = new Inflow(stream, head, line);
    sockets.handleUpgrade(request, stream, Buffer.alloc(0), (socket) => {
      socket.on("message", (data: Buffer) => {
        inflow.handled++;
        handled.push({ client, what: data.toString("latin1") });
        onMessage(inflow, handled.length);
      });
      socket.on("close", (code) => {
        handled.push({ client, what: `${code}` });
        ended.get(client)?.();
      });
      inflow.start();
    });
  });
  await once(http, "listening");
  onTestFinished(() => {
    http.close();
  });
  const url = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
  return {
    handled,
    of: (client: string) => handled.filter((each) => each.client === client).map(({ what }) => what),
    open: (client: string) => RawClient.open(url, `/${client}`),
    /** The server has seen its end. */
    end: (client: string) => new Promise<void>((resolve) => ended.set(client, resolve)),
    url,
  };
}

const flood = fc.record({
  /** Lengths of its messages: many, some of them longer than a slice, some of them empty. */
  lengths: fc.array(
    fc.oneof(
      { weight: 8, arbitrary: fc.nat(40) },
      { weight: 1, arbitrary: fc.nat(3 * SLICE) },
      { weight: 1, arbitrary: fc.constantFrom(0, SLICE - 8, SLICE - 7, SLICE) },
    ),
    { minLength: 1, maxLength: 400 },
  ),
  /** How often they come. */
  times: fc.integer({ min: 1, max: 20 }),
  /** Bytes of each write; what is left is one. */
  writes: fc.array(fc.integer({ min: 1, max: 100_000 }), { maxLength: 8 }),
  end: fc.constantFrom("close", "end"),
});

test("what floods bring comes in its order and whole, and then their end, however it is cut and whenever they are paused", async () => {
  let every = 0;
  const server = await inflowServer((inflow, handled) => {
    if (every === 0 || handled % every !== 0) return;
    inflow.pause();
    setImmediate(() => inflow.resume());
  });
  let run = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(flood, { minLength: 1, maxLength: 5 }),
      fc.constantFrom(0, 1, 7, 500),
      async (floods, pauses) => {
        run++;
        every = pauses;
        await Promise.all(
          floods.map(async ({ lengths, times, writes, end }, index) => {
            const name = `${run}-${index}`;
            const messages = Array.from({ length: times }, (_, time) =>
              lengths.map((length, i) => `${time} ${i} `.padEnd(length, "x")),
            ).flat();
            const frames = messages.map((text) => clientFrame(opcode.binary, Buffer.from(text)));
            if (end === "close") frames.push(clientFrame(opcode.close, Buffer.of(0x03, 0xe8)));
            let bytes = Buffer.concat(frames);
            const over = server.end(name);
            const { socket } = await server.open(name);
            for (const length of writes) {
              socket.write(bytes.subarray(0, length));
              bytes = bytes.subarray(length);
              await new Promise(setImmediate);
            }
            if (end === "close") socket.write(bytes);
            else socket.end(bytes);
            await over;
            const code = end === "close" ? "1000" : "1006";
            // By hand: a difference of thousands of lines is of no use to anybody.
            const seen = server.of(name);
            const wrong = [...messages, code].findIndex((text, i) => seen[i] !== text);
            expect({ wrong, count: seen.length }).toEqual({ wrong: -1, count: messages.length + 1 });
          }),
        );
        server.handled.length = 0;
      },
    ),
    { numRuns: 30 },
  );
});

test("what comes in small pieces, as over TLS, is no more in a turn than what comes in one", async () => {
  const stream = new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() });
  const inflow = new Inflow(stream, Buffer.alloc(0), new InflowLine());
  const seen: Buffer[] = [];
  stream.on("data", (chunk: Buffer) => seen.push(chunk));
  inflow.start();
  // Until it flows.
  await new Promise(setImmediate);
  const bytes = Buffer.from(Uint32Array.from({ length: 16_384 }, (_, i) => i).buffer);
  for (let at = 0; at < bytes.length; at += 3000) stream.push(bytes.subarray(at, at + 3000));
  expect(Buffer.concat(seen).length).toBe(SLICE);
  while (Buffer.concat(seen).length < bytes.length) await new Promise(setImmediate);
  expect(Buffer.concat(seen).equals(bytes)).toBe(true);
});

const FLOODERS = 8;
const FRAME = 16;
/** Of each flooder, in one write: Node reads them at once, and reads again. */
const MESSAGES = 16_384;
const flooding = Buffer.concat(
  Array.from({ length: MESSAGES }, () => clientFrame(opcode.binary, Buffer.alloc(FRAME - 6, "f"))),
);

/** Most that a turn handles: a slice of each that has just been read, and what the line is given, before and after. */
const A_TURN = FLOODERS * (SLICE / FRAME) + 2 * (256 + SLICE / FRAME);

test("no turn handles more of floods than a slice of each and a part of the line, and others are heard meanwhile", async () => {
  const server = await inflowServer();
  const floods = await Promise.all(Array.from({ length: FLOODERS }, (_, i) => server.open(`flood${i}`)));
  const other = await server.open("other");
  for (const { socket } of floods) socket.write(flooding);
  let most = 0;
  let sent = 0;
  let heard = 0;
  for (let seen = 0; seen < FLOODERS * MESSAGES + sent; ) {
    // Whenever the one before was handled.
    if (heard === sent) other.send(opcode.binary, Buffer.from(`${sent++}`));
    await new Promise(setImmediate);
    const now = server.handled.length;
    most = Math.max(most, now - seen);
    for (; seen < now; seen++) if (server.handled[seen]?.client === "other") heard++;
  }
  expect(most).toBeLessThanOrEqual(A_TURN);
  // As often as there are turns, if the kernel is quick.
  expect(heard).toBeGreaterThan((FLOODERS * MESSAGES) / A_TURN / 10);
  for (let i = 0; i < FLOODERS; i++) expect(server.of(`flood${i}`)).toHaveLength(MESSAGES);
});
