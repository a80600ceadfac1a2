import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { Limits, SlowPolicy } from "../../schemas/index.ts";
import { Config, MUX_MESSAGE_COST } from "../../schemas/index.ts";
import type { OutflowSink } from "../../server/channel/outflow.ts";
import { Outflow } from "../../server/channel/outflow.ts";
import { ClientCounts } from "../../server/client-counts.ts";
import { MemoryBudget } from "../../server/memory-budget.ts";
import { collectGarbage } from "../rpmsg/posix/support.ts";
import { eventually } from "./support.ts";

const LIMIT = 4096;
const limits: Limits = Config.parse({ limits: { slowReaderBytes: LIMIT, pauseTimeout: 2000 } }).limits;
/** Where every message lies when it is offered, as in guest memory. */
const scratch = new Uint8Array(16_384);

/** A socket whose client takes what the test says, and all that is told of messages. */
class Sink implements OutflowSink {
  pendingBytes = 0;
  readonly probe = undefined;
  readonly budget = new MemoryBudget(limits.clientBytes, () => {});
  readonly counts = new ClientCounts();
  /** In order: `3` for a message that was written, `-2` for so many dropped. */
  readonly log: number[] = [];
  readonly written: { seq: number; bytes: Buffer }[] = [];
  dropCount = 0;
  held = false;
  readonly slowReasons: string[] = [];
  awaited = false;
  /** `hold`, `release` */
  readonly holds: string[] = [];

  write(seq: number, src: number, bytes: Uint8Array, offset: number, length: number): void {
    expect(src).toBe(seq % 7);
    this.log.push(seq);
    this.written.push({ seq, bytes: Buffer.from(bytes.subarray(offset, offset + length)) });
    this.pendingBytes += length;
  }

  writeDropped(count: number): void {
    expect(count).toBeGreaterThan(0);
    this.log.push(-count);
  }

  notifyDrained(): void {
    this.awaited = true;
  }

  hold(): void {
    this.holds.push("hold");
  }

  release(): void {
    this.holds.push("release");
  }

  dropped(count: number): void {
    this.dropCount += count;
  }

  slow(reason: string): void {
    this.slowReasons.push(reason);
  }
}

/** An outflow with its sink. */
class Setup {
  readonly sink = new Sink();
  readonly outflow: Outflow;

  constructor(policy: SlowPolicy, credit?: number) {
    this.outflow = new Outflow(this.sink, policy, limits, credit);
  }

  /** Offers a message, and spoils its bytes afterwards. */
  offer(length: number): void {
    const seq = this.outflow.seq + 1;
    const offset = seq % 5;
    scratch.fill(seq, offset, offset + length);
    this.outflow.offer(seq % 7, scratch, offset, length, seq);
    scratch.fill(0xee);
  }

  offerAll(...lengths: number[]): this {
    for (const length of lengths) this.offer(length);
    return this;
  }

  /** The client takes so many bytes, and what waits for that is told when nothing is left. */
  take(bytes = Number.POSITIVE_INFINITY): this {
    this.sink.pendingBytes = Math.max(0, this.sink.pendingBytes - bytes);
    while (this.sink.pendingBytes === 0 && this.sink.awaited) {
      this.sink.awaited = false;
      this.outflow.drained();
      if (bytes === Number.POSITIVE_INFINITY) this.sink.pendingBytes = 0;
    }
    return this;
  }
}

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
});
afterEach(() => {
  vi.useRealTimers();
});

