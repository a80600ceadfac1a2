import { once } from "node:events";
import { describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import type { Right } from "../../schemas/index.ts";
import { rights } from "../../schemas/index.ts";
import type { RunningBridge } from "./support.ts";
import { testBridge } from "./support.ts";
import type { TestToken } from "./tokens.ts";
import { allRights, testToken } from "./tokens.ts";

/** A code of the bridge where it refuses, else what an operation came to. */
type Outcome = string;
type Operation = (stage: Stage) => Promise<Outcome>;

/** A bridge, who may do everything, and the client that is looked at. */
interface Stage {
  readonly running: RunningBridge;
  readonly token: TestToken;
  /** Of demo's echo. */
  readonly id: string;
}

/** The answer to a request: its code, or its status where it is good. */
async function rest(
  { running, token }: Stage,
  method: string,
  path: string,
  body?: object,
): Promise<Outcome> {
  const response = await fetch(running.url + path, {
    method,
    headers: { ...token.headers, ...(body && { "content-type": "application/json" }) },
    ...(body && { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  return response.ok ? String(response.status) : (JSON.parse(text) as { code: string }).code;
}

/** A WebSocket of the client's, or the code with which it is refused. */
async function open({ running, token }: Stage, path: string, protocol: string): Promise<Socket | string> {
  const socket = new WebSocket(running.url.replace("http", "ws") + path, [protocol], {
    headers: token.headers,
  });
  const opened = new Socket(socket);
  socket.on("error", () => {});
  const refused = once(socket, "unexpected-response").then(async ([, response]) => {
    let body = "";
    for await (const part of response as AsyncIterable<Buffer>) body += part.toString();
    return (JSON.parse(body) as { code: string }).code;
  });
  return Promise.race([once(socket, "open").then(() => opened), refused]);
}

class Socket {
  readonly socket: WebSocket;
  readonly #came: { data: Buffer; isBinary: boolean }[] = [];
  #end: string | undefined;
  #wake = (): void => {};

  constructor(socket: WebSocket) {
    this.socket = socket;
    socket.on("message", (data: Buffer, isBinary) => {
      this.#came.push({ data, isBinary });
      this.#wake();
    });
    socket.on("close", (code, reason) => {
      this.#end = `${code} ${reason.toString()}`;
      this.#wake();
    });
  }

  /** What comes next: a message, or the end. */
  async next(): Promise<string> {
    for (;;) {
      const came = this.#came.shift();
      if (came !== undefined) return came.isBinary ? came.data.toString("latin1") : came.data.toString();
      if (this.#end !== undefined) return this.#end;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** The next frame of a type that is wanted; an error is one always. */
  async frame(...types: string[]): Promise<Record<string, unknown>> {
    for (;;) {
      const frame = JSON.parse(await this.next()) as Record<string, unknown>;
      if ([...types, "error"].includes(frame["type"] as string)) return frame;
    }
  }
}

/** Sends, over a raw channel, and waits for the answer, of the guest or of the bridge. */
const raw: Operation = async (stage) => {
  const socket = await open(stage, "/ws/v1/demo/echo", "rpmsg.v1.raw");
  if (typeof socket === "string") return socket;
  socket.socket.send(Buffer.from("hi"));
  // Who gets no messages has sent one: what it was told is nothing, so that it asks the counters.
  if (!stage.token.config.rights.read?.length) return sentTo(stage, 1);
  return socket.next();
};

/** Waits until so many messages of clients were taken for demo's echo. */
async function sentTo({ running }: Stage, count: number): Promise<Outcome> {
  await running.endpoint("echo", ({ counters }) => counters.messagesToGuest >= count);
  return "sent";
}

const json: Operation = async (stage) => {
  const socket = await open(stage, "/ws/v1/demo/echo", "rpmsg.v1.json");
  if (typeof socket === "string") return socket;
  const got: string[] = [];
  // The guest has answered the first one before it gets the last.
  for (let id = 1; id <= 3; id++) {
    socket.socket.send(`{"type":"send","id":${id},"data":"hi"}`);
    for (let type: unknown; type !== "sent"; ) {
      const frame = await socket.frame("sent", "message");
      ({ type } = frame);
      if (type === "error") return `error ${String(frame["code"])}`;
      if (type === "message") got.push(String(frame["data"]));
    }
    if (id === 2) await sentTo(stage, 2);
  }
  return got[0] === undefined ? "sent" : `sent, ${got[0]}`;
};

const mux: Operation = async (stage) => {
  const socket = await open(stage, "/ws/v1", "rpmsg.v1.mux");
  if (typeof socket === "string") return socket;
  socket.socket.send('{"type":"subscribe","sub":1,"path":"/ws/v1/demo/echo"}');
  const subscribed = await socket.frame("subscribed");
  if (subscribed["type"] === "error") return String(subscribed["code"]);
  const header = Buffer.alloc(12);
  header.writeUInt32LE(1, 0);
  header.writeUInt32LE(0xffff_ffff, 4);
  header.writeUInt32LE(7, 8);
  socket.socket.send(Buffer.concat([header, Buffer.from("hi")]));
  const sent = await socket.frame("sent");
  return sent["type"] === "error" ? `error ${String(sent["code"])}` : "sent";
};

const dst: Operation = async (stage) => {
  const socket = await open(stage, "/ws/v1/demo/echo", "rpmsg.v1.json");
  if (typeof socket === "string") return socket;
  // The address of another service.
  socket.socket.send('{"type":"send","id":1,"data":"hi","dst":1028}');
  const sent = await socket.frame("sent");
  return sent["type"] === "error" ? String(sent["code"]) : "sent";
};

const upgraded =
  (path: string): Operation =>
  async (stage) => {
    const socket = await open(stage, path, "rpmsg.v1.raw");
    return typeof socket === "string" ? socket : "open";
  };

const events: Operation = async ({ running, token }) => {
  const controller = new AbortController();
  const { status, body } = await fetch(`${running.url}/api/v1/events`, {
    headers: token.headers,
    signal: controller.signal,
  });
  let text = "";
  for await (const part of body as unknown as AsyncIterable<Uint8Array>) {
    text += Buffer.from(part).toString();
    if (text.includes("event: ready")) break;
  }
  controller.abort();
  return `${status} ${[...text.matchAll(/"name":"(\w+)"/g)].map(([, name]) => name).join()}`;
};

const messages = "/messages";
const one = (id: string) => `/api/v1/guests/demo/endpoints/${id}`;

const operations: Record<string, Operation> = {
  "see the guest": (stage) => rest(stage, "GET", "/api/v1/guests/demo"),
  "see it": (stage) => rest(stage, "GET", one(stage.id)),
  "see it in events": events,
  "send, raw": raw,
  "send, JSON": json,
  "send, mux": mux,
  "send, REST": (stage) => rest(stage, "POST", one(stage.id) + messages, { data: "hi" }),
  "send and wait, REST": (stage) => rest(stage, "POST", one(stage.id) + messages, { data: "hi", wait: 5000 }),
  "send from an address": (stage) =>
    rest(stage, "POST", one(stage.id) + messages, { data: "x", local: 3000 }),
  "any dst": dst,
  exclusive: upgraded("/ws/v1/demo/echo?share=exclusive"),
  "slow=pause": upgraded("/ws/v1/demo/echo?slow=pause"),
  takeover: upgraded("/ws/v1/demo/echo?share=exclusive&takeover=1"),
  "local=": upgraded("/ws/v1/demo/echo?local=3000"),
  announce: upgraded("/ws/v1/demo?announce=echo"),
  "announce another": upgraded("/ws/v1/demo?announce=other"),
  "announce at an address": upgraded("/ws/v1/demo?announce=echo&local=3000"),
  declare: (stage) => rest(stage, "POST", "/api/v1/guests/demo/endpoints", { name: "echo" }),
  "declare at an address": (stage) =>
    rest(stage, "POST", "/api/v1/guests/demo/endpoints", { name: "echo", address: 3000 }),
  withdraw: (stage) => rest(stage, "DELETE", one(stage.id)),
  metrics: (stage) => rest(stage, "GET", "/metrics"),
  "capture its guest": ({ running, token }) => captureOf(running.url, "guest=demo", token),
  "capture everything": ({ running, token }) => captureOf(running.url, "", token),
};

/** Its status or code; one that begins is left. */
async function captureOf(url: string, query: string, { headers }: TestToken): Promise<Outcome> {
  const controller = new AbortController();
  const { signal } = controller;
  const response = await fetch(`${url}/api/v1/capture?${query}`, { headers, signal });
  const outcome = response.ok ? "open" : ((await response.json()) as { code: string }).code;
  controller.abort();
  return outcome;
}

/** A stage for a client with these rights to demo's echo. */
async function stageFor(granted: readonly Right[], readOnly = false): Promise<Stage> {
  const token = testToken("client", Object.fromEntries(granted.map((right) => [right, ["demo/echo"]])));
  const all = allRights();
  const tokens = [token.config, all.config];
  const running = await testBridge({ tokens, readOnly }, undefined, all.headers);
  const { id } = await running.endpoint("echo");
  await running.endpoint("sink");
  return { running, token, id };
}

const no = "forbidden";
const seen = "200 demo,echo";

/** For each operation what comes of it with none of the rights, and with each alone. */
const table: Record<string, Outcome[]> = {
  //                         nothing           list     read              write             announce    admin
  "see the guest": ["guest-unknown", "200", "200", "200", "200", "200"],
  "see it": ["guest-unknown", "200", "200", "200", "200", "200"],
  "capture its guest": ["guest-unknown", no, "open", no, no, no],
  "capture everything": [no, no, "open", no, no, no],
  "see it in events": ["200 ", seen, seen, seen, seen, seen],
  "send, raw": ["guest-unknown", no, "1008 forbidden", "sent", no, no],
  "send, JSON": ["guest-unknown", no, "error forbidden", "sent", no, no],
  "send, mux": ["guest-unknown", no, "error forbidden", "sent", no, no],
  "send, REST": ["guest-unknown", no, no, "202", no, no],
  "send and wait, REST": ["guest-unknown", no, no, no, no, no],
  "send from an address": ["guest-unknown", no, no, no, no, no],
  "any dst": ["guest-unknown", no, no, no, no, no],
  exclusive: ["guest-unknown", no, no, "open", no, no],
  "slow=pause": ["guest-unknown", no, no, "open", no, no],
  takeover: ["guest-unknown", no, no, no, no, no],
  "local=": ["guest-unknown", no, no, no, no, no],
  announce: ["guest-unknown", no, no, no, "open", no],
  "announce another": ["guest-unknown", no, no, no, no, no],
  "announce at an address": ["guest-unknown", no, no, no, no, no],
  declare: ["guest-unknown", no, no, no, "201", no],
  "declare at an address": ["guest-unknown", no, no, no, no, no],
  withdraw: ["guest-unknown", no, no, no, "endpoint-of-guest", no],
  metrics: [no, no, no, no, no, no],
};

describe.each(Object.keys(operations))("%s", (name) => {
  const operation = operations[name] as Operation;
  const expected = table[name] as Outcome[];

  test.each(["nothing", ...rights])("with %s", async (right) => {
    const granted = rights.filter((each) => each === right);
    const index = right === "nothing" ? 0 : rights.indexOf(right as Right) + 1;
    expect(await operation(await stageFor(granted))).toBe(expected[index]);
  });
});

test.each<[string, Right[], Outcome]>([
  ["send, raw", ["read", "write"], "hi"],
  ["send, JSON", ["read", "write"], "sent, hi"],
  ["send, mux", ["read", "write"], "sent"],
  ["send and wait, REST", ["read", "write"], "200"],
  ["send from an address", ["write", "admin"], "202"],
  ["any dst", ["write", "admin"], "sent"],
  ["takeover", ["write", "admin"], "open"],
  ["takeover", ["read", "admin"], "forbidden"],
  ["local=", ["read", "admin"], "open"],
  ["announce at an address", ["announce", "admin"], "open"],
  ["declare at an address", ["announce", "admin"], "201"],
])("%s, with %j: %s", async (name, granted, expected) => {
  expect(await (operations[name] as Operation)(await stageFor(granted))).toBe(expected);
});

describe("read-only, with all rights", () => {
  const readOnly = "read-only";
  test.each<[string, Outcome]>([
    ["see it", "200"],
    ["see it in events", seen],
    ["send, raw", "1008 read-only"],
    ["send, JSON", "error read-only"],
    ["send, mux", "error read-only"],
    ["send, REST", readOnly],
    ["any dst", readOnly],
    ["exclusive", readOnly],
    ["slow=pause", readOnly],
    ["local=", "open"],
    ["announce", readOnly],
    ["declare", readOnly],
    ["withdraw", readOnly],
  ])("%s: %s", async (name, expected) => {
    const stage = await stageFor(rights, true);
    expect(await (operations[name] as Operation)(stage)).toBe(expected);
    const { counters } = await stage.running.endpoint("echo");
    expect(counters.accepted).toBe(0);
  });

  test("holds without tokens as well", async () => {
    const running = await testBridge({ readOnly: true });
    const endpoint = await running.endpoint("echo");
    const client = await running.connect(endpoint.path);
    client.send("hi");
    expect(await client.closed).toEqual({ code: 1008, reason: "read-only" });
  });
});

test("lists and events have what may be seen, and pages are of that", async () => {
  const token = testToken("client", { list: ["demo/s*", "other/echo"] });
  const { url } = await testBridge({
    tokens: [token.config],
    guests: { demo: { kind: "emulated" }, other: { kind: "emulated" }, hidden: { kind: "emulated" } },
  });
  const get = async (path: string) =>
    (await (await fetch(url + path, { headers: token.headers })).json()) as {
      guests: { name: string }[];
      endpoints: { name: string }[];
      next: string | null;
    };
  expect((await get("/api/v1/guests")).guests.map(({ name }) => name)).toEqual(["demo", "other"]);
  const names = async (path: string) => (await get(path)).endpoints.map(({ name }) => name);
  expect(await names("/api/v1/endpoints")).toEqual(["sensor", "source", "sink", "echo"]);
  expect(await names("/api/v1/endpoints?name=tty")).toEqual([]);
  expect(await names("/api/v1/guests/other/endpoints")).toEqual(["echo"]);
  const page = await get("/api/v1/endpoints?limit=2");
  expect(page.endpoints.map(({ name }) => name)).toEqual(["sensor", "source"]);
  expect(await names(`/api/v1/endpoints?after=${page.next}`)).toEqual(["sink", "echo"]);
});
