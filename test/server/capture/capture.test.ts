import { once } from "node:events";
import { get } from "node:http";
import { Socket } from "node:net";
import { PassThrough, Writable } from "node:stream";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { service } from "../../../guest/index.ts";
import { Permit } from "../../../server/access/permit.ts";
import { Capture } from "../../../server/capture/capture.ts";
import type { CapturedItem } from "../../../server/capture/pcapng-reader.ts";
import { PcapngReader } from "../../../server/capture/pcapng-reader.ts";
import type { EndpointPort } from "../../../server/endpoint-port.ts";
import { titled, unsupported } from "../../rpmsg/posix/support.ts";
import type { Client, RunningBridge } from "../support.ts";
import { eventually, reached, testBridge } from "../support.ts";
import { allRights, testToken } from "../tokens.ts";
import { vhostBridge } from "../vhost-guest.ts";
import { Captured } from "./support.ts";

/** How often a message was left out of a capture. */
const leftOut = (running: RunningBridge): number => reached(running, "captureBytes");

/** A capture that nobody reads any more: all that may wait for its reader does. */
async function unread(running: RunningBridge, headers: Record<string, string> = {}): Promise<Captured> {
  const before = leftOut(running);
  const captured = await Captured.start(running.url, "", headers);
  captured.pause();
  const client = await running.connect("/ws/v1/demo/source");
  // One turn's fits: what is left out is more than the system keeps for the connection. Or it has ended before.
  while (leftOut(running) < before + 500 && running.bridge.captures.size > 0) {
    client.send("100 496");
    await client.take(100);
  }
  await client.close();
  return captured;
}

/** To whom and what, of messages that are text. */
function texts({ messages }: Captured): string[] {
  return messages
    .filter(({ nameService }) => nameService === undefined)
    .map(({ endpoint, toGuest, payload }) => `${endpoint} ${toGuest ? "<" : ">"} ${payload.toString()}`);
}

