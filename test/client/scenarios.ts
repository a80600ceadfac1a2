/**
 * What the client does with a real bridge and a real guest behind it. The same code runs in Node and in a browser:
 * nothing here is of either.
 */
import type {
  Channel,
  ChannelEvents,
  ConnectOptions,
  Dropped,
  WebSocketConstructor,
} from "../../client/index.ts";
import { connect, guests, list, RpmsgError, watch } from "../../client/index.ts";

/** What happens on the other side when a scenario wants it. */
export type Command =
  | "kill connections" // without a word
  | "freeze connections" // nothing passes any more on those that there are
  | "hold" // what the bridge writes is not read
  | "release"
  | "burst" // until the guest has sent as many messages as BURST says
  | "pause guest"
  | "resume guest"
  | "reboot guest"
  | "withdraw echo"
  | "announce echo"
  | "take echo over"
  | "replace bridge"; // with another process, as far as its clients see

export interface Stage {
  /** `http://HOST:PORT`, or in a browser the page's own origin: "". */
  url: string;
  /** Undefined for the global one. */
  WebSocket: WebSocketConstructor | undefined;
  control: (command: Command) => Promise<void>;
}

/** Messages that are too many for what is between a bridge and a client that does not read. */
export const BURST = 40_000;

type Scenario = (stage: Stage) => Promise<void>;

/** A channel that connects again at once, to an endpoint of the guest `vm`. */
function open({ url, WebSocket }: Stage, endpoint: string, options: ConnectOptions = {}): Promise<Channel> {
  return connect(`${url}/ws/v1/vm/${endpoint}`, {
    ...(WebSocket !== undefined && { WebSocket }),
    reconnect: { minDelay: 1, maxDelay: 50 },
    ...options,
  });
}

function expectEqual(actual: unknown, expected: unknown, what = ""): void {
  const [got, wanted] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (got !== wanted) throw new Error(`${what}: ${got?.slice(0, 500)}, not ${wanted?.slice(0, 500)}`);
}

async function expectCode(promise: Promise<unknown>, ...codes: string[]): Promise<void> {
  const error = await promise.then(
    () => new Error("not rejected"),
    (reason: unknown) => reason,
  );
  if (!(error instanceof RpmsgError) || !codes.includes(error.code)) throw error;
}

function event<Type extends keyof ChannelEvents>(channel: Channel, type: Type): Promise<ChannelEvents[Type]> {
  return new Promise((resolve) => {
    const off = channel.on(type, (value) => {
      off();
      resolve(value);
    });
  });
}

async function texts(channel: Channel, count: number): Promise<string[]> {
  const seen: string[] = [];
  while (seen.length < count) seen.push((await channel.receive()).text);
  return seen;
}

const numbers = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);

/** Sends numbers to the echo while its connection breaks; what was reported as sent comes back once, in order. */
async function echoThrough(stage: Stage, breaks: Command, options: ConnectOptions): Promise<void> {
  const channel = await open(stage, "echo", options);
  channel.on("generation", () => channel.close());
  let lost = 0;
  channel.on("state", ({ connection }) => {
    if (connection === "reconnecting") lost++;
  });
  const seen: number[] = [];
  let next = 500;
  channel.on("message", ({ text }) => {
    seen.push(Number(text));
    if (seen.length < next || next > 1500) return;
    next += 500;
    void stage.control(breaks);
  });
  // A message, or its answer, may have been on the way when the connection broke: then its promise ends in time.
  const results = await Promise.allSettled(
    numbers(0, 2000).map((i) => channel.send(`${i}`, { timeout: 1000 })),
  );
  let end = 2000;
  const sent = () =>
    channel.send(`${end}`, { timeout: 1000 }).then(
      () => true,
      () => false,
    );
  while (!(await sent())) end++;
  while (seen.at(-1) !== end) await event(channel, "message");
  const sorted = seen.toSorted((a, b) => a - b);
  expectEqual(seen, sorted, "in order");
  expectEqual(new Set(seen).size, seen.length, "each once");
  const back = new Set(seen);
  const missing = results.flatMap(({ status }, i) => (status === "fulfilled" && !back.has(i) ? [i] : []));
  expectEqual(missing, [], "reported as sent, and not there");
  for (const result of results) {
    if (result.status === "rejected") await expectCode(Promise.reject(result.reason), "connection-lost");
  }
  // What was on its way, at most. On a busy machine a slow answer to a ping is taken for silence.
  const unknown = results.filter(({ status }) => status === "rejected").length;
  if (lost === 0 || unknown > lost * 256) throw new Error(`${unknown} of unknown fate, ${lost} connections`);
  channel.close();
}

