import { subscribe, unsubscribe } from "node:diagnostics_channel";
import type { Socket } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import { WebSocket } from "ws";
import type { ServiceContext } from "../../guest/index.ts";
import { EmulatedGuest } from "../../guest/index.ts";
import type { EndpointCounters, SlowPolicy } from "../../schemas/index.ts";
import { ServerFrame } from "../../schemas/index.ts";
import { emulatedBridge, MuxClient, parseControl, parseMessage } from "./mux-client.ts";
import { opcode, RawClient } from "./raw-client.ts";
import { eventually } from "./support.ts";

const LIMIT = 65_536;
/** What one turn of the event loop brings at most: the 256 buffers of the guest, as frames of whatever protocol. */
const TURN = 256 * 800;
const SIZE = 496;
/** More than the buffers of the kernel take on both sides. */
const BURST = 60_000;
/** The same, for a guest that is held now and then, which takes longer. */
const HELD_BURST = 30_000;

type Protocol = "raw" | "json" | "mux";

/** In order: the number of a message of the burst, or what was told of those that were dropped. */
type Heard = { message: number; seq?: number } | { dropped: number };

/** A client that stops reading and goes on, over one of the subprotocols. */
interface SlowClient {
  readonly heard: Heard[];
  readonly start: (count: number) => void;
  readonly pause: () => void;
  readonly resume: () => void;
  /** How it was told that it is too slow: a close code, or that of `unsubscribed`. */
  readonly slow: Promise<number | string>;
  /** Bytes that wait in the bridge. */
  readonly waiting: () => number;
}

/** The bridge's end of the connection that was made last. */
let latest: Socket | undefined;

function watchSockets(): void {
  const onSocket = (message: unknown) => {
    latest = (message as { socket: Socket }).socket;
  };
  subscribe("net.server.socket", onSocket);
  onTestFinished(() => {
    unsubscribe("net.server.socket", onSocket);
  });
}

async function open(protocol: Protocol, url: string, policy: SlowPolicy): Promise<SlowClient> {
  const path = `/ws/v1/demo/source?slow=${policy}`;
  const heard: Heard[] = [];
  const burst = (count: number) => Buffer.from(`${count} ${SIZE}`);
  const number = (bytes: Buffer) => {
    expect(bytes.length).toBe(SIZE);
    const message = bytes.readUInt32LE(0);
    expect(bytes[SIZE - 1]).toBe(message & 0xff);
    return message;
  };
  if (protocol === "raw") {
    const client = await RawClient.open(url, path);
    const { frames, socket } = client;
    const near = latest;
    frames.push = (...more) => {
      for (const each of more)
        if (each.opcode === opcode.binary) heard.push({ message: number(each.payload) });
      return Array.prototype.push.apply(
        frames,
        more.filter((each) => each.opcode !== opcode.binary),
      );
    };
    return {
      heard,
      start: (count) => client.send(opcode.binary, burst(count)),
      pause: () => socket.pause(),
      resume: () => socket.resume(),
      slow: client.closeCode().catch(() => "ended"),
      waiting: () => near?.writableLength ?? 0,
    };
  }
  const json = protocol === "json";
  const socket = new WebSocket(
    `${url.replace("http", "ws")}${json ? `${path}&encoding=base64` : "/ws/v1"}`,
    [`rpmsg.v1.${protocol}`],
    { perMessageDeflate: false },
  );
  onTestFinished(() => socket.terminate());
  let tell: (code: number | string) => void = () => {};
  let ready: () => void = () => {};
  const isReady = new Promise<void>((resolve) => {
    ready = resolve;
  });
  const slow = new Promise<number | string>((resolve) => {
    tell = resolve;
  });
  socket.on("close", (code) => tell(code));
  socket.on("open", () => {
    if (!json) socket.send(JSON.stringify({ type: "subscribe", sub: 1, path }));
  });
  socket.on("message", (data: Buffer, isBinary) => {
    if (isBinary) {
      const { seq, bytes } = parseMessage(data);
      heard.push({ message: number(bytes), seq });
      return;
    }
    const frame = json ? ServerFrame.parse(JSON.parse(data.toString())) : parseControl(data);
    if (frame.type === "dropped") heard.push({ dropped: frame.count });
    else if (frame.type === "message")
      heard.push({ message: number(Buffer.from(frame.data, "base64")), seq: frame.seq });
    else if (frame.type === "unsubscribed") tell(frame.code ?? "");
    else if (frame.type === (json ? "hello" : "subscribed")) ready();
  });
  await isReady;
  const near = latest;
  return {
    waiting: () => near?.writableLength ?? 0,
    heard,
    start: (count) => {
      const header = Buffer.from("01000000ffffffff00000000", "hex");
      const send = (): string | Buffer =>
        json
          ? JSON.stringify({ type: "send", data: burst(count).toString() })
          : Buffer.concat([header, burst(count)]);
      socket.send(send());
    },
    pause: () => socket.pause(),
    resume: () => socket.resume(),
    slow,
  };
}