describe("GET /api/v1/capture", () => {
  test("has names, addresses, directions, payloads and times of what goes through the rings", async () => {
    const before = BigInt(Date.now()) * 1_000_000n;
    const running = await testBridge();
    const captured = await Captured.start(running.url);
    const client = await running.connect("/ws/v1/demo/echo?local=2000");
    client.send("hello");
    expect(await client.text()).toBe("hello");
    await captured.until("both are there", () => captured.messages.length === 2);
    const { address } = await running.endpoint("echo");
    const about = { guest: "demo", endpoint: "echo", origin: "guest", payload: Buffer.from("hello") };
    expect(captured.messages).toMatchObject([
      { ...about, toGuest: true, src: 2000, dst: address },
      { ...about, toGuest: false, src: address, dst: 2000 },
    ]);
    const times = captured.messages.map(({ time }) => time);
    const after = BigInt(Date.now() + 1) * 1_000_000n;
    expect([before, ...times, after]).toEqual([before, ...times, after].toSorted((a, b) => (a < b ? -1 : 1)));
    // As fine as the clock, and not of whole milliseconds.
    expect(times.some((time) => time % 1_000_000n !== 0n)).toBe(true);
  });

  test("has as many messages and bytes as the counters say, with name service", async () => {
    const running = await testBridge();
    const captured = await Captured.start(running.url);
    const before = (await running.guest("demo")).counters;
    const source = await running.connect("/ws/v1/demo/source");
    source.send("500 100");
    for (let i = 0; i < 500; i++) await source.next();
    await source.close();
    const { bridge } = running;
    const service = bridge.announce("demo", "told", 3000);
    bridge.withdraw(service);
    await captured.until("it is withdrawn", () =>
      captured.messages.some(({ nameService }) => nameService?.created === false),
    );
    const after = (await running.guest("demo")).counters;
    const { messages } = captured;
    for (const [toGuest, way] of [
      [true, "ToGuest"],
      [false, "FromGuest"],
    ] as const) {
      const own = messages.filter((each) => each.toGuest === toGuest && each.comments.length === 0);
      expect(own).toHaveLength(after[`messages${way}`] - before[`messages${way}`]);
      const bytes = own.reduce((sum, { payload }) => sum + payload.length, 0);
      expect(bytes).toBe(after[`bytes${way}`] - before[`bytes${way}`]);
    }
    const { counters } = await running.endpoint("source");
    const ofSource = messages.filter(({ endpoint }) => endpoint === "source");
    expect(ofSource.filter(({ toGuest }) => toGuest)).toHaveLength(counters.messagesToGuest);
    expect(ofSource.filter(({ toGuest }) => !toGuest)).toHaveLength(counters.messagesFromGuest);
    expect(messages.flatMap(({ nameService }) => nameService ?? [])).toEqual([
      { name: "told", address: 3000, created: true },
      { name: "told", address: 3000, created: false },
    ]);
  });

  test("has what nobody takes, and says so", async () => {
    const running = await testBridge();
    const captured = await Captured.start(running.url, "guest=demo");
    const client = await running.connect("/ws/v1/demo/sensor?local=2000");
    client.send("start 1000");
    await client.next();
    await client.close();
    await captured.until("one is for nobody", () =>
      captured.captured.some(({ comments }) => comments.length > 0),
    );
    const [late] = captured.captured.filter(({ comments }) => comments.length > 0);
    expect(late).toMatchObject({
      interface: { name: "demo" },
      toGuest: false,
      comments: ["unknown address: nobody has 2000; dropped"],
    });
  });

  test("of one endpoint, what goes there and its announcements", async () => {
    const running = await testBridge();
    const captured = await Captured.start(running.url, "guest=demo&name=echo");
    const echo = await running.connect("/ws/v1/demo/echo");
    const tty = await running.connect("/ws/v1/demo/tty");
    tty.send("help\n");
    await tty.next();
    echo.send("this");
    await echo.next();
    const { bridge } = running;
    bridge.announce("demo", "other", undefined);
    bridge.announce("demo", "echo", 3000);
    await captured.until("it is announced", () => captured.messages.length === 4);
    expect(texts(captured).slice(0, 2)).toEqual(["echo < this", "echo > this"]);
    expect(captured.messages[2]?.nameService).toEqual({ name: "echo", address: 3000, created: true });
    // The guest's half of it speaks first.
    expect(captured.messages[3]).toMatchObject({ endpoint: "echo", origin: "host", dst: 3000 });
  });

  test("shows that it is there while nothing comes, and the system asks for the client", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
    onTestFinished(() => void vi.useRealTimers());
    const probes = vi.spyOn(Socket.prototype, "setKeepAlive");
    onTestFinished(() => probes.mockRestore());
    const running = await testBridge();
    const captured = await Captured.start(running.url, "name=echo");
    expect(probes).toHaveBeenCalledWith(true, 10_000);
    vi.advanceTimersByTime(25_000);
    await captured.until("a sign comes", () => captured.items.length === 2);
    expect(captured.items[1]).toMatchObject({ kind: "other" });
    const client = await running.connect("/ws/v1/demo/echo");
    client.send("hello");
    await captured.until("both are there", () => captured.messages.length === 2);
    vi.advanceTimersByTime(25_000);
    await captured.until("another one", () => captured.statistics["demo/echo"] !== undefined);
    expect(captured.statistics).toEqual({ "demo/echo": { received: 2, dropped: 0 } });
  });

  test.each([
    { query: "guest=nobody", status: 404, code: "guest-unknown" },
    { query: "what=ever", status: 400, code: "bad-request" },
    { query: "address=much", status: 400, code: "bad-request" },
  ])("$query: $code", async ({ query, status, code }) => {
    const { url } = await testBridge();
    const response = await fetch(`${url}/api/v1/capture?${query}`);
    expect(response.status).toBe(status);
    expect(await response.json()).toMatchObject({ code });
  });

  test("a HEAD has the head, and starts none", async () => {
    const running = await testBridge();
    const response = await fetch(`${running.url}/api/v1/capture`, { method: "HEAD" });
    expect(response.headers.get("content-type")).toBe("application/x-pcapng");
    expect(running.bridge.captures.size).toBe(0);
  });

  test("one more than may be is refused; when one leaves there is room", async () => {
    const running = await testBridge({ limits: { captures: 1 } });
    const captured = await Captured.start(running.url);
    expect((await fetch(`${running.url}/api/v1/capture`)).status).toBe(503);
    expect(reached(running, "captures")).toBe(1);
    captured.leave();
    await eventually("it is gone", () => (running.bridge.captures.size === 0 ? true : undefined));
    await Captured.start(running.url);
  });

  test("ends in good order with the bridge, after all that clients had sent", async () => {
    const running = await testBridge();
    const captured = await Captured.start(running.url);
    const client = await running.connect("/ws/v1/demo/sink");
    for (let i = 0; i < 100; i++) client.send("x".repeat(400));
    await client.close();
    await running.bridge.drain();
    await captured.end();
    expect(captured.whole).toBe(true);
    expect(captured.messages.filter(({ endpoint }) => endpoint === "sink")).toHaveLength(100);
    expect(captured.statistics).toEqual({ "demo/sink": { received: 100, dropped: 0 } });
  });
});

