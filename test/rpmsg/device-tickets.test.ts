import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { REQUEST_QUEUE, RESPONSE_QUEUE, RpmsgDevice } from "../../rpmsg/device.ts";
import type { SendCode, SendQueue } from "../../rpmsg/send-queue.ts";
import { Driver, turns } from "./support/device-driver.ts";

const GUEST = 0x400;
const SIZE = 8;

/** A sender whose tickets are the texts of its messages. */
class Sender {
  /** What was told, in order: `what ticket`. */
  readonly heard: string[] = [];
  readonly endpoint;
  readonly queue: SendQueue<string>;

  constructor(device: RpmsgDevice, address: number, peer: number | undefined, options = {}) {
    this.endpoint = device.createEndpoint(() => {}, address);
    this.queue = device.createSendQueue<string>(
      this.endpoint,
      peer === undefined ? this.endpoint : { peer },
      {
        onSent: (length, ticket) => this.heard.push(`sent ${ticket}, ${length} bytes`),
        onUndelivered: (code, ticket) => this.heard.push(`${code} ${ticket}`),
        onUnconfirmed: (ticket) => this.heard.push(`unconfirmed ${ticket}`),
        onWritable: () => this.heard.push("writable"),
      },
      { limit: 100_000, timeout: 15_000, ...options },
    );
  }

  send(text: string, dst?: number, timeout?: number): SendCode {
    const bytes = Buffer.from(text);
    return this.queue.send(dst, bytes, 0, bytes.length, text, timeout);
  }

  /** What was told of this kind. */
  told(kind: string): string[] {
    return this.heard
      .filter((each) => each.startsWith(`${kind} `))
      .map((each) => each.slice(kind.length + 1));
  }

  /** Which messages may not have been read. */
  get unconfirmed(): string[] {
    return this.told("unconfirmed").toSorted();
  }
}

/** A driver that has spoken, so that its positions are not 0/0, with so many buffers of a queue of 8. */
function boot(buffers: number, options: { noPeer?: true; limit?: number } = {}) {
  const device = new RpmsgDevice();
  const sender = new Sender(device, 1030, options.noPeer ? undefined : GUEST, options);
  const driver = bootDriver(device, buffers);
  return { device, driver, sender, other: () => new Sender(device, 1031, GUEST) };
}

function bootDriver(device: RpmsgDevice, buffers: number): Driver {
  const driver = new Driver(device, { size: SIZE, nameService: false }).boot(buffers, 64);
  driver.send(GUEST, 9999, "nobody is there");
  return driver;
}

function post(driver: Driver, count = 1): void {
  for (let i = 0; i < count; i++) driver.post(64);
  driver.kick(RESPONSE_QUEUE);
}

/** Reads so many messages; their buffers are not posted. */
function read(driver: Driver, count: number): (string | undefined)[] {
  return Array.from({ length: count }, () => driver.receive()?.payload.toString());
}

function stop(device: RpmsgDevice): [response: number, request: number] {
  const stopped = device.stop();
  if (stopped === undefined) throw new Error("the device did not run");
  return [stopped[0].base, stopped[1].base];
}

describe("a ticket", () => {
  test("of a message that goes at once is not told of again", async () => {
    const { driver, sender } = boot(2);
    expect(sender.send("direct")).toBe("sent");
    await turns();
    expect(read(driver, 1)).toEqual(["direct"]);
    expect(sender.heard).toEqual([]);
  });

  test("of a message that waited comes when it is in the response queue, in order, with its length", async () => {
    const { driver, sender } = boot(1);
    expect(["one", "three", "fifteen"].map((text) => sender.send(text))).toEqual([
      "sent",
      "queued",
      "queued",
    ]);
    await turns();
    expect(sender.heard).toEqual([]);
    post(driver, 1);
    expect(sender.heard).toEqual(["sent three, 5 bytes"]);
    post(driver, 1);
    expect(sender.heard).toEqual(["sent three, 5 bytes", "sent fifteen, 7 bytes"]);
    expect(read(driver, 3)).toEqual(["one", "three", "fifteen"]);
  });

  test("comes to the sender that gave it", () => {
    const { driver, sender, other } = boot(0);
    const second = other();
    sender.send("a");
    second.send("b");
    post(driver, 2);
    expect([sender.heard, second.heard]).toEqual([["sent a, 1 bytes"], ["sent b, 1 bytes"]]);
  });

  test("comes when the peer is known, too", async () => {
    const { driver, sender } = boot(4, { noPeer: true });
    expect(sender.send("early")).toBe("queued");
    expect(sender.heard).toEqual([]);
    driver.send(GUEST, 1030, "here I am");
    await turns();
    expect(sender.heard).toEqual(["sent early, 5 bytes"]);
  });

  test("of one that is too long for the buffer that comes says so", () => {
    const { driver, sender } = boot(0);
    sender.send("x".repeat(49));
    sender.send("fits");
    post(driver, 1);
    expect(sender.heard).toEqual([`too-large ${"x".repeat(49)}`, "sent fits, 4 bytes"]);
  });
});

