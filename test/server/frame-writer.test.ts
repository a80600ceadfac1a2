import { once } from "node:events";
import { Duplex } from "node:stream";
import { setImmediate as turn } from "node:timers/promises";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FlushTurn, FrameWriter } from "../../server/channel/frame-writer.ts";
import { Connection } from "./ws-connection.ts";

/** A message that cannot be taken for another. */
function message(size: number, seed: number): Buffer {
  const bytes = Buffer.alloc(size);
  for (let i = 0; i < size; i++) bytes[i] = (seed * 31 + i * 7) & 0xff;
  return bytes;
}

function expectSame(got: readonly Buffer[], expected: readonly Buffer[]): void {
  expect(got.length).toBe(expected.length);
  const wrong = got.findIndex((each, i) => !each.equals(expected[i] as Buffer));
  expect(wrong).toBe(-1);
}

describe("ws reads what was written", () => {
  test("of any sizes, in any grouping by turns of the event loop", async () => {
    const size = fc.oneof(
      fc.integer({ min: 0, max: 300 }),
      fc.integer({ min: 65_500, max: 65_535 }),
      fc.integer({ min: 0, max: 65_535 }),
    );
    const turns = fc.array(fc.array(size, { maxLength: 8 }), { maxLength: 6 });
    const property = fc.asyncProperty(turns, async (groups) => {
      const reader = await Connection.open();
      const writer = new FrameWriter(reader.near, new FlushTurn());
      const expected: Buffer[] = [];
      for (const sizes of groups) {
        for (const each of sizes) {
          const bytes = message(each, expected.length);
          expected.push(bytes);
          // From the middle of something larger that changes at once, as guest memory does.
          const memory = Buffer.concat([Buffer.alloc(3, 0xee), bytes, Buffer.alloc(3, 0xee)]);
          writer.binary(memory, 3, each);
          memory.fill(0xdd);
        }
        await turn();
      }
      await reader.until(expected.length);
      expectSame(reader.messages, expected);
      reader.near.destroy();
    });
    await fc.assert(property, { numRuns: 40 });
  });

  test.each([0, 1, 64, 65, 125, 126, 127, 255, 256, 496, 65_531, 65_532, 65_533, 65_534, 65_535])(
    "of %i bytes, alone and after another",
    async (size) => {
      const reader = await Connection.open();
      const writer = new FrameWriter(reader.near, new FlushTurn());
      const expected = [message(size, 1), message(3, 2), message(size, 3), message(size, 4)];
      for (const each of expected) writer.binary(each, 0, each.length);
      await reader.until(expected.length);
      expectSame(reader.messages, expected);
    },
  );

  // The size of a slab is its own business: whichever of these it is, its end is met.
  test.each([4096, 8192, 16_384, 32_768, 65_536])("around the end of a slab of %i bytes", async (slab) => {
    const reader = await Connection.open();
    const turns = new FlushTurn();
    const expected: Buffer[] = [];
    for (let gap = -6; gap <= 6; gap++) {
      const writer = new FrameWriter(reader.near, turns);
      // 3,004 bytes with the head, then a message that ends at the slab's end, give or take.
      const group = [message(3000, gap), message(slab - 3004 - 4 + gap, 2), message(10, gap)];
      expected.push(...group);
      for (const each of group) writer.binary(each, 0, each.length);
      writer.flush();
    }
    await reader.until(expected.length);
    expectSame(reader.messages, expected);
  });

  test("of several writers that share a turn", async () => {
    const shared = new FlushTurn();
    const readers = await Promise.all(Array.from({ length: 5 }, () => Connection.open()));
    const writers = readers.map(({ near }) => new FrameWriter(near, shared));
    const expected = readers.map(() => [] as Buffer[]);
    for (let round = 0; round < 300; round++) {
      for (const [i, writer] of writers.entries()) {
        if ((round + i) % 3 === 0) continue;
        const bytes = message((round * 37 + i * 501) % 5000, round * 5 + i);
        expected[i]?.push(bytes);
        writer.binary(bytes, 0, bytes.length);
      }
      if (round % 4 === 0) await turn();
    }
    for (const [i, reader] of readers.entries()) {
      const own = expected[i] ?? [];
      await reader.until(own.length);
      expectSame(reader.messages, own);
    }
  });
});