/** A client that does not read while a burst comes; `until` says when it has come. */
async function stuck(
  protocol: Protocol,
  policy: SlowPolicy,
  until: (counters: EndpointCounters, clients: number, waiting: number) => boolean,
  limits: Record<string, number> = {},
  count = BURST,
) {
  watchSockets();
  const { url, endpoint } = await emulatedBridge(
    { demo: new EmulatedGuest() },
    { limits: { slowReaderBytes: LIMIT, ...limits } },
  );
  const client = await open(protocol, url, policy);
  client.pause();
  client.start(count);
  let most = 0;
  await endpoint("source", ({ counters, clients }) => {
    most = Math.max(most, client.waiting());
    return until(counters, clients, client.waiting());
  });
  return { client, endpoint, most, url };
}

/** All that a client heard, checked: in order, and every gap told where it is told of at all. */
function account({ heard }: SlowClient, isTold: boolean): { numbers: number[]; told: number } {
  const numbers: number[] = [];
  let next = 0;
  let told = 0;
  for (const each of heard) {
    if ("dropped" in each) {
      told += each.dropped;
      next += each.dropped;
      continue;
    }
    if (isTold) expect(each).toEqual({ message: next, seq: next + 1 });
    else expect(each.message).toBeGreaterThanOrEqual(next);
    next = each.message + 1;
    numbers.push(each.message);
  }
  return { numbers, told };
}

/** How often clients held a guest for longer than they may. */
async function pauseTimeouts(url: string): Promise<number> {
  const metrics = await (await fetch(`${url}/metrics`)).text();
  return Number(/^rpmsg_bridge_limit_reached_total\{limit="pauseTimeout"\} (\d+)$/m.exec(metrics)?.[1]);
}