test("a hand-over ends it in good order; the bridge that goes on after all can be captured anew", async () => {
  const running = await testBridge();
  const captured = await Captured.start(running.url);
  running.bridge.announce("demo", "svc", undefined);
  await captured.until("the guest speaks", () => captured.messages.length === 2);
  await running.bridge.suspend(2000);
  await captured.end();
  expect(captured.whole).toBe(true);
  expect(captured.statistics).toEqual({
    demo: { received: 1, dropped: 0 },
    "demo/svc": { received: 1, dropped: 0 },
  });
  running.bridge.resume();
  await Captured.start(running.url);
});

describe("a reader that is too slow", () => {
  test("for one burst hears of it at once, without another message", async () => {
    const running = await testBridge({ limits: { captureBytes: 65_536 } });
    const captured = await Captured.start(running.url);
    captured.pause();
    const client = await running.connect("/ws/v1/demo/source");
    // Each is one turn's: what the system keeps for the connection is full at some time, and some of them are too large.
    while (leftOut(running) === 0) {
      client.send("200 496");
      for (let each = 0; each < 200; each++) await client.next();
    }
    captured.resume();
    await captured.until(
      "it is told",
      () => captured.statistics["demo/source"]?.dropped === leftOut(running),
    );
    const { received = 0, dropped = 0 } = captured.statistics["demo/source"] ?? {};
    expect(captured.messages).toHaveLength(received - dropped);
  });

  test("holds up nobody; what it misses is counted in the file, and it goes on", async () => {
    const running = await testBridge({ limits: { captureBytes: 65_536 } });
    const captured = await Captured.start(running.url);
    captured.pause();
    const client = await running.connect("/ws/v1/demo/source");
    let total = 0;
    // Until it is more than the system keeps for the connection.
    while (leftOut(running) < 1000) {
      client.send("2000 496");
      for (let each = 0; each < 2000; each++) await client.next();
      total += 2001;
    }
    captured.resume();
    await captured.until("it is told", () => captured.statistics["demo/source"] !== undefined);
    client.send("1 9");
    await captured.until("it goes on", () => captured.messages.at(-1)?.payload.length === 9);
    await running.bridge.drain();
    await captured.end();
    const { received = 0, dropped = 0 } = captured.statistics["demo/source"] ?? {};
    expect(dropped).toBeGreaterThanOrEqual(1000);
    expect(received).toBe(total + 2);
    expect(captured.messages).toHaveLength(received - dropped);
    expect(leftOut(running)).toBe(dropped);
  });
});

describe("of ever new endpoints", () => {
  /** A capture of a message of each of so many endpoints. */
  function captureOf(endpoints: number, out: Writable, limit: number): Capture {
    const permit = Permit.ofAll(false);
    const capture = new Capture(out, "", { filter: {}, permit, limit, onDropped() {}, onWaiting() {} });
    const packet = Buffer.alloc(16);
    const facts = { toGuest: false, outcome: "passed", dst: 1024, originalLength: 16 } as const;
    for (let i = 0; i < endpoints; i++) {
      const endpoint = { guest: "vm", name: `endpoint-${i}`, origin: "guest", address: 1024 + i };
      capture.take(
        "vm",
        { ...facts, packet, length: 16 },
        { generation: 1, endpoint: endpoint as unknown as EndpointPort, announced: undefined },
      );
    }
    return capture;
  }

  test("no more waits for a reader than may", () => {
    const out = new Writable({ write() {} });
    captureOf(4000, out, 65_536);
    expect(out.writableLength).toBeGreaterThan(32_768);
    expect(out.writableLength).toBeLessThanOrEqual(65_536 + 100);
  });

  test("there are so many interfaces; the rest is counted for the guest", async () => {
    const out = new PassThrough({ highWaterMark: 2 ** 24 });
    await captureOf(4100, out, 2 ** 24).end();
    const items = new PcapngReader().read(out.read() as Buffer);
    expect(items.filter(({ kind }) => kind === "message")).toHaveLength(4096);
    const counts = items.flatMap((item) => (item.kind === "statistics" ? [item] : []));
    expect(counts).toHaveLength(4097);
    expect(counts.find((each) => each.interface.name === "vm")).toMatchObject({ received: 4, dropped: 4 });
  });

  test("what was left out is told of each as soon as there is room", async () => {
    const waiting: (() => void)[] = [];
    const items: CapturedItem[] = [];
    const reader = new PcapngReader();
    const out = new Writable({
      write(part: Buffer, _encoding, done) {
        items.push(...reader.read(part));
        waiting.push(done);
      },
    });
    const capture = captureOf(4000, out, 65_536);
    const counts = () =>
      items.flatMap((item) => (item.kind === "statistics" ? [`${item.received} ${item.dropped}`] : []));
    await eventually("all is told", () => {
      waiting.shift()?.();
      expect(out.writableLength).toBeLessThanOrEqual(65_536 + 100);
      const messages = items.filter(({ kind }) => kind === "message");
      return messages.length + counts().length === 4000 ? true : undefined;
    });
    expect(new Set(counts())).toEqual(new Set(["1 1"]));
    void capture.end();
  });
});