describe("a client that reads", () => {
  test.each(["close", "pause", "drop-oldest", "drop-newest"] as const)("loses nothing (%s)", (policy) => {
    const setup = new Setup(policy);
    for (let i = 0; i < 50; i++) setup.offerAll(500, 0, 1500).take();
    expect(setup.sink.log).toEqual(Array.from({ length: 150 }, (_, i) => i + 1));
    expect(setup.sink).toMatchObject({ dropCount: 0, holds: [], slowReasons: [], awaited: false });
  });

  test.each(["close", "pause", "drop-oldest", "drop-newest"] as const)(
    "gets a message that is longer than the limit (%s)",
    (policy) => {
      const setup = new Setup(policy)
        .offerAll(2 * LIMIT)
        .take()
        .offerAll(2 * LIMIT)
        .take();
      expect(setup.sink.log).toEqual([1, 2]);
      expect(setup.sink).toMatchObject({ dropCount: 0, slowReasons: [] });
    },
  );
});

describe("close", () => {
  test("past the limit the client is slow; up to it, it is not", () => {
    const { sink } = new Setup("close").offerAll(2048, 2048);
    expect(sink.slowReasons).toEqual([]);
    const past = new Setup("close").offerAll(2048, 2048, 1);
    expect(past.sink.slowReasons).toEqual([`slow reader: more than ${LIMIT} bytes wait`]);
    expect(past.sink.log).toEqual([1, 2, 3]);
  });
});

describe("drop-newest", () => {
  test("the oldest arrive, the gap is told before what follows it", () => {
    const setup = new Setup("drop-newest").offerAll(2048, 2048, 10, 20, 30);
    expect(setup.sink.log).toEqual([1, 2]);
    expect(setup.sink.dropCount).toBe(3);
    setup.sink.pendingBytes = 100;
    setup.offer(40);
    expect(setup.sink.log).toEqual([1, 2, -3, 6]);
  });

  test("the gap is told when the client has taken everything, where nothing follows it", () => {
    const setup = new Setup("drop-newest").offerAll(4096, 1, 1).take();
    expect(setup.sink.log).toEqual([1, -2]);
    setup.take().offer(5);
    expect(setup.sink.log).toEqual([1, -2, 4]);
  });

  test("without credit the first ones wait, and the gap is told behind them", () => {
    const setup = new Setup("drop-newest", 0).offerAll(2000, 2000, 2000, 2000);
    expect(setup.sink.dropCount).toBe(2);
    setup.outflow.grant(2016);
    expect(setup.sink.log).toEqual([1]);
    setup.offer(1000);
    setup.outflow.grant(10_000);
    expect(setup.sink.log).toEqual([1, 2, -2, 5]);
  });
});

describe("drop-oldest", () => {
  test("what is dropped is free at once", async () => {
    const setup = new Setup("drop-oldest").offerAll(5000, 16_000);
    await collectGarbage();
    const before = process.memoryUsage().arrayBuffers;
    for (let i = 0; i < 900; i++) setup.offer(16_000);
    expect(setup.sink.dropCount).toBeGreaterThan(890);
    // V8 frees what a collection found on a thread of its own.
    await eventually("little is held", async () => {
      await collectGarbage();
      return process.memoryUsage().arrayBuffers - before < 900 * 16_000 * 0.2 || undefined;
    });
    // Held until here.
    expect(setup.outflow.heldBytes).toBeGreaterThan(0);
  });

  test("the newest arrive; what is in the socket already does, too", () => {
    const setup = new Setup("drop-oldest").offerAll(4096);
    expect(setup.sink.log).toEqual([1]);
    // 2016 each with their cost: two fit.
    setup.offerAll(2000, 2000, 2000, 2000);
    expect(setup.sink.dropCount).toBe(2);
    setup.take();
    expect(setup.sink.log).toEqual([1, -2, 4, 5]);
  });

  test("a socket that took little holds little: no more is written before it is empty enough", () => {
    const setup = new Setup("drop-oldest").offerAll(4095, 100, 200);
    expect(setup.sink.log).toEqual([1, 2]);
    setup.take();
    expect(setup.sink.log).toEqual([1, 2, 3]);
  });

  test("without credit the last ones wait", () => {
    const setup = new Setup("drop-oldest", 0).offerAll(2000, 2000, 2000, 2000);
    expect(setup.sink.log).toEqual([]);
    setup.outflow.grant(2016);
    expect(setup.sink.log).toEqual([-2, 3]);
    setup.outflow.grant(2015);
    expect(setup.sink.log).toEqual([-2, 3]);
    setup.outflow.grant(1);
    expect(setup.sink.log).toEqual([-2, 3, 4]);
  });
});