describe("deadlines", () => {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  test("are each message's own: a later message may be given up first, and the others stay in order", async () => {
    const { driver, sender } = boot(0);
    sender.send("slow", undefined, 10_000);
    sender.send("fast", undefined, 1000);
    sender.send("usual");
    sender.send("fastest", undefined, 500);
    await vi.advanceTimersByTimeAsync(499);
    expect(sender.heard).toEqual([]);
    await vi.advanceTimersByTimeAsync(20);
    expect(sender.heard).toEqual(["no-buffer fastest"]);
    await vi.advanceTimersByTimeAsync(500);
    expect(sender.heard).toEqual(["no-buffer fastest", "no-buffer fast"]);
    post(driver, 4);
    expect(read(driver, 3)).toEqual(["slow", "usual", undefined]);
    expect(sender.queue).toMatchObject({ pending: 0, pendingBytes: 0 });
    expect(vi.getTimerCount()).toBe(0);
  });

  test("an early deadline behind a late one, set while the late one's timer runs", async () => {
    const { sender } = boot(0);
    sender.send("late", undefined, 10_000);
    await vi.advanceTimersByTimeAsync(5000);
    sender.send("early", undefined, 100);
    await vi.advanceTimersByTimeAsync(120);
    expect(sender.heard).toEqual(["no-buffer early"]);
    await vi.advanceTimersByTimeAsync(4861);
    expect(sender.heard).toEqual(["no-buffer early"]);
    await vi.advanceTimersByTimeAsync(40);
    expect(sender.told("no-buffer")).toEqual(["early", "late"]);
  });

  test("stand still during a pause, those of messages from before it and from within it alike", async () => {
    const { device, driver, sender } = boot(0);
    sender.send("before", undefined, 1000);
    await vi.advanceTimersByTimeAsync(900);
    const bases = stop(device);
    expect(vi.getTimerCount()).toBe(0);
    sender.send("within", undefined, 300);
    sender.send("within, brief", undefined, 50);
    await vi.advanceTimersByTimeAsync(1_000_000);
    expect(sender.heard).toEqual([]);
    driver.start(bases);
    await vi.advanceTimersByTimeAsync(40);
    expect(sender.heard).toEqual([]);
    await vi.advanceTimersByTimeAsync(30);
    expect(sender.heard).toEqual(["no-buffer within, brief"]);
    await vi.advanceTimersByTimeAsync(50);
    expect(sender.heard.slice(1)).toEqual(["no-buffer before"]);
    await vi.advanceTimersByTimeAsync(200);
    expect(sender.told("no-buffer")).toEqual(["within, brief", "before", "within"]);
  });

  test("no-peer tells messages for the peer from those with a destination of their own", async () => {
    const { sender } = boot(0, { noPeer: true });
    sender.send("for the peer", undefined, 100);
    sender.send("with an address", 0x500, 100);
    await vi.advanceTimersByTimeAsync(120);
    expect(sender.told("no-peer")).toEqual(["for the peer"]);
    expect(sender.told("no-buffer")).toEqual(["with an address"]);
  });

  test("a message with an address goes on when those that waited for the peer before it are given up", async () => {
    const { driver, sender } = boot(4, { noPeer: true });
    sender.send("for the peer", undefined, 100);
    expect(sender.send("with an address", 0x500, 10_000)).toBe("queued");
    await vi.advanceTimersByTimeAsync(120);
    await turns();
    expect(sender.heard).toEqual(["no-peer for the peer", "sent with an address, 15 bytes"]);
    expect(driver.receive()).toMatchObject({ dst: 0x500 });
  });

  test("what was given up makes room: onWritable comes once", async () => {
    const { sender } = boot(0, { limit: 100 });
    for (const text of ["1", "2", "3", "4"]) expect(sender.send(text, undefined, 100)).toBe("queued");
    expect(sender.send("5")).toBe("queued");
    expect(sender.send("6")).toBe("queue-full");
    await vi.advanceTimersByTimeAsync(120);
    expect(sender.heard).toEqual(["no-buffer 1", "no-buffer 2", "no-buffer 3", "no-buffer 4", "writable"]);
  });
});