describe("a reader that reads nothing any more", () => {
  /** More than a test may take: nobody waits for it. */
  const LONG = 600_000;
  const limits = { captureBytes: 65_536, drainTimeout: LONG };

  test("holds up neither a hand-over nor the end", async () => {
    const running = await testBridge({ limits });
    const first = await unread(running);
    await running.bridge.suspend(LONG);
    first.resume();
    await first.end();
    expect(first.whole).toBe(false);
    await eventually("it is gone", () => (running.bridge.captures.size === 0 ? true : undefined));
    running.bridge.resume();
    const second = await unread(running);
    await running.bridge.drain();
    second.resume();
    await second.end();
    expect(second.whole).toBe(false);
  });

  test("loses its place with its token", async () => {
    const soon = testToken("soon", { read: ["*/*"] }, Date.now() + 3000);
    const all = allRights();
    const tokens = [soon.config, all.config];
    const running = await testBridge(
      { tokens, limits: { ...limits, responseTimeout: 50 } },
      undefined,
      all.headers,
    );
    const captured = await unread(running, soon.headers);
    await eventually("it is gone", () => (running.bridge.captures.size === 0 ? true : undefined));
    captured.resume();
    await captured.end();
    expect(captured.whole).toBe(false);
  });
});

describe("what a token may not read is left out", () => {
  const may = testToken("some", { read: ["demo/echo"], write: ["demo/*"], list: ["demo/*"] });
  const blind = testToken("blind", { list: ["*/*"], write: ["*/*"] });

  test("endpoints, their names, and what is for none", async () => {
    const running = await testBridge({ tokens: [may.config] }, undefined, may.headers);
    const captured = await Captured.start(running.url, "", may.headers);
    const { bridge } = running;
    bridge.announce("demo", "hidden", undefined);
    const sink = bridge.directory.find("demo", { name: "sink" });
    expect(sink).toBeDefined();
    const response = await fetch(
      `${running.url}/api/v1/guests/demo/endpoints/${bridge.directory.idOf(sink as NonNullable<typeof sink>)}/messages`,
      { method: "POST", headers: { ...may.headers, "content-type": "application/octet-stream" }, body: "x" },
    );
    expect(response.status).toBe(202);
    // Readings that find nobody any more.
    const sensor = await running.connect("/ws/v1/demo/sensor");
    sensor.send("start 1000");
    await running.endpoint("sensor", ({ counters }) => counters.messagesFromGuest > 0);
    await sensor.close();
    await eventually("one is for nobody", () =>
      bridge.guest("demo").counters.unknownAddress > 0 ? true : undefined,
    );
    const client = await running.connect("/ws/v1/demo/echo");
    client.send("seen");
    await client.next();
    await captured.until("both are there", () => captured.messages.length >= 2);
    expect(texts(captured)).toEqual(["echo < seen", "echo > seen"]);
    expect(captured.items.filter(({ kind }) => kind === "interface")).toHaveLength(1);
  });

  test("another endpoint's messages, where its clients share a local address", async () => {
    const all = allRights();
    const running = await testBridge({ tokens: [may.config, all.config] }, undefined, all.headers);
    const narrow = await Captured.start(running.url, "", may.headers);
    const named = await Captured.start(running.url, "name=echo", all.headers);
    const whole = await Captured.start(running.url, "", all.headers);
    const clients = new Map<string, Client>();
    for (const name of ["echo", "tty"]) {
      clients.set(name, await running.connect(`/ws/v1/demo/${name}?local=2000&share=shared`));
    }
    clients.get("tty")?.send("echo secret\n");
    await clients.get("tty")?.next();
    await clients.get("echo")?.next();
    clients.get("echo")?.send("seen");
    await whole.until("all are there", () => texts(whole).includes("echo > seen"));
    const ofTty = texts(whole).filter((text) => !text.startsWith("echo "));
    expect(ofTty[0]).toBe("tty < echo secret\n");
    expect(ofTty.every((text) => text.startsWith("tty "))).toBe(true);
    for (const each of [narrow, named]) {
      await each.until("both are there", () => texts(each).includes("echo > seen"));
      expect(texts(each)).toEqual(["echo < seen", "echo > seen"]);
    }
    // What is left to one of them is that one's, whoever was first.
    await clients.get("echo")?.close();
    clients.get("tty")?.send("help\n");
    const later = () => texts(whole).slice(texts(whole).indexOf("echo > seen") + 1);
    await whole.until("it answers", () => /tty < help\n,tty >/.test(later().join()));
    expect(later().every((text) => text.startsWith("tty "))).toBe(true);
    expect(narrow.messages).toHaveLength(2);
  });

  test("all of it: 403", async () => {
    const { url } = await testBridge({ tokens: [blind.config] });
    const response = await fetch(`${url}/api/v1/capture`, { headers: blind.headers });
    expect(response.status).toBe(403);
    expect(await response.json()).toMatchObject({ code: "forbidden" });
  });

  test("and it ends with its token, in good order", async () => {
    const soon = testToken("soon", { read: ["*/*"] }, Date.now() + 3000);
    const { url } = await testBridge({ tokens: [soon.config] });
    const captured = await Captured.start(url, "", soon.headers);
    await captured.end();
    expect(captured.whole).toBe(true);
  });
});

