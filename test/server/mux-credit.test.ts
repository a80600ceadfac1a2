import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { EmulatedGuest } from "../../guest/index.ts";
import type { Limits, MuxServerFrame } from "../../schemas/index.ts";
import { Config, MUX_MESSAGE_COST } from "../../schemas/index.ts";
import { Subscription } from "../../server/channel/subscription.ts";
import type { SendCode } from "../../server/endpoint-port.ts";
import type { MuxClient } from "./mux-client.ts";
import { costOf, emulatedBridge, PEER, Sluice } from "./mux-client.ts";
import { eventually } from "./support.ts";

const MTU = 496;

async function sluiceBridge(limits: Record<string, number> = {}) {
  const sluice = new Sluice();
  const running = await emulatedBridge({ demo: sluice.guest }, { limits });
  const client = await running.mux();
  return { ...running, sluice, client };
}

describe("credit to the guest", () => {
  test("is what the bridge keeps while the guest takes nothing; past it, a message is refused and told", async () => {
    const { client, sluice, endpoint } = await sluiceBridge();
    const { credit } = await client.subscribed(1, "/ws/v1/demo/sluice");
    expect(credit).toBe(65_536);
    const payload = Buffer.alloc(112, "x");
    // The 8 in the guest's buffers cost nothing any more.
    const fitting = 8 + credit / costOf(payload);
    for (let i = 1; i <= fitting; i++) client.send(1, payload, i);
    await client.settled();
    expect(client.frames.filter((each) => each.type === "sent")).toHaveLength(8);
    expect(client.frames.filter((each) => each.type === "error")).toEqual([]);
    client.send(1, "", 1000);
    client.send(1, payload);
    const [numbered, other] = await client.takeMany(2, "error", 1);
    expect(numbered).toMatchObject({ id: 1000, code: "queue-full" });
    expect(other).toMatchObject({ code: "queue-full" });
    sluice.let(10_000);
    await eventually("all of them", () => (sluice.taken.length === fitting ? true : undefined));
    await client.settled();
    const sent = client.frames.filter((each) => each.type === "sent").map(({ id }) => id);
    expect(sent).toEqual(Array.from({ length: fitting }, (_, i) => i + 1));
    expect((await endpoint("sluice")).counters).toMatchObject({
      accepted: fitting,
      messagesToGuest: fitting,
    });
  });

  test("ignored by a flood: every message arrives, or its error does", async () => {
    const { client, sluice } = await sluiceBridge();
    await client.subscribed(1, "/ws/v1/demo/sluice");
    const count = 3000;
    for (let i = 1; i <= count; i++) {
      client.send(1, `${i}`.padEnd(MTU), i);
      if (i % 500 === 0) sluice.let(20);
    }
    await client.settled();
    sluice.let(count);
    await client.settled();
    await eventually("an answer to each", () =>
      client.frames.filter((each) => each.type === "sent" || each.type === "error").length === count
        ? true
        : undefined,
    );
    const sent = client.frames.filter((each) => each.type === "sent").map(({ id }) => id);
    const refused = client.frames.filter((each) => each.type === "error");
    expect(refused.every(({ code }) => code === "queue-full")).toBe(true);
    expect(refused.length).toBeGreaterThan(1000);
    await eventually("those sent", () => (sluice.taken.length === sent.length ? true : undefined));
    expect(sluice.taken.map((each) => Number(each.toString()))).toEqual(sent);
    expect([...sent, ...refused.map(({ id }) => id)].toSorted((a, b) => Number(a) - Number(b))).toEqual(
      Array.from({ length: count }, (_, i) => i + 1),
    );
  });

  test("comes back when messages have gone on, together as much as they cost", async () => {
    const { client, sluice } = await sluiceBridge();
    const { credit } = await client.subscribed(1, "/ws/v1/demo/sluice");
    const payload = Buffer.alloc(112, "x");
    for (let i = 0; i < credit / 128; i++) client.send(1, payload);
    sluice.let(10_000);
    let back = 0;
    // All but what the bridge has yet to give: less than a quarter.
    while (back <= (credit * 3) / 4) back += (await client.take("credit", 1)).bytes;
    expect(back % 128).toBe(0);
    expect(back).toBeLessThanOrEqual(credit);
  });

  test("a subscription whose guest takes nothing does not hold up others of the socket", async () => {
    const stuck = new Sluice();
    const { mux } = await emulatedBridge({ stuck: stuck.guest, demo: new EmulatedGuest() });
    const client = await mux();
    const { credit } = await client.subscribed(1, "/ws/v1/stuck/sluice");
    await client.subscribed(2, "/ws/v1/demo/echo");
    for (let used = 0; used + costOf(Buffer.alloc(MTU)) <= credit; used += costOf(Buffer.alloc(MTU))) {
      client.send(1, Buffer.alloc(MTU));
    }
    for (let i = 0; i < 100; i++) {
      client.send(2, `${i}`);
      expect((await client.take("message", 2)).bytes.toString()).toBe(`${i}`);
    }
  });

  test("what is given up gives its credit back", async () => {
    const { client } = await sluiceBridge({ sendTimeout: 30 });
    const { credit } = await client.subscribed(1, "/ws/v1/demo/sluice");
    const payload = Buffer.alloc(MTU);
    const cost = costOf(payload);
    let left = credit;
    for (let i = 0; i < 200; i++) {
      while (left < cost) left += (await client.take("credit", 1)).bytes;
      left -= cost;
      client.send(1, payload);
    }
    expect((await client.takeMany(100, "error", 1)).every(({ code }) => code === "no-buffer")).toBe(true);
  });
});