describe("pause", () => {
  test("holds the guest past the limit, once, and releases it when half is left", () => {
    const setup = new Setup("pause").offerAll(2048, 2048);
    expect(setup.sink.holds).toEqual([]);
    setup.offerAll(1, 1);
    expect(setup.sink.holds).toEqual(["hold"]);
    setup.sink.pendingBytes = LIMIT / 2 + 1;
    setup.outflow.drained();
    expect(setup.sink.holds).toEqual(["hold"]);
    setup.sink.pendingBytes = LIMIT / 2;
    setup.outflow.drained();
    expect(setup.sink.holds).toEqual(["hold", "release"]);
    expect(setup.sink.log).toEqual([1, 2, 3, 4]);
  });

  test("for so long and no longer", () => {
    const setup = new Setup("pause").offerAll(5000, 1);
    vi.advanceTimersByTime(1999);
    expect(setup.sink.slowReasons).toEqual([]);
    vi.advanceTimersByTime(1);
    expect(setup.sink.slowReasons).toEqual(["slow reader: held the guest up for 2000 ms"]);
  });

  test("the time begins anew with every pause, and ends with the release", () => {
    const setup = new Setup("pause");
    for (let i = 0; i < 3; i++) {
      setup.offerAll(5000, 1);
      vi.advanceTimersByTime(1999);
      setup.take();
      vi.advanceTimersByTime(10_000);
    }
    expect(setup.sink).toMatchObject({ slowReasons: [], dropCount: 0 });
    expect(setup.sink.holds).toEqual(["hold", "release", "hold", "release", "hold", "release"]);
  });

  test("the end releases", () => {
    const setup = new Setup("pause").offerAll(5000, 1);
    setup.outflow.end();
    setup.outflow.end();
    expect(setup.sink.holds).toEqual(["hold", "release"]);
    expect(vi.getTimerCount()).toBe(0);
  });

  test("messages that wait for credit count", () => {
    const setup = new Setup("pause", 0).offerAll(2000, 2000, 2000);
    expect(setup.sink.holds).toEqual(["hold"]);
    setup.outflow.grant(2 * 2016);
    expect(setup.sink.log).toEqual([1, 2]);
    setup.take();
    expect(setup.sink.holds).toEqual(["hold", "release"]);
  });
});

describe("credit", () => {
  test("is used up to the byte, 16 for each message", () => {
    const setup = new Setup("close", 100 + 16 + 16).offerAll(100, 0, 0);
    expect(setup.sink.log).toEqual([1, 2]);
    setup.outflow.grant(15);
    expect(setup.sink.log).toEqual([1, 2]);
    setup.outflow.grant(1);
    expect(setup.sink.log).toEqual([1, 2, 3]);
  });

  test("a message that fits does not pass one that waits", () => {
    const setup = new Setup("close", 100).offerAll(200, 10);
    expect(setup.sink.log).toEqual([]);
    setup.outflow.grant(116);
    expect(setup.sink.log).toEqual([1]);
  });

  test("where there was none asked for, what is granted means nothing", () => {
    const setup = new Setup("close");
    setup.outflow.grant(1);
    setup.offerAll(1000);
    expect(setup.sink.log).toEqual([1]);
  });

  test("nobody waits for the socket where only credit is missing", () => {
    const setup = new Setup("drop-oldest", 0).offerAll(100);
    expect(setup.sink.awaited).toBe(false);
  });
});