export const scenarios: Record<string, Scenario> = {
  "all bytes and any text come back as they were": async (stage) => {
    const channel = await open(stage, "echo");
    const all = Uint8Array.from({ length: 256 }, (_, i) => i);
    for (const data of [all, ...numbers(0, 256).map((byte) => Uint8Array.of(byte))]) {
      await channel.send(data);
      expectEqual([...(await channel.receive()).data], [...data]);
    }
    for (const text of ["hello", "ä🚂\u0000\uFEFF", "\uFEFF", `"\\\n`, "x".repeat(channel.mtu)]) {
      await channel.send(text);
      expectEqual((await channel.receive()).text, text);
    }
    for (const encoding of ["base64", "hex"] as const) {
      const forced = await open(stage, "echo", { encoding });
      await forced.send("ä");
      expectEqual((await forced.receive()).text, "ä", encoding);
      forced.close();
    }
    channel.close();
  },

  "5,000 messages are on their way at once, and come back in order": async (stage) => {
    const channel = await open(stage, "echo");
    const results = Promise.all(numbers(0, 5000).map((i) => channel.send(`${i}`)));
    expectEqual(await texts(channel, 5000), numbers(0, 5000).map(String));
    await results;
    channel.close();
  },

  "a connection that breaks loses and repeats nothing": (stage) => echoThrough(stage, "kill connections", {}),

  "nor does one that goes silent": (stage) => echoThrough(stage, "freeze connections", { pingInterval: 250 }),

  "what the guest sends while the connection is broken comes then": async (stage) => {
    const channel = await open(stage, "source");
    await channel.send("3000 100");
    const seen: number[] = [];
    for await (const { data } of channel) {
      seen.push(new DataView(data.buffer, data.byteOffset).getUint32(0, true));
      if (seen.length === 500) await stage.control("kill connections");
      if (seen.length === 3000) break;
    }
    expectEqual(seen, numbers(0, 3000));
    channel.close();
  },

  "a reset of the guest is a new generation, in which the channel goes on": async (stage) => {
    const channel = await open(stage, "echo");
    const states: string[] = [];
    channel.on("state", ({ connection, reason }) => states.push(`${connection} ${reason ?? ""}`));
    const change = event(channel, "generation");
    await stage.control("reboot guest");
    expectEqual(await change, { previous: 1, current: 2, resumed: false });
    expectEqual(channel.generation, 2);
    await channel.send("again");
    expectEqual(await texts(channel, 1), ["again"]);
    const down = states.indexOf("open reset");
    expectEqual(states.slice(down, down + 3), ["open reset", "reconnecting reset", "open "]);
    channel.close();
  },

  "messages that the guest may not have read before a reset are told": async (stage) => {
    const channel = await open(stage, "stuck");
    const codes: string[] = [];
    channel.on("error", ({ code }) => codes.push(code));
    await Promise.all(numbers(0, 5).map((i) => channel.send(`${i}`)));
    const again = event(channel, "generation");
    await stage.control("reboot guest");
    await again;
    expectEqual(codes, Array(5).fill("guest-gone"));
    channel.close();
  },

  "a guest that is paused closes nothing: messages wait for it": async (stage) => {
    const channel = await open(stage, "echo");
    const paused = event(channel, "state");
    await stage.control("pause guest");
    expectEqual(await paused, { connection: "open", guestState: "suspended", endpointState: "connected" });
    const result = channel.send("waited");
    const resumed = event(channel, "state");
    await stage.control("resume guest");
    expectEqual((await resumed).guestState, "attached");
    await result;
    expectEqual(await texts(channel, 1), ["waited"]);
    channel.close();
  },

  "an endpoint that is withdrawn is found again when it is back": async (stage) => {
    const channel = await open(stage, "echo");
    const down = new Promise<void>((resolve) => {
      channel.on("state", ({ connection, reason }) => {
        if (connection === "reconnecting" && reason === "withdrawn") resolve();
      });
    });
    await stage.control("withdraw echo");
    await down;
    const again = event(channel, "generation");
    const waiting = channel.send("waited");
    await stage.control("announce echo");
    expectEqual(await again, { previous: 1, current: 1, resumed: false });
    await waiting;
    expectEqual(await texts(channel, 1), ["waited"]);
    channel.close();
  },

  "a client that is replaced stays away": async (stage) => {
    const channel = await open(stage, "echo", { share: "exclusive" });
    await expectCode(open(stage, "echo"), "endpoint-in-use", "refused");
    const waiting = channel.receive();
    await Promise.all([stage.control("take echo over"), expectCode(waiting, "replaced")]);
    const { code, error } = await channel.closed;
    expectEqual([code, error?.code], [4003, "replaced"]);
  },

  "another bridge in its place is a new session": async (stage) => {
    const channel = await open(stage, "echo");
    const change = event(channel, "generation");
    await stage.control("replace bridge");
    expectEqual(await change, { previous: 1, current: 1, resumed: false });
    await channel.send("hello");
    expectEqual(await texts(channel, 1), ["hello"]);
    channel.close();
  },

  "what the bridge drops for a slow reader is told, and adds up": async (stage) => {
    const channel = await open(stage, "source", { slow: "drop-oldest" });
    let dropped = 0;
    let seen = 0;
    let last = 0;
    const done = new Promise<void>((resolve) => {
      const look = () => {
        if (seen + dropped === BURST && last === BURST) resolve();
      };
      channel.on("dropped", (each) => {
        expectEqual(each.by, "bridge");
        dropped += each.count ?? Number.NaN;
        look();
      });
      channel.on("message", ({ seq }) => {
        seen++;
        last = seq;
        look();
      });
    });
    await stage.control("hold");
    const sent = channel.send(`${BURST} 480`);
    await stage.control("burst");
    await stage.control("release");
    await Promise.all([sent, done]);
    if (dropped === 0) throw new Error("nothing was dropped");
    channel.close();
  },

  "messages that nobody takes are bounded: the oldest go, and are counted": async (stage) => {
    const channel = await open(stage, "source", { inbox: { messages: 10 } });
    const all = new Promise<Dropped[]>((resolve) => {
      const dropped: Dropped[] = [];
      channel.on("dropped", (each) => {
        dropped.push(each);
        if (dropped.length === 90) resolve(dropped);
      });
    });
    await channel.send("100 8");
    expectEqual(
      await all,
      numbers(0, 90).map(() => ({ count: 1, by: "client" })),
    );
    const left = [];
    while (left.length < 10) left.push((await channel.receive()).seq);
    expectEqual(left, numbers(91, 101));
    channel.close();
  },

  "each message has its result": async (stage) => {
    const echo = await open(stage, "echo");
    await expectCode(echo.send("x".repeat(echo.mtu + 1)), "too-large");
    await expectCode(echo.send("x", { dst: 53 }), "forbidden");
    await echo.send("good");
    expectEqual(await texts(echo, 1), ["good"]);
    echo.close();
    const silent = await open(stage, "silent");
    await expectCode(silent.send("x", { timeout: 50 }), "no-peer");
    silent.close();
    const stuck = await open(stage, "stuck");
    const results = await Promise.allSettled(numbers(0, 1000).map(() => stuck.send("x", { timeout: 200 })));
    const sent = results.findIndex(({ status }) => status === "rejected");
    // As many as the guest has buffers.
    expectEqual(sent, 256);
    for (const result of results.slice(sent)) {
      if (result.status === "fulfilled") throw new Error("sent without a buffer");
      await expectCode(Promise.reject(result.reason), "no-buffer");
    }
    stuck.close();
  },

  "abort signals end what they are for": async (stage) => {
    const reason = new Error("enough");
    const rejectedBy = async (promise: Promise<unknown>) =>
      promise.then(
        () => Promise.reject(new Error("not rejected")),
        (error: unknown) => expectEqual(error === reason, true, String(error)),
      );
    await rejectedBy(open(stage, "echo", { signal: AbortSignal.abort(reason) }));
    const abort = new AbortController();
    const opening = open(stage, "unknown", { signal: abort.signal, reconnect: { initial: true } });
    abort.abort(reason);
    await rejectedBy(opening);
    const end = new AbortController();
    const channel = await open(stage, "echo", { signal: end.signal, window: { messages: 1 } });
    const send = new AbortController();
    const back = [channel.send("1", { signal: send.signal }), channel.send("2", { signal: send.signal })];
    send.abort(reason);
    await Promise.all(back.map(rejectedBy));
    await channel.send("3");
    // The first one was on its way, the second one was not.
    expectEqual(await texts(channel, 2), ["1", "3"]);
    end.abort();
    expectEqual((await channel.closed).error, undefined);
  },

  "a client is the service of a name for as long as it is connected": async (stage) => {
    const { WebSocket, url } = stage;
    const service = await connect(url === "" ? "/" : url, {
      guest: "vm",
      announce: "mine",
      ...(WebSocket !== undefined && { WebSocket }),
    });
    expectEqual((await list(url === "" ? "/" : url, { name: "mine", origin: "host" })).length, 1);
    await service.send("hello");
    while ((await service.receive()).text !== "hello");
    service.close();
  },

  "unknown guests and endpoints are named": async (stage) => {
    await expectCode(open(stage, "nothing"), "endpoint-unknown");
    await expectCode(open(stage, "~nothing"), "endpoint-unknown");
    const { WebSocket } = stage;
    const unknown = connect(`${stage.url}/ws/v1/nobody/echo`, {
      ...(WebSocket !== undefined && { WebSocket }),
    });
    await expectCode(unknown, "guest-unknown");
  },

  "guests and endpoints are listed, and an endpoint's path leads to it": async (stage) => {
    const base = stage.url === "" ? "/" : stage.url;
    expectEqual(
      (await guests(base)).map(({ name, state }) => [name, state]),
      [["vm", "attached"]],
    );
    const [echo] = await list(base, { name: "echo" });
    if (echo === undefined) throw new Error("not listed");
    const { WebSocket } = stage;
    const channel = await connect(`${stage.url}${echo.path}`, {
      ...(WebSocket !== undefined && { WebSocket }),
    });
    expectEqual([channel.guest, channel.endpoint, channel.generation], ["vm", "echo", 1]);
    await channel.send("hello");
    expectEqual(await texts(channel, 1), ["hello"]);
    channel.close();
  },

  "a reset is seen by who watches": async (stage) => {
    const abort = new AbortController();
    const view = watch(stage.url === "" ? "/" : stage.url, { signal: abort.signal });
    const seen: string[] = [];
    const echo = () =>
      [...view.endpoints.values()].find(({ name, origin }) => name === "echo" && origin === "guest");
    let before = "";
    for await (const change of view) {
      if (change.type === "ready") {
        before = echo()?.id ?? "";
        void stage.control("reboot guest");
      } else if (before !== "") {
        if (change.type === "guest") seen.push(`${change.guest.state} ${change.guest.generation}`);
        if (change.type === "endpoint-removed" && change.id === before) seen.push("echo is gone");
        if (change.type === "endpoint" && change.endpoint.id === echo()?.id) {
          seen.push(`echo ${change.endpoint.generation}`);
          abort.abort();
        }
      }
    }
    expectEqual(seen.includes("echo is gone"), true, "removed");
    expectEqual(seen.at(-1), "echo 2", "back");
    expectEqual(seen.includes("attached 2"), true, `attached: ${seen.join()}`);
    expectEqual(echo()?.id === before, false, "another id");
  },
};