/** A message of the property test, as the client means it. */
type Attempt = { kind: "good" | "too-large" | "forbidden"; length: number; numbered: boolean };

/** A client that keeps to its credit. */
class HonestSender {
  readonly #client: MuxClient;
  readonly #sluice: Sluice;
  #credit: number;
  readonly good: Buffer[] = [];
  readonly #errors: number[] = [];
  #number = 0;

  constructor(client: MuxClient, sluice: Sluice, credit: number) {
    this.#client = client;
    this.#sluice = sluice;
    this.#credit = credit;
  }

  async send({ kind, length, numbered }: Attempt, permits: number): Promise<void> {
    const number = ++this.#number;
    const payload = Buffer.alloc(kind === "too-large" ? MTU + 1 + length : length, number);
    const cost = costOf(payload);
    // Credit comes back in time for the longest message, not for what is longer.
    if (kind === "too-large" && cost > this.#credit) return;
    while (this.#credit < cost) await this.#more(cost, permits);
    this.#credit -= cost;
    this.#client.send(1, payload, numbered ? number : 0, kind === "forbidden" ? 53 : PEER);
    if (kind === "good") this.good.push(payload);
    else this.#errors.push(number);
  }

  async finish(): Promise<void> {
    this.#sluice.let(10_000);
    await eventually("all of them", () =>
      this.#sluice.taken.length === this.good.length ? true : undefined,
    );
    await this.#client.settled();
    expect(this.#sluice.taken.findIndex((each, i) => !this.good[i]?.equals(each))).toBe(-1);
    const errors = this.#client.of(1).filter((each) => each.type === "error");
    expect(
      errors.map(({ code }) => code).filter((code) => code !== "too-large" && code !== "forbidden"),
    ).toEqual([]);
    expect(errors).toHaveLength(this.#errors.length);
  }

  /** Lets the guest take something, until credit comes. */
  async #more(cost: number, permits: number): Promise<void> {
    for (;;) {
      const everything = this.#sluice.taken.length === this.good.length;
      await this.#client.settled();
      const credits = this.#client.of(1).filter((each) => each.type === "credit");
      for (const frame of credits) {
        this.#client.frames.splice(this.#client.frames.indexOf(frame), 1);
        this.#credit += frame.bytes;
      }
      if (credits.length > 0) return;
      if (everything) throw new Error(`stalled: ${this.#credit} bytes of credit, ${cost} wanted`);
      this.#sluice.let(permits);
    }
  }
}

test("a client that keeps to its credit is never refused and never stalls, whatever it sends", async () => {
  const attempt = fc.record({
    kind: fc.constantFrom("good", "good", "good", "too-large", "forbidden"),
    length: fc.oneof(fc.nat(MTU), fc.constant(MTU), fc.constant(0)),
    numbered: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(1, 500, 513, 700, 1100, 4096, 65_536),
      fc.array(attempt, { minLength: 20, maxLength: 400, size: "max" }),
      fc.integer({ min: 1, max: 20 }),
      async (sendQueueBytes, attempts, permits) => {
        const sluice = new Sluice();
        const { mux, close } = await emulatedBridge({ demo: sluice.guest }, { limits: { sendQueueBytes } });
        const client = await mux();
        const { credit } = await client.subscribed(1, "/ws/v1/demo/sluice");
        const sender = new HonestSender(client, sluice, credit);
        for (const each of attempts) await sender.send(each, permits);
        await sender.finish();
        client.socket.terminate();
        await close();
      },
    ),
    { numRuns: 25 },
  );
});

/** A channel to a guest with the longest buffers that there may be; messages go on when the test says so. */
class LongChannel {
  readonly mtu = 65_535;
  readonly endpoint = {
    guest: "demo",
    generation: 1,
    name: "long",
    state: "connected",
    guestState: "attached",
  };
  readonly local = 1024;
  readonly peer = 1025;
  readonly waiting: number[] = [];
  credit = 0;
  refused = 0;
  readonly subscription: Subscription;

  constructor(limits: Limits) {
    const multiplexer = {
      tell: (frame: MuxServerFrame) => {
        if (frame.type === "subscribed") this.credit = frame.credit;
        if (frame.type === "credit") this.credit += frame.bytes;
        if (frame.type === "error") this.refused++;
      },
    };
    const way = { policy: "close", attached: true, open: () => ({ port: this, id: "e1" }) };
    this.subscription = new Subscription(multiplexer as never, 1, way as never, limits, undefined);
    this.subscription.open();
  }

  get pendingBytes(): number {
    return this.waiting.reduce((sum, length) => sum + length + MUX_MESSAGE_COST, 0);
  }

  send(_dst: undefined, _bytes: Uint8Array, _offset: number, length: number): SendCode {
    this.waiting.push(length);
    return "queued";
  }

  /** The guest takes a message. @returns whether there was one */
  take(): boolean {
    if (this.waiting.shift() === undefined) return false;
    this.subscription.onSent(undefined);
    return true;
  }
}

test("with the longest messages that there may be it does not stall either", () => {
  const length = fc.oneof(fc.nat(65_535), fc.integer({ min: 60_000, max: 65_535 }), fc.nat(20_000));
  fc.assert(
    fc.property(fc.constantFrom(1, 65_536, 100_000), fc.array(length), (sendQueueBytes, lengths) => {
      const channel = new LongChannel(Config.parse({ limits: { sendQueueBytes } }).limits);
      for (const each of lengths) {
        while (channel.credit < each + MUX_MESSAGE_COST) {
          if (!channel.take()) throw new Error(`stalled: ${channel.credit} bytes for a message of ${each}`);
        }
        channel.credit -= each + MUX_MESSAGE_COST;
        channel.subscription.send(PEER, 0, Buffer.alloc(each), 0, each);
      }
      expect(channel.refused).toBe(0);
    }),
    { numRuns: 300 },
  );
});

/** A service that sends what it is told to, and counts. */
function source() {
  const sluice = new Sluice("source");
  sluice.let(Number.POSITIVE_INFINITY);
  return sluice;
}

describe("credit to the client", () => {
  async function subscribed(credit: number | undefined, slow = "close", limits: Record<string, number> = {}) {
    const sluice = source();
    const running = await emulatedBridge({ demo: sluice.guest }, { limits });
    const client = await running.mux();
    const { local } = await client.subscribed(1, `/ws/v1/demo/source?slow=${slow}`, credit);
    const send = async (...texts: string[]) => {
      for (const text of texts) await sluice.send(local, Buffer.from(text));
      await running.endpoint("source", (each) => each.counters.messagesFromGuest >= texts.length);
      await client.settled();
    };
    const got = () => client.of(1).filter((each) => each.type === "message");
    const texts = () => got().map(({ bytes }) => bytes.toString());
    return { ...running, client, sluice, local, send, texts };
  }

  test("0: nothing comes, until some is granted, and then what fits to the byte", async () => {
    const { client, send, texts } = await subscribed(0);
    await send("one", "two", "", "three");
    expect(texts()).toEqual([]);
    client.control({ type: "credit", sub: 1, bytes: 16 + 3 + 16 + 2 });
    await client.settled();
    expect(texts()).toEqual(["one"]);
    client.control({ type: "credit", sub: 1, bytes: 0 });
    await client.settled();
    expect(texts()).toEqual(["one"]);
    client.control({ type: "credit", sub: 1, bytes: 1 + 16 });
    await client.settled();
    expect(texts()).toEqual(["one", "two", ""]);
    client.control({ type: "credit", sub: 1, bytes: 2 ** 31 });
    await client.settled();
    expect(texts()).toEqual(["one", "two", "", "three"]);
  });

  test("none named: any number", async () => {
    const { send, texts } = await subscribed(undefined);
    const many = Array.from({ length: 500 }, (_, i) => `${i}`);
    await send(...many);
    expect(texts()).toEqual(many);
  });

  test("one without credit does not hold up others of the socket, of the same endpoint either", async () => {
    const { client, sluice, send, texts } = await subscribed(0);
    const { local } = await client.subscribed(2, "/ws/v1/demo/source");
    await send("waits");
    for (let i = 0; i < 50; i++) {
      await sluice.send(local, Buffer.from(`${i}`));
      expect((await client.take("message", 2)).bytes.toString()).toBe(`${i}`);
    }
    expect(texts()).toEqual([]);
  });

  test("what waits past the limit falls under slow=: close", async () => {
    const { client, send, endpoint } = await subscribed(0, "close", { slowReaderBytes: 4096 });
    await send(..."12345678".split("").map((digit) => digit.repeat(MTU)));
    expect(client.of(1)).toEqual([]);
    await send("9");
    expect(await client.take("unsubscribed", 1)).toEqual({
      type: "unsubscribed",
      sub: 1,
      code: "slow-reader",
    });
    const { clients, counters } = await endpoint("source");
    expect([clients, counters.messagesToClients, counters.dropped]).toEqual([0, 9, 9]);
    // The number is free, the socket is fine.
    await client.subscribed(1, "/ws/v1/demo/source");
  });

  test("drop-oldest: the newest come, the gap before them", async () => {
    const { client, send, texts, endpoint } = await subscribed(0, "drop-oldest", { slowReaderBytes: 4096 });
    await send(...Array.from({ length: 20 }, (_, i) => `${i}`.padEnd(MTU)));
    client.control({ type: "credit", sub: 1, bytes: 100_000 });
    await client.settled();
    expect(client.of(1)[0]).toEqual({ type: "dropped", sub: 1, count: 12 });
    expect(texts().map(Number)).toEqual([12, 13, 14, 15, 16, 17, 18, 19]);
    expect(client.of(1).flatMap((each) => (each.type === "message" ? [each.seq] : []))[0]).toBe(13);
    expect((await endpoint("source")).counters.dropped).toBe(12);
  });

  test("drop-newest: the oldest come, the gap behind them", async () => {
    const { client, send, texts, endpoint } = await subscribed(0, "drop-newest", { slowReaderBytes: 4096 });
    await send(...Array.from({ length: 20 }, (_, i) => `${i}`.padEnd(MTU)));
    client.control({ type: "credit", sub: 1, bytes: 100_000 });
    await client.settled();
    expect(texts().map(Number)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(client.of(1).at(-1)).toEqual({ type: "dropped", sub: 1, count: 12 });
    expect((await endpoint("source")).counters.dropped).toBe(12);
  });

  test("pause: the guest is held, and nothing is lost when credit comes", async () => {
    const { client, sluice, local, endpoint } = await subscribed(0, "pause", {
      slowReaderBytes: 4096,
      pauseTimeout: 60_000,
    });
    // As many as the guest can get rid of: its 8 buffers stay full in the end.
    let sent = 0;
    const fill = () => {
      while (sent < 30 && sluice.context?.send(local, Buffer.from(`${sent}`.padEnd(MTU))) === true) sent++;
    };
    fill();
    await eventually("a guest that is held", async () => {
      fill();
      const { counters } = await endpoint("source");
      return counters.messagesFromGuest === 9 && sent === 17 ? true : undefined;
    });
    for (let i = 0; i < 20; i++) await client.settled();
    expect((await endpoint("source")).counters.messagesFromGuest).toBe(9);
    client.control({ type: "credit", sub: 1, bytes: 10 ** 6 });
    await eventually("the rest", () => {
      fill();
      return sent === 30 ? true : undefined;
    });
    const messages = await client.takeMany(30, "message", 1);
    expect(messages.map(({ bytes, seq }) => [Number(bytes.toString()), seq])).toEqual(
      Array.from({ length: 30 }, (_, i) => [i, i + 1]),
    );
    expect((await endpoint("source")).counters.dropped).toBe(0);
  });

  test("pause: who grants nothing in time is unsubscribed, and the guest goes on", async () => {
    const { client, sluice, local, endpoint } = await subscribed(0, "pause", {
      slowReaderBytes: 4096,
      pauseTimeout: 50,
    });
    const other = await client.subscribed(2, "/ws/v1/demo/source");
    for (let i = 0; i < 10; i++) await sluice.send(local, Buffer.alloc(MTU));
    await sluice.send(other.local, Buffer.from("for the other"));
    expect(await client.take("unsubscribed", 1)).toMatchObject({ code: "slow-reader" });
    expect((await client.take("message", 2)).bytes.toString()).toBe("for the other");
    expect((await endpoint("source")).clients).toBe(1);
  });

  test("is each subscription's own, and new with a new subscription of the same number", async () => {
    const { client, sluice, local, endpoint } = await subscribed(100);
    client.control({ type: "credit", sub: 1, bytes: 10_000 });
    client.control({ type: "unsubscribe", sub: 1 });
    await client.take("unsubscribed", 1);
    const { local: next } = await client.subscribed(1, "/ws/v1/demo/source", 20);
    expect(next).not.toBe(local);
    for (const text of ["1234", "x"]) await sluice.send(next, Buffer.from(text));
    await endpoint("source", (each) => each.counters.messagesFromGuest === 2);
    await client.settled();
    expect(client.of(1).map((each) => each.type)).toEqual(["message"]);
  });

  test("nothing beyond it ever comes, and all comes for it", async () => {
    const sluice = source();
    const { mux, endpoint } = await emulatedBridge({ demo: sluice.guest });
    const client = await mux();
    let total = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.nat(2000),
        fc.array(fc.nat(MTU), { minLength: 1, maxLength: 60, size: "max" }),
        fc.array(fc.nat(1500), { maxLength: 20, size: "max" }),
        async (first, lengths, grants) => {
          const { local } = await client.subscribed(1, "/ws/v1/demo/source", first);
          for (const length of lengths) await sluice.send(local, Buffer.alloc(length));
          total += lengths.length;
          await endpoint("source", (each) => each.counters.messagesFromGuest === total);
          await client.settled();
          let credit = first;
          let used = 0;
          let got = 0;
          const look = () => {
            for (const frame of client.of(1)) {
              expect(frame).toMatchObject({ type: "message", seq: ++got });
              used += MUX_MESSAGE_COST + (frame.type === "message" ? frame.bytes.length : 0);
            }
            client.frames.length = 0;
            expect(used).toBeLessThanOrEqual(credit);
            // And no less than fits.
            const next = lengths[got];
            if (next !== undefined) expect(used + MUX_MESSAGE_COST + next).toBeGreaterThan(credit);
          };
          look();
          for (const bytes of [...grants, 10 ** 6]) {
            client.control({ type: "credit", sub: 1, bytes });
            await client.settled();
            credit += bytes;
            look();
          }
          expect(got).toBe(lengths.length);
          client.control({ type: "unsubscribe", sub: 1 });
          await client.take("unsubscribed", 1);
        },
      ),
      { numRuns: 40 },
    );
  });
});