describe("the end", () => {
  test("what waits is counted as dropped, and nothing is written or told any more", () => {
    const setup = new Setup("close", 0).offerAll(10, 20, 30);
    setup.outflow.end();
    expect(setup.sink.dropCount).toBe(3);
    setup.outflow.grant(1000);
    setup.offer(40);
    setup.outflow.drained();
    expect(setup.sink.log).toEqual([]);
  });
});

test("thousands of messages that wait go in order", () => {
  const setup = new Setup("close", 0);
  const count = 2000;
  // Empty ones; 1024 is where gone messages are cleared away.
  const generous = new Outflow(setup.sink, "close", { ...limits, slowReaderBytes: 10 ** 6 }, 0);
  for (let i = 1; i <= count; i++) generous.offer(i % 7, scratch, 0, 0, i);
  for (let left = count; left > 0; left -= 100) generous.grant(1600);
  expect(setup.sink.log).toEqual(Array.from({ length: count }, (_, i) => i + 1));
});

/** What an outflow does, in plain arrays. */
class Model {
  readonly setup: Setup;
  readonly #policy: SlowPolicy;
  #credit: number | undefined;
  #seq = 0;
  readonly #lengths = new Map<number, number>();
  #waiting: number[] = [];
  readonly #expected: number[] = [];
  #told = 0;
  #drops = 0;
  #held = false;
  #slow = false;

  constructor(policy: SlowPolicy, credit: number | undefined) {
    this.setup = new Setup(policy, credit);
    this.#policy = policy;
    this.#credit = credit;
  }

