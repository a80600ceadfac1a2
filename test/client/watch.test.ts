import { getEventListeners } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { describe, expect, onTestFinished, test } from "vitest";
import type { Change, Watch, WatchOptions } from "../../client/index.ts";
import { watch } from "../../client/index.ts";
import { eventually, testBridge } from "../server/support.ts";
import { codeOf, Peer } from "./peer.ts";

interface Stream {
  request: IncomingMessage;
  /** Writes an event; without an id it is of the current state. */
  event: (name: string, data: unknown, id?: string) => void;
  end: () => void;
  destroy: () => void;
}

/** A server whose streams the test writes, and the view of a client of it. */
async function scripted(options: WatchOptions = {}) {
  const peer = await Peer.listen();
  const streams: Stream[] = [];
  const waiting: ((stream: Stream) => void)[] = [];
  peer.onRequest = (request, response) => {
    const stream = streamOf(request, response);
    const next = waiting.shift();
    if (next === undefined) streams.push(stream);
    else next(stream);
  };
  const stream = (): Promise<Stream> => {
    const first = streams.shift();
    return first === undefined ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve(first);
  };
  const abort = new AbortController();
  onTestFinished(() => abort.abort());
  const view = watch(peer.http, {
    signal: abort.signal,
    reconnect: { minDelay: 1, maxDelay: 1 },
    ...options,
  });
  const loop = view[Symbol.asyncIterator]();
  const take = async (count: number): Promise<Change[]> => {
    const changes: Change[] = [];
    while (changes.length < count) changes.push((await loop.next()).value as Change);
    return changes;
  };
  return { peer, stream, view, loop, take };
}

function streamOf(request: IncomingMessage, response: ServerResponse): Stream {
  response.writeHead(200, { "content-type": "text/event-stream" }).flushHeaders();
  return {
    request,
    event: (name, data, id) =>
      response.write(
        `event: ${name}\n${id === undefined ? "" : `id: ${id}\n`}data: ${JSON.stringify(data)}\n\n`,
      ),
    end: () => response.end(),
    destroy: () => response.destroy(),
  };
}

/** In short: what changed, and of whom. */
const short = (change: Change) => {
  if (change.type === "guest") return `guest ${change.guest.name}`;
  if (change.type === "endpoint") return `endpoint ${change.endpoint.id}`;
  if (change.type === "lost") return "lost";
  return change.type === "ready" ? `ready ${change.instance}` : `${change.type} ${change.id}`;
};
const held = ({ guests, endpoints }: Watch) => [...guests.keys(), ...endpoints.keys()];

const guest = (name: string) => ({ name, state: "attached" });
const endpoint = (id: string) => ({ id, guest: "a", name: "echo", generation: 1 });

test("the state of a bridge, complete at ready, and the maps hold it", async () => {
  const running = await testBridge();
  await running.endpoint("sink");
  const abort = new AbortController();
  const view = watch(running.url, { signal: abort.signal });
  const changes: string[] = [];
  for await (const change of view) {
    changes.push(change.type);
    if (change.type === "ready") abort.abort();
  }
  expect(new Set(changes)).toEqual(new Set(["guest", "endpoint", "ready"]));
  expect([...view.guests.values()]).toEqual([await running.guest("demo")]);
  expect([...view.endpoints.values()]).toEqual(await running.endpoints());
});

test("changes come as they happen, and the maps follow the loop", async () => {
  const { stream, view, take } = await scripted();
  const taking = take(4);
  const { event } = await stream();
  event("guest", guest("a"));
  event("endpoint", endpoint("e1"));
  event("ready", { instance: "one" }, "0");
  event("endpoint", endpoint("e2"), "1");
  event("endpoint-removed", endpoint("e1"), "2");
  event("guest", { ...guest("a"), state: "detached" }, "3");
  expect((await taking).map(short)).toEqual(["guest a", "endpoint e1", "ready one", "endpoint e2"]);
  expect(held(view)).toEqual(["a", "e1", "e2"]);
  expect(await take(1)).toEqual([{ type: "endpoint-removed", ...endpoint("e1") }]);
  expect(held(view)).toEqual(["a", "e2"]);
  await take(1);
  expect(view.guests.get("a")?.state).toBe("detached");
});