describe.skipIf(unsupported !== undefined)(titled("guests behind a socket"), () => {
  test.each(["none", "process"] as const)(
    "isolation %s: every message, and what a new generation begins with",
    { timeout: 60_000 },
    async (isolation) => {
      const running = await vhostBridge({}, { isolation });
      const captured = await Captured.start(running.url);
      const options = {
        services: {
          twice: service(
            () =>
              ({ text, reply }) =>
                void [reply(text), reply(text)],
          ),
        },
      };
      const first = await running.attach(options);
      await running.endpoint("twice");
      const client = await running.connect("/ws/v1/vm/twice");
      client.send("a");
      await client.next();
      await client.next();
      first.vm.close();
      await first.closed;
      await running.attach(options);
      await running.endpoint("twice", ({ generation }) => generation === 2);
      await captured.until(
        "it is announced again",
        () => captured.messages.filter(({ nameService }) => nameService !== undefined).length === 2,
      );
      expect(texts(captured)).toEqual(["twice < a", "twice > a", "twice > a"]);
      expect(captured.captured.flatMap(({ comments }) => comments)).toEqual(["generation 2 of vm"]);
      const { counters } = await running.guest("vm");
      expect(counters).toMatchObject({ messagesToGuest: 1, messagesFromGuest: 4 });
    },
  );
});

test("the code is loaded when the first one is asked for, and the tap is gone with the last", async () => {
  const running = await testBridge();
  const taps: boolean[] = [];
  const { bridge } = running;
  const tap = bridge.tap.bind(bridge);
  bridge.tap = (guest, handler) => {
    taps.push(true);
    const end = tap(guest, handler);
    return () => {
      taps.pop();
      end();
    };
  };
  const captures = await Promise.all([Captured.start(running.url), Captured.start(running.url)]);
  expect(taps).toHaveLength(2);
  for (const each of captures) each.leave();
  await eventually("both are gone", () => (taps.length === 0 ? true : undefined));
  expect(bridge.captures.size).toBe(0);
  const [response] = (await once(get(`${running.url}/healthz`), "response")) as [{ statusCode: number }];
  expect(response.statusCode).toBe(200);
});