describe.each(["raw", "json", "mux"] as const)("a %s client that does not read", (protocol) => {
  const isTold = protocol !== "raw";

  test("close: it is told that it was too slow, after a beginning without a gap", async () => {
    const { client, endpoint, most, url } = await stuck(
      protocol,
      "close",
      (_counters, clients) => clients === 0,
    );
    expect(most).toBeGreaterThan(0);
    expect(most).toBeLessThan(LIMIT + TURN);
    client.resume();
    expect(await client.slow).toBe(protocol === "mux" ? "slow-reader" : 1013);
    const { numbers } = account(client, isTold);
    expect(numbers).toEqual(numbers.map((_, i) => i));
    // What fits the limit came, besides what the kernel had.
    expect(numbers.length).toBeGreaterThan(LIMIT / 1000);
    expect(numbers.length).toBeLessThan(BURST);
    expect((await endpoint("source")).counters).toMatchObject({ dropped: 0 });
    expect(await pauseTimeouts(url)).toBe(0);
  });

  test("drop-oldest: the newest arrive, in order, each gap told in its place and counted", async () => {
    const { client, endpoint, most } = await stuck(
      protocol,
      "drop-oldest",
      (counters) => counters.messagesFromGuest === BURST,
    );
    expect(most).toBeLessThan(LIMIT + TURN);
    client.resume();
    await eventually("the last message", () => {
      const last = client.heard.at(-1);
      return last !== undefined && "message" in last && last.message === BURST - 1 ? true : undefined;
    });
    const { numbers, told } = account(client, isTold);
    const { counters } = await endpoint("source");
    expect(counters.messagesToClients).toBe(BURST);
    expect(counters.dropped).toBe(BURST - numbers.length);
    expect(counters.dropped).toBeGreaterThan(0);
    expect(told).toBe(isTold ? counters.dropped : 0);
    // All that fits the limit is the newest.
    const newest = Math.floor(LIMIT / (SIZE + 16));
    expect(numbers.slice(-newest)).toEqual(Array.from({ length: newest }, (_, i) => BURST - newest + i));
    expect((await endpoint("source")).clients).toBe(1);
  });

  test("drop-newest: the oldest arrive, in order, each gap told in its place and counted", async () => {
    const { client, endpoint, most } = await stuck(
      protocol,
      "drop-newest",
      (counters) => counters.messagesFromGuest === BURST,
    );
    expect(most).toBeLessThan(LIMIT + TURN);
    client.resume();
    const { counters } = await endpoint("source");
    expect(counters.dropped).toBeGreaterThan(0);
    await eventually("all that is left", () =>
      client.heard.filter((each) => "message" in each).length === BURST - counters.dropped ? true : undefined,
    );
    if (isTold) {
      await eventually("the last gap", () =>
        account(client, true).told === counters.dropped ? true : undefined,
      );
    }
    const { numbers } = account(client, isTold);
    // All that fits the limit is the oldest, whatever the kernel took besides.
    const oldest = Math.floor(LIMIT / 1000);
    expect(numbers.slice(0, oldest)).toEqual(Array.from({ length: oldest }, (_, i) => i));
    expect(numbers.at(-1)).toBeLessThan(BURST - 1);
    expect(counters.messagesToClients).toBe(BURST);
    // It is a client like any other when it reads again.
    client.start(10);
    await eventually("ten more", () =>
      client.heard.slice(-10).every((each, i) => "message" in each && each.message === i) ? true : undefined,
    );
  });

  test("pause: the guest is held, and a client that reads again in time loses nothing", async () => {
    let last = 0;
    const { client, endpoint, most } = await stuck(
      protocol,
      "pause",
      ({ messagesFromGuest }, _clients, waiting) => {
        const held = messagesFromGuest > 0 && messagesFromGuest === last && waiting > LIMIT;
        last = messagesFromGuest;
        return held;
      },
      { pauseTimeout: 60_000 },
      HELD_BURST,
    );
    expect(most).toBeLessThan(LIMIT + TURN);
    expect(last).toBeLessThan(HELD_BURST);
    client.resume();
    await eventually("everything", () => (client.heard.length === HELD_BURST ? true : undefined));
    expect(account(client, isTold).numbers).toEqual(Array.from({ length: HELD_BURST }, (_, i) => i));
    expect((await endpoint("source")).counters).toMatchObject({
      messagesFromGuest: HELD_BURST,
      messagesToClients: HELD_BURST,
      dropped: 0,
    });
  });

  test("pause: one that does not is told that it was too slow, and the guest goes on", async () => {
    const { client, endpoint, url } = await stuck(protocol, "pause", (_counters, clients) => clients === 0, {
      pauseTimeout: 50,
    });
    await endpoint("source", ({ counters }) => counters.messagesFromGuest + counters.noClient > 0);
    client.resume();
    expect(await client.slow).toBe(protocol === "mux" ? "slow-reader" : 1013);
    const { numbers } = account(client, isTold);
    expect(numbers).toEqual(numbers.map((_, i) => i));
    expect(await pauseTimeouts(url)).toBe(1);
  });
});

test("slow=pause holds all clients of that guest, and none of another one", async () => {
  watchSockets();
  const { url, connect, endpoint } = await emulatedBridge(
    { demo: new EmulatedGuest(), other: new EmulatedGuest() },
    { limits: { slowReaderBytes: LIMIT, pauseTimeout: 60_000 } },
  );
  const [same, different] = [await connect("/ws/v1/demo/echo"), await connect("/ws/v1/other/echo")];
  const client = await open("raw", url, "pause");
  client.pause();
  client.start(BURST);
  let last = 0;
  await endpoint("source", ({ guest, counters }) => {
    const held = guest === "demo" && counters.messagesFromGuest === last && client.waiting() > LIMIT;
    if (guest === "demo") last = counters.messagesFromGuest;
    return held;
  });
  same.send("held");
  // The guest has taken it, but its answer stays with it.
  await endpoint("echo", ({ guest, counters }) => guest === "demo" && counters.messagesToGuest === 1);
  for (let i = 0; i < 200; i++) {
    different.send(`${i}`);
    expect(await different.text()).toBe(`${i}`);
  }
  expect(same.received).toBe(0);
  client.resume();
  expect(await same.text()).toBe("held");
});