describe("after a connection that broke", () => {
  test("what was missed comes, and the rest stays", async () => {
    const { stream, view, take } = await scripted({ token: "secret" });
    const taking = take(4);
    const first = await stream();
    expect(first.request.headers).toMatchObject({
      accept: "text/event-stream",
      authorization: "Bearer secret",
    });
    expect(first.request.headers["last-event-id"]).toBeUndefined();
    first.event("guest", guest("a"));
    first.event("endpoint", endpoint("e1"));
    first.event("endpoint", endpoint("e2"));
    first.event("ready", { instance: "one" }, "7");
    await taking;
    const missed = take(3);
    first.destroy();
    const second = await stream();
    expect(second.request.headers["last-event-id"]).toBe("7");
    second.event("endpoint-removed", endpoint("e1"), "8");
    second.event("ready", { instance: "one" }, "8");
    expect((await missed).map(short)).toEqual(["lost", "endpoint-removed e1", "ready one"]);
    expect(held(view)).toEqual(["a", "e2"]);
    const nothing = take(2);
    second.end();
    const third = await stream();
    expect(third.request.headers["last-event-id"]).toBe("8");
    third.event("ready", { instance: "one" }, "8");
    expect((await nothing).map(short)).toEqual(["lost", "ready one"]);
    expect(held(view)).toEqual(["a", "e2"]);
  });

  test.each([
    ["the same bridge", "one", [guest("b")]],
    ["another bridge, which has nothing", "two", []],
  ])("where it is the whole state of %s, what is not in it is gone", async (_what, instance, now) => {
    const { stream, view, take } = await scripted();
    const taking = take(3);
    const first = await stream();
    first.event("guest", guest("a"));
    first.event("endpoint", endpoint("e1"));
    first.event("ready", { instance: "one" }, "7");
    await taking;
    const again = take(now.length + 3);
    first.end();
    const second = await stream();
    for (const each of now) second.event("guest", each);
    second.event("ready", { instance }, "9");
    expect((await again).map(short)).toEqual([
      "lost",
      ...now.map(({ name }) => `guest ${name}`),
      "endpoint-removed e1",
      `ready ${instance}`,
    ]);
    expect(held(view)).toEqual(now.map(({ name }) => name));
  });

  test("it is told once, why, and not before all was known", async () => {
    const { stream, take } = await scripted();
    const known = take(1);
    (await stream()).end();
    const first = await stream();
    first.event("guest", guest("a"));
    await known;
    const all = take(3);
    first.destroy();
    // Again and again nothing comes: it was told.
    const second = await stream();
    second.event("ready", { instance: "one" }, "7");
    second.end();
    (await stream()).end();
    (await stream()).event("ready", { instance: "one" }, "7");
    const changes = await all;
    expect(changes.map(short)).toEqual(["ready one", "lost", "ready one"]);
    expect(changes[1]).toEqual({ type: "lost", reason: "the bridge ended the stream" });
  });

  test("in silence, too", async () => {
    const { stream, take } = await scripted({ silence: 50 });
    const taking = take(1);
    await stream();
    (await stream()).event("guest", guest("a"));
    expect((await taking).map(short)).toEqual(["guest a"]);
  });
});

test("what is not understood is passed over", async () => {
  const { stream, take } = await scripted();
  const taking = take(1);
  const { event } = await stream();
  for (const data of [null, 1, "x", [], {}, { name: 1, id: 1 }]) {
    for (const name of ["guest", "endpoint", "endpoint-removed", "ready", "later"]) event(name, data);
  }
  event("guest", guest("a"));
  expect((await taking).map(short)).toEqual(["guest a"]);
});

describe("the loop", () => {
  test("throws where the bridge refuses, unless it is to keep trying", async () => {
    const { peer, loop, stream } = await scripted();
    const { onRequest } = peer;
    let refused = 0;
    const refuse: typeof onRequest = (_request, response) => {
      if (++refused > 3) peer.onRequest = onRequest;
      response.writeHead(403).end('{"code":"origin-forbidden","detail":"no"}');
    };
    peer.onRequest = refuse;
    expect(await codeOf(loop.next())).toBe("origin-forbidden");
    const reconnect = { minDelay: 1, maxDelay: 1, initial: true };
    const stubborn = watch(peer.http, { reconnect })[Symbol.asyncIterator]();
    const first = stubborn.next();
    (await stream()).event("guest", guest("a"));
    expect((await first).done).toBe(false);
    await stubborn.return();
    const attempts = watch(peer.http, { reconnect: { ...reconnect, attempts: 2 } })[Symbol.asyncIterator]();
    peer.onRequest = refuse;
    refused = 0;
    expect(await codeOf(attempts.next())).toBe("origin-forbidden");
    expect(refused).toBe(2);
  });

  test("ends with the connection where it is not to reconnect", async () => {
    const { stream, loop } = await scripted({ reconnect: false });
    const end = loop.next();
    (await stream()).end();
    expect((await end).done).toBe(true);
    const broken = await scripted({ reconnect: false });
    const error = codeOf(broken.loop.next());
    (await broken.stream()).destroy();
    expect(await error).toBe("connection-lost");
  });

  test("ends with its signal: while it waits for an event, or between two attempts", async () => {
    const abort = new AbortController();
    const { stream, loop } = await scripted({ signal: abort.signal });
    const end = loop.next();
    await stream();
    abort.abort();
    expect((await end).done).toBe(true);
    const later = new AbortController();
    const patient = await scripted({ signal: later.signal, reconnect: { minDelay: 60_000 } });
    const waiting = patient.loop.next();
    (await patient.stream()).end();
    // The wait listens to the signal, as the request did before.
    await eventually("the wait", () =>
      getEventListeners(later.signal, "abort").some(({ name }) => name === "end") ? true : undefined,
    );
    later.abort();
    expect((await waiting).done).toBe(true);
    expect(getEventListeners(later.signal, "abort")).toEqual([]);
  });

  test("that is left ends the connection", async () => {
    const { stream, view } = await scripted();
    const gone = stream().then(({ request, event }) => {
      event("guest", guest("a"));
      return new Promise((resolve) => request.socket.once("close", resolve));
    });
    for await (const change of view) {
      expect(short(change)).toBe("guest a");
      break;
    }
    await gone;
  });
});