describe("what waits", () => {
  test("is given up at a reset as guest-gone, and onWritable says that there is room", () => {
    const { device, sender } = boot(0, { limit: 60 });
    for (const text of ["one", "two", "three"]) sender.send(text);
    expect(sender.send("more")).toBe("queue-full");
    device.reset();
    expect(sender.heard).toEqual(["guest-gone one", "guest-gone two", "guest-gone three", "writable"]);
    expect(sender.queue).toMatchObject({ pending: 0, pendingBytes: 0 });
  });

  test("is given up at a reset without onWritable where there was room before", () => {
    const { device, sender } = boot(0);
    sender.send("one");
    device.reset();
    expect(sender.heard).toEqual(["guest-gone one"]);
  });

  test("what is sent in onWritable of a reset waits for the next driver", async () => {
    const device = new RpmsgDevice();
    const heard: string[] = [];
    const endpoint = device.createEndpoint(() => {}, 1030);
    const bytes = Buffer.alloc(8, "x");
    const queue = device.createSendQueue<string>(
      endpoint,
      { peer: GUEST },
      {
        onUndelivered: (code, ticket) => heard.push(`${code} ${ticket}`),
        onSent: (_length, ticket) => heard.push(`sent ${ticket}`),
        onWritable: () => {
          if (heard.length === 2) heard.push(`writable, then ${queue.send(undefined, bytes, 0, 8, "late")}`);
        },
      },
      { limit: 48, timeout: 15_000 },
    );
    bootDriver(device, 0);
    queue.send(undefined, bytes, 0, 8, "one");
    queue.send(undefined, bytes, 0, 8, "two");
    device.reset();
    expect(heard).toEqual(["guest-gone one", "guest-gone two", "writable, then queued"]);
    const second = bootDriver(device, 1);
    await turns();
    expect(second.receiveAll()).toHaveLength(1);
    expect(heard.at(-1)).toBe("sent late");
  });

  test("is given up at a close as endpoint-gone; nothing more is taken", () => {
    const { driver, sender } = boot(1);
    for (const text of ["sent", "one", "two"]) sender.send(text);
    sender.queue.close();
    expect(sender.heard).toEqual(["endpoint-gone one", "endpoint-gone two"]);
    expect(sender.send("late")).toBe("endpoint-gone");
    post(driver, 3);
    expect(read(driver, 2)).toEqual(["sent", undefined]);
  });

  test("of a queue that finishes is told of to the end, then nothing is left", () => {
    const { driver, sender } = boot(0);
    let done = 0;
    sender.send("one");
    sender.send("two");
    sender.queue.finish(() => done++);
    expect(sender.send("late")).toBe("endpoint-gone");
    post(driver, 1);
    expect([sender.heard, done]).toEqual([["sent one, 3 bytes"], 0]);
    post(driver, 1);
    expect([sender.told("sent").length, done]).toEqual([2, 1]);
  });

  test("of a queue that finishes is given up at a reset, and it is done", () => {
    const { device, sender } = boot(0);
    let done = 0;
    sender.send("one");
    sender.queue.finish(() => done++);
    device.reset();
    expect([sender.heard, done]).toEqual([["guest-gone one"], 1]);
    sender.queue.drop("endpoint-gone");
    expect(done).toBe(1);
  });

  test("of other senders stays where one closes", () => {
    const { driver, sender, other } = boot(0);
    const second = other();
    sender.send("a");
    second.send("b");
    sender.queue.close();
    post(driver, 2);
    expect(second.heard).toEqual(["sent b, 1 bytes"]);
  });
});