describe("a client that does not read", () => {
  test("nothing is overwritten while it waits, and all of it counts", async () => {
    const reader = await Connection.open();
    const { near, client } = reader;
    client.pause();
    const writer = new FrameWriter(near, new FlushTurn());
    const expected: Buffer[] = [];
    while (near.writableLength < 300_000) {
      for (let i = 0; i < 50; i++) {
        const bytes = message(1 + ((expected.length * 97) % 900), expected.length);
        expected.push(bytes);
        writer.binary(bytes, 0, bytes.length);
      }
      await turn();
    }
    expect(writer.pendingBytes).toBe(near.writableLength);
    writer.binary(message(100, 0), 0, 100);
    expected.push(message(100, 0));
    expect(writer.pendingBytes).toBe(near.writableLength + 102);
    client.resume();
    await reader.until(expected.length);
    expectSame(reader.messages, expected);
    expect(writer.pendingBytes).toBe(0);
  });

  test("a writer that goes on after a backlog starts with a clean slab", async () => {
    const chunks: Buffer[] = [];
    const waiting: (() => void)[] = [];
    const sink = new Duplex({
      write(chunk: Buffer, _encoding, done) {
        // Looked at when it is taken, not when it is given.
        waiting.push(() => {
          chunks.push(Buffer.from(chunk));
          done();
        });
      },
    });
    const shared = new FlushTurn();
    const [slow, other] = [
      new FrameWriter(sink, shared),
      new FrameWriter(new Duplex({ write: (_c, _e, done) => done() }), shared),
    ];
    const expected: Buffer[] = [];
    for (let round = 0; round < 40; round++) {
      const bytes = message(9000, round);
      expected.push(Buffer.concat([Buffer.from([0x82, 126, 9000 >> 8, 9000 & 0xff]), bytes]));
      slow.binary(bytes, 0, 9000);
      // Would show if a slab were given away too early.
      other.binary(Buffer.alloc(9000, 0xaa), 0, 9000);
      await turn();
      if (round % 3 === 0) waiting.shift()?.();
    }
    while (waiting.length > 0) {
      waiting.shift()?.();
      await turn();
    }
    expect(Buffer.concat(chunks).equals(Buffer.concat(expected))).toBe(true);
    expect(slow.pendingBytes).toBe(0);
  });
});

describe("frames of ws come in between whole frames only", () => {
  test("pings while data streams, and a close at its end", async () => {
    const reader = await Connection.open();
    const { server } = reader;
    const writer = new FrameWriter(reader.near, new FlushTurn());
    const expected: Buffer[] = [];
    for (let round = 0; round < 100; round++) {
      for (let i = 0; i < 5; i++) {
        const bytes = message((round * 131 + i) % 3000, expected.length);
        expected.push(bytes);
        writer.binary(bytes, 0, bytes.length);
        if (i === 2) server.ping(`${round}`);
      }
      if (round % 2 === 0) await turn();
    }
    const closed = once(reader.client, "close");
    writer.flush();
    server.close(1013, "enough");
    const [code, reason] = (await closed) as [number, Buffer];
    expectSame(reader.messages, expected);
    expect(reader.pings).toEqual(Array.from({ length: 100 }, (_, i) => `${i}`));
    expect([code, reason.toString()]).toEqual([1013, "enough"]);
  });

  test("after the end nothing is written, and nothing is thrown", async () => {
    const { near } = await Connection.open();
    const writer = new FrameWriter(near, new FlushTurn());
    near.end();
    writer.binary(message(10, 1), 0, 10);
    await turn();
    near.destroy();
    for (let i = 0; i < 200; i++) writer.binary(message(1000, i), 0, 1000);
    await turn();
    expect(near.errored).toBeNull();
  });
});

test("what a turn of the event loop brings is one write", async () => {
  let writes = 0;
  const sink = new Duplex({
    write(_chunk, _encoding, done) {
      writes++;
      done();
    },
  });
  const writer = new FrameWriter(sink, new FlushTurn());
  for (let i = 0; i < 50; i++) writer.binary(message(100, i), 0, 100);
  expect(writes).toBe(0);
  expect(writer.pendingBytes).toBe(50 * 102);
  await turn();
  expect(writes).toBe(1);
});