  get #socket(): number {
    return this.setup.sink.pendingBytes;
  }

  #cost(seq: number): number {
    return (this.#lengths.get(seq) ?? 0) + MUX_MESSAGE_COST;
  }

  get #waits(): number {
    return this.#waiting.reduce((sum, seq) => sum + this.#cost(seq), 0);
  }

  offer(length: number): void {
    const before = this.#socket;
    const seq = ++this.#seq;
    this.#lengths.set(seq, length);
    const direct = this.#waiting.length === 0 && this.#may(seq, before);
    this.setup.offer(length);
    if (direct && this.#policy === "drop-newest" && before > 0 && before + length > LIMIT) this.#drops++;
    else if (direct) this.#write(seq);
    else this.#wait(seq);
    if (direct ? before > 0 && before + length > LIMIT : this.#waits + before > LIMIT) this.#tooMuch();
    this.check();
  }

  grant(bytes: number): void {
    if (this.#credit !== undefined) this.#credit += bytes;
    const before = this.#socket;
    this.setup.outflow.grant(bytes);
    this.#flow(before);
    this.check();
  }

  take(bytes: number): void {
    const { sink, outflow } = this.setup;
    sink.pendingBytes = Math.max(0, sink.pendingBytes - bytes);
    if (sink.pendingBytes > 0 || !sink.awaited) return;
    sink.awaited = false;
    outflow.drained();
    this.#flow(0);
    this.check();
  }

  /** Another one of the same socket was told. */
  drained(): void {
    const before = this.#socket;
    this.setup.outflow.drained();
    this.#flow(before);
    this.check();
  }

  /** The client takes and grants everything. */
  settle(): void {
    this.grant(10 ** 6);
    for (let i = 0; i < 1000 && (this.setup.sink.awaited || this.#socket > 0); i++) this.take(10 ** 6);
    this.check();
    const { sink } = this.setup;
    expect(sink.awaited).toBe(false);
    // Every message was written or told of, each once, in its place.
    expect(sink.log.reduce((sum, each) => (each < 0 ? sum - each : sum + 1), 0)).toBe(this.#seq);
    let seq = 0;
    for (const each of sink.log) {
      if (each < 0) seq -= each;
      else expect(each).toBe(++seq);
    }
    expect(sink.dropCount).toBe(sink.log.reduce((sum, each) => (each < 0 ? sum - each : sum), 0));
    expect(sink.holds.length % 2).toBe(0);
    for (const { seq: number, bytes } of sink.written) {
      expect(bytes).toEqual(Buffer.alloc(this.#lengths.get(number) ?? -1, number));
    }
  }

  check(): void {
    const { sink } = this.setup;
    expect(sink.log).toEqual(this.#expected);
    expect(sink.dropCount).toBe(this.#drops);
    expect(sink.holds.at(-1) === "hold").toBe(this.#held);
    expect(sink.slowReasons.length > 0).toBe(this.#slow);
    if (this.#policy === "pause" || this.#policy === "close") expect(sink.dropCount).toBe(0);
    // What the bridge keeps is bounded, by one message more at most.
    if (this.#policy.startsWith("drop"))
      expect(this.#waits).toBeLessThanOrEqual(Math.max(LIMIT, this.#longest));
  }

  get #longest(): number {
    return Math.max(...[...this.#lengths.keys()].map((seq) => this.#cost(seq)), 0);
  }

  #may(seq: number, socket: number): boolean {
    if (this.#credit !== undefined && this.#credit < this.#cost(seq)) return false;
    return this.#policy !== "drop-oldest" || socket < LIMIT;
  }

  #tell(upTo: number): void {
    if (upTo > this.#told) this.#expected.push(this.#told - upTo);
    this.#told = upTo;
  }

  #write(seq: number): void {
    this.#tell(seq - 1);
    this.#expected.push(seq);
    this.#told = seq;
    if (this.#credit !== undefined) this.#credit -= this.#cost(seq);
  }

  #wait(seq: number): void {
    this.#waiting.push(seq);
    if (this.#policy === "drop-oldest") {
      while (this.#waits > LIMIT && this.#waiting.length > 1) {
        this.#waiting.shift();
        this.#drops++;
      }
    } else if (this.#policy === "drop-newest" && this.#waits > LIMIT && this.#waiting.length > 1) {
      this.#waiting.pop();
      this.#drops++;
    }
  }

  #tooMuch(): void {
    if (this.#policy === "close") this.#slow = true;
    if (this.#policy === "pause") this.#held = true;
  }

  /** @param before what was in the socket */
  #flow(before: number): void {
    let socket = before;
    for (
      let next = this.#waiting[0];
      next !== undefined && this.#may(next, socket);
      next = this.#waiting[0]
    ) {
      this.#waiting.shift();
      this.#write(next);
      socket += this.#lengths.get(next) ?? 0;
    }
    expect(this.#socket).toBe(socket);
    if (this.#waits + socket <= LIMIT / 2) this.#held = false;
    if (this.#waiting.length === 0 && socket < LIMIT) this.#tell(this.#seq);
  }
}

test("whatever comes and is taken: in order, dropped as the policy says, every drop told once, in its place", () => {
  const commands = fc.array(
    fc.oneof(
      {
        weight: 6,
        arbitrary: fc
          .oneof(fc.nat(600), fc.nat(2500), fc.constant(6000))
          .map((length) => (m: Model) => m.offer(length)),
      },
      { weight: 3, arbitrary: fc.nat(9000).map((bytes) => (m: Model) => m.take(bytes)) },
      { weight: 2, arbitrary: fc.nat(3000).map((bytes) => (m: Model) => m.grant(bytes)) },
      { weight: 1, arbitrary: fc.constant((m: Model) => m.drained()) },
    ),
    { maxLength: 80 },
  );
  fc.assert(
    fc.property(
      fc.constantFrom("close", "pause", "drop-oldest", "drop-newest"),
      fc.option(fc.nat(5000), { nil: undefined }),
      commands,
      (policy, credit, list) => {
        const model = new Model(policy, credit);
        for (const command of list) command(model);
        model.settle();
      },
    ),
    { numRuns: 200 },
  );
  // Some seconds of computing, which is a multiple of that on a machine that is busy with other suites.
}, 60_000);