describe("what was sent and not read before a reset", () => {
  test("nothing was read: all of it, those that waited before they went too", () => {
    const { device, driver, sender } = boot(2);
    for (const text of ["a", "b", "c", "d"]) sender.send(text);
    post(driver, 1);
    device.reset();
    expect(sender.unconfirmed).toEqual(["a", "b", "c"]);
    expect(sender.told("guest-gone")).toEqual(["d"]);
  });

  test("all buffers were posted again: nothing", () => {
    const { device, driver, sender } = boot(3);
    for (const text of ["a", "b", "c"]) sender.send(text);
    device.rescan();
    read(driver, 3);
    post(driver, 3);
    device.reset();
    expect(sender.heard).toEqual([]);
  });

  test("some were posted again, in order: those behind them", () => {
    const { device, driver, sender } = boot(3);
    for (const text of ["a", "b", "c"]) sender.send(text);
    device.rescan();
    for (let i = 0; i < 2; i++) {
      read(driver, 1);
      post(driver, 1);
    }
    device.reset();
    expect(sender.unconfirmed).toEqual(["c"]);
  });

  test("some were posted again, out of order: the others", () => {
    const { device, driver, sender } = boot(4);
    for (const text of ["a", "b", "c", "d"]) sender.send(text);
    device.rescan();
    // The descriptor that came back last is used first.
    read(driver, 3);
    post(driver, 1);
    device.reset();
    expect(sender.unconfirmed).toEqual(["a", "b", "d"]);
  });

  test("read, but the buffer not shown to us again: it may not have been handled", () => {
    const { device, driver, sender } = boot(1);
    sender.send("a");
    device.rescan();
    expect(read(driver, 1)).toEqual(["a"]);
    driver.response.add(driver.allocate(64), 64, true);
    device.reset();
    expect(sender.unconfirmed).toEqual(["a"]);
  });

  test("a buffer that holds a later message says nothing of the earlier one", () => {
    const { device, driver, sender } = boot(1);
    sender.send("first");
    device.rescan();
    read(driver, 1);
    post(driver, 1);
    sender.send("second");
    device.reset();
    expect(sender.unconfirmed).toEqual(["second"]);
  });

  test("each sender is told of its own, a closed one too", () => {
    const { device, sender, other } = boot(4);
    const second = other();
    sender.send("a");
    second.send("b");
    sender.queue.close();
    device.reset();
    expect([sender.heard, second.heard]).toEqual([["unconfirmed a"], ["unconfirmed b"]]);
  });

  test("what was not read comes before what waited", () => {
    const { device, sender } = boot(1);
    sender.send("sent");
    sender.send("waits");
    device.reset();
    expect(sender.heard).toEqual(["unconfirmed sent", "guest-gone waits"]);
  });

  test("it is told once: the next reset knows nothing of it", () => {
    const { device, sender } = boot(1);
    sender.send("a");
    device.reset();
    bootDriver(device, 2);
    device.reset();
    expect(sender.heard).toEqual(["unconfirmed a"]);
  });

  test("after a pause that was none: what was read before the stop counts as read", () => {
    const { device, driver, sender } = boot(2);
    sender.send("a");
    sender.send("b");
    device.rescan();
    read(driver, 1);
    driver.post(64);
    stop(device);
    device.reset();
    expect(sender.unconfirmed).toEqual(["b"]);
  });

  test("after a pause and a resume: what was read before and what was read after", () => {
    const { device, driver, sender } = boot(3);
    for (const text of ["a", "b", "c"]) sender.send(text);
    device.rescan();
    read(driver, 1);
    driver.post(64);
    const bases = stop(device);
    driver.start(bases);
    expect(device.generation).toBe(1);
    read(driver, 1);
    driver.post(64);
    stop(device);
    device.reset();
    expect(sender.unconfirmed).toEqual(["c"]);
  });

  test("a new driver at the start is a reset like any other", () => {
    const { device, driver, sender } = boot(2);
    sender.send("a");
    sender.send("b");
    device.rescan();
    read(driver, 1);
    driver.post(64);
    stop(device);
    bootDriver(device, 2);
    expect(sender.unconfirmed).toEqual(["b"]);
  });

  test("a driver that shows nonsense at the stop may have read nothing", () => {
    const { device, driver, sender } = boot(2);
    sender.send("a");
    sender.send("b");
    device.rescan();
    read(driver, 2);
    driver.post(64);
    driver.post(64);
    driver.bytes(driver.rings[0].available + 2, 2).writeUInt16LE(4000);
    stop(device);
    device.reset();
    expect(sender.unconfirmed).toEqual(["a", "b"]);
  });

  test("heads that are none among the posted ones are passed over", () => {
    const { device, driver, sender } = boot(2);
    sender.send("a");
    sender.send("b");
    device.rescan();
    read(driver, 2);
    driver.post(64);
    driver.post(64);
    // Entry 2, the first after the two that were used.
    driver.bytes(driver.rings[0].available + 4 + 2 * 2, 2).writeUInt16LE(SIZE + 1);
    device.reset();
    expect(sender.unconfirmed).toEqual(["b"]);
  });

  test("a queue that the driver broke: what it had posted again before that counts as read", () => {
    const { device, driver, sender } = boot(3);
    for (const text of ["a", "b", "c"]) sender.send(text);
    device.rescan();
    read(driver, 2);
    // A buffer outside of guest memory, found when the next message wants it, and a good one behind it.
    driver.response.add(0x7fff_0000, 64, true);
    driver.post(64);
    sender.send("d");
    expect(driver.failures).toEqual([{ queue: 0, code: "descriptor-range" }]);
    device.reset();
    expect(sender.unconfirmed).toEqual(["c"]);
    expect(sender.told("guest-gone")).toEqual(["d"]);
  });

  test("name service asks for nothing of the kind", async () => {
    const device = new RpmsgDevice();
    device.announce("service", 1030);
    new Driver(device).boot(2);
    await turns();
    expect(device.counters.messagesToGuest).toBe(1);
    expect(() => device.reset()).not.toThrow();
  });
});