test("subscriptions of one connection have policies of their own", async () => {
  const { url, endpoint } = await emulatedBridge(
    { demo: new EmulatedGuest() },
    { limits: { slowReaderBytes: LIMIT } },
  );
  const client = await MuxClient.open(url);
  const policies = ["drop-oldest", "drop-newest", "close"] as const;
  for (const [sub, policy] of policies.entries()) {
    await client.subscribed(sub, `/ws/v1/demo/source?slow=${policy}`, 0);
    client.send(sub, `1000 ${SIZE}`);
  }
  const fit = Math.floor(LIMIT / (SIZE + 16));
  // All that waited for the one that is closed is dropped, too.
  await endpoint("source", ({ counters }) => counters.dropped === 2 * (1000 - fit) + fit + 1);
  expect(await client.take("unsubscribed")).toMatchObject({ sub: 2, code: "slow-reader" });
  for (const sub of [0, 1]) client.control({ type: "credit", sub, bytes: 10 ** 6 });
  await client.settled();
  const numbers = (sub: number) =>
    client.of(sub).flatMap((each) => (each.type === "message" ? [each.bytes.readUInt32LE(0)] : []));
  expect(numbers(0)).toEqual(Array.from({ length: fit }, (_, i) => 1000 - fit + i));
  expect(numbers(1)).toEqual(Array.from({ length: fit }, (_, i) => i));
  const told = (sub: number) =>
    client.of(sub).flatMap((each) => (each.type === "dropped" ? [each.count] : []));
  expect([told(0), told(1)]).toEqual([[1000 - fit], [1000 - fit]]);
});

test("messages of many subscriptions that wait are no answers: a client that is paused for them may go on asking", async () => {
  const guests = { a: new EmulatedGuest(), b: new EmulatedGuest(), c: new EmulatedGuest() };
  const { url, endpoints } = await emulatedBridge(guests, {
    limits: { slowReaderBytes: LIMIT, pauseTimeout: 60_000 },
  });
  watchSockets();
  const client = await MuxClient.open(url);
  const near = latest;
  for (const [sub, guest] of Object.keys(guests).entries()) {
    await client.subscribed(sub, `/ws/v1/${guest}/source?slow=pause`);
  }
  client.socket.pause();
  // One after another is held; in the end more waits than answers may.
  for (const [sub, name] of Object.keys(guests).entries()) {
    client.send(sub, `${HELD_BURST} ${SIZE}`);
    let last = 0;
    await eventually(`guest ${name} is held`, async () => {
      const source = (await endpoints()).find((each) => each.guest === name && each.name === "source");
      const came = source?.counters.messagesFromGuest ?? 0;
      const isHeld = came > 0 && came === last && (near?.writableLength ?? 0) > (sub + 1) * LIMIT;
      last = came;
      return isHeld ? true : undefined;
    });
  }
  client.control({ type: "credit", sub: 0, bytes: 1 });
  client.control({ type: "ping" });
  client.socket.resume();
  await client.takeMany(3 * HELD_BURST, "message");
  expect(client.frames.map((each) => each.type)).toEqual(["pong"]);
});

test("a subscription is no slow reader for what another one of its connection brought", async () => {
  // Two services in one guest, of which the second one always sends behind the first.
  const contexts: ServiceContext[] = [];
  const listeners: number[] = [];
  const listen = (context: ServiceContext) => {
    contexts.push(context);
    return {
      onMessage: (src: number) => {
        listeners[contexts.indexOf(context)] = src;
        return true;
      },
    };
  };
  const quiet = new EmulatedGuest({ services: { first: listen, second: listen } });
  const { url, endpoint, endpoints } = await emulatedBridge(
    { loud: new EmulatedGuest(), quiet },
    { limits: { slowReaderBytes: LIMIT, pauseTimeout: 60_000 } },
  );
  watchSockets();
  const client = await MuxClient.open(url);
  const near = latest;
  for (const [sub, path] of ["loud/source?slow=pause", "quiet/first", "quiet/second"].entries()) {
    await client.subscribed(sub, `/ws/v1/${path}`);
    if (sub > 0) client.send(sub, "I listen");
  }
  const send = async (from: number) => {
    const [context, dst] = [contexts[from], listeners[from] ?? 0];
    await eventually("a buffer", () => (context?.send(dst, Buffer.alloc(SIZE)) ? true : undefined));
  };
  await eventually("both listen", () => (listeners.filter(Boolean).length === 2 ? true : undefined));
  // More than the limit for the second one, all of which the client reads.
  for (let i = 0; i < (2 * LIMIT) / SIZE; i++) {
    await send(0);
    await send(1);
  }
  await endpoint("second", ({ counters }) => counters.messagesFromGuest > (2 * LIMIT) / SIZE);
  await client.settled();
  client.socket.pause();
  client.send(0, `${HELD_BURST} ${SIZE}`);
  await eventually("the loud one is held", async () => {
    await endpoints();
    return (near?.writableLength ?? 0) > LIMIT ? true : undefined;
  });
  await send(0);
  await send(1);
  await endpoint("second", ({ counters }) => counters.messagesFromGuest > (2 * LIMIT) / SIZE + 1);
  client.socket.resume();
  await client.takeMany(HELD_BURST, "message", 0);
  expect(client.frames.filter((each) => each.type === "unsubscribed")).toEqual([]);
});