/** Two senders, a driver that does anything, and beside them what must be told of each message. */
class Model {
  readonly device = new RpmsgDevice();
  readonly senders = [new Sender(this.device, 1030, GUEST), new Sender(this.device, 1031, GUEST)];
  readonly #told = new Map<string, string[]>();
  #driver!: Driver;
  #addresses: number[] = [];
  /** Of each descriptor that is out, where its buffer is. */
  #out = new Map<number, number>();
  /** Heads that the driver has read, with their messages, and has not posted since. */
  #read: { head: number; text: string }[] = [];
  /** Messages whose head was posted again, but not shown. */
  #hidden: string[] = [];
  /** Messages in the response queue, by the generation's account: not known to be read. */
  #inQueue = new Set<string>();
  /** Messages that wait, by sender. */
  #waiting: string[][] = [[], []];
  #paused: [number, number] | undefined;
  #serial = 0;
  #heardBefore: number[] = [0, 0];

  constructor() {
    this.#boot();
  }

  send(sender: 0 | 1): void {
    const text = `${sender}-${this.#serial++}`;
    const code = this.senders[sender]?.send(text);
    if (code === "sent") this.#inQueue.add(text);
    else if (code === "queued") this.#waiting[sender]?.push(text);
    else throw new Error(`${code}`);
    if (code === "queued") expect(this.#paused !== undefined || this.#isBusy()).toBe(true);
    this.#compare();
  }

  /** The driver reads a message. */
  read(): void {
    if (this.#paused !== undefined) return;
    const head = this.#driver.response.popUsed();
    if (head === -1) return;
    const address = this.#out.get(head) ?? 0;
    this.#out.delete(head);
    this.#addresses.push(address);
    const bytes = this.#driver.bytes(address, 64);
    this.#read.push({ head, text: bytes.subarray(16, 16 + bytes.readUInt16LE(12)).toString() });
  }

  /** The driver posts a buffer, shown or not. */
  post(shown: boolean): void {
    if (this.#paused !== undefined) return;
    const address = this.#addresses.pop();
    if (address !== undefined) {
      const head = this.#driver.response.add(address, 64, true);
      this.#out.set(head, address);
      const found = this.#read.findIndex((each) => each.head === head);
      if (found !== -1) this.#hidden.push(...this.#read.splice(found, 1).map(({ text }) => text));
    }
    if (!shown) return;
    this.#driver.response.publish();
    for (const text of this.#hidden.splice(0)) this.#inQueue.delete(text);
  }

  kick(): void {
    this.#driver.kick(RESPONSE_QUEUE);
    this.#compare();
  }

  pause(): void {
    this.#paused ??= stop(this.device);
    this.#compare();
  }

  resume(): void {
    if (this.#paused === undefined) return;
    this.#driver.start(this.#paused);
    this.#paused = undefined;
    this.#compare();
  }

  reset(how: "crash" | "stop" | "new driver"): void {
    const { generation } = this.device;
    if (how === "stop") this.device.stop();
    if (how === "new driver") {
      if (this.#paused === undefined) this.device.stop();
    } else {
      this.device.reset();
      expect(this.device.generation).toBe(generation + 1);
    }
    const expected = new Map(this.#told);
    const tell = (text: string, what: string) => expected.set(text, [...(expected.get(text) ?? []), what]);
    for (const text of this.#inQueue) tell(text, "unconfirmed");
    for (const text of this.#waiting.flat()) tell(text, "guest-gone");
    this.#boot();
    expect(this.device.generation).toBe(generation + 1);
    this.#waiting = [[], []];
    this.#compare();
    expect(Object.fromEntries(this.#told)).toEqual(Object.fromEntries(expected));
  }

  #boot(): void {
    this.#out.clear();
    this.#read = [];
    this.#hidden = [];
    this.#paused = undefined;
    const driver = new Driver(this.device, { size: SIZE, nameService: false });
    this.#driver = driver;
    this.#addresses = Array.from({ length: SIZE }, () => driver.allocate(64));
    driver.start();
    driver.kick(RESPONSE_QUEUE);
    driver.offer(GUEST, 9999, "not at 0/0");
    driver.kick(REQUEST_QUEUE);
    this.#inQueue = new Set();
  }

  /** Somebody waits, or no buffer is there. */
  #isBusy(): boolean {
    const waiting = (this.#waiting[0]?.length ?? 0) + (this.#waiting[1]?.length ?? 0);
    return waiting > 1 || this.device.pending > 0;
  }

  /** Takes in what the senders heard since the last look. */
  #compare(): void {
    for (const [i, { heard }] of this.senders.entries()) {
      for (const line of heard.slice(this.#heardBefore[i])) {
        const [what = "", text = ""] = line.replace(/, \d+ bytes$/, "").split(" ");
        if (what === "writable") continue;
        const told = this.#told.get(text) ?? [];
        this.#told.set(text, [...told, what]);
        if (what !== "sent") continue;
        // In order, and once.
        expect(this.#waiting[i]?.shift()).toBe(text);
        this.#inQueue.add(text);
      }
      this.#heardBefore[i] = heard.length;
    }
  }
}

describe("whatever the driver does", () => {
  const commands = fc.array(
    fc.oneof(
      { weight: 6, arbitrary: fc.constantFrom(0 as const, 1 as const).map((i) => (m: Model) => m.send(i)) },
      { weight: 5, arbitrary: fc.constant((m: Model) => m.read()) },
      { weight: 6, arbitrary: fc.boolean().map((shown) => (m: Model) => m.post(shown)) },
      { weight: 3, arbitrary: fc.constant((m: Model) => m.kick()) },
      { weight: 1, arbitrary: fc.constant((m: Model) => m.pause()) },
      { weight: 1, arbitrary: fc.constant((m: Model) => m.resume()) },
      {
        weight: 1,
        arbitrary: fc.constantFrom("crash", "stop", "new driver").map((how) => (m: Model) => m.reset(how)),
      },
    ),
    { maxLength: 120 },
  );

  test("a message is told of once, and at a reset exactly the unread ones are unconfirmed", () => {
    fc.assert(
      fc.property(commands, (list) => {
        const model = new Model();
        for (const command of list) command(model);
        model.reset("crash");
      }),
      { numRuns: 400 },
    );
    // Some seconds of computing, which is a multiple of that on a machine that is busy with other suites.
  }, 60_000);
});
