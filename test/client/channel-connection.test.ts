import { getEventListeners, once } from "node:events";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import { WebSocket } from "ws";
import type { ChannelState, GenerationChange } from "../../client/index.ts";
import { connect } from "../../client/index.ts";
import { BrowserLike, codeOf, connectTo, nextEvent, Peer } from "./peer.ts";

describe("the request", () => {
  test("has the subprotocol, and every option in its query", async () => {
    const listening = await Peer.listen();
    const { channel, peer } = await listening.connect(
      { share: "exclusive", takeover: true, local: 1040, slow: "pause", origin: "guest", encoding: "hex" },
      { local: 1040, generation: 3, mtu: 100 },
    );
    expect(peer.request.headers["sec-websocket-protocol"]).toBe("rpmsg.v1.json");
    expect(peer.request.headers.authorization).toBeUndefined();
    expect(Object.fromEntries(peer.query)).toEqual({
      share: "exclusive",
      takeover: "1",
      local: "1040",
      slow: "pause",
      origin: "guest",
      encoding: "hex",
    });
    const { guest, endpoint, local, generation, mtu, state } = channel;
    expect({ guest, endpoint, local, generation, mtu }).toEqual({
      guest: "demo",
      endpoint: "echo",
      local: 1040,
      generation: 3,
      mtu: 100,
    });
    expect(state).toEqual({ connection: "open", guestState: "attached", endpointState: "connected" });
  });

  test("keeps the query that the URL has, and has the token in its head", async () => {
    const listening = await Peer.listen();
    const opening = connectTo({ url: `${listening.url}?share=shared` }, { slow: "pause", token: "secret" });
    const peer = await listening.connection();
    peer.hello();
    await opening;
    expect(peer.request.url).toBe("/ws/v1/demo/echo?share=shared&slow=pause");
    expect(peer.request.headers.authorization).toBe("Bearer secret");
  });
});

describe("a connection that is lost is made again", () => {
  test.each([1001, 1006, 1011, 1012])("after %i, with the session and the last message", async (code) => {
    const listening = await Peer.listen();
    const { channel, peer } = await listening.connect({ share: "shared", takeover: true });
    const states: ChannelState["connection"][] = [];
    channel.on("state", ({ connection }) => states.push(connection));
    channel.on("generation", () => expect.unreachable());
    peer.message(4, "a");
    await peer.settle();
    if (code === 1006) peer.socket.terminate();
    else peer.socket.close(code);
    const again = await listening.connection();
    // Whoever took the endpoint over keeps it.
    expect(Object.fromEntries(again.query)).toEqual({ share: "shared", resume: "session", after: "4" });
    again.hello({ resumed: true });
    again.message(4, "again");
    again.message(5, "b");
    expect([(await channel.receive()).text, (await channel.receive()).text]).toEqual(["a", "b"]);
    expect(states).toEqual(["reconnecting", "open"]);
  });

  test("in a new session messages count from 1 again, and that is told", async () => {
    const listening = await Peer.listen();
    const { channel, peer } = await listening.connect();
    peer.message(4, "a");
    await peer.settle();
    peer.socket.terminate();
    const change = nextEvent(channel, "generation");
    const again = await listening.connection();
    again.hello({ session: "other", local: 1030 });
    expect(await change).toEqual({ previous: 1, current: 1, resumed: false });
    expect(channel.local).toBe(1030);
    again.message(1, "b");
    expect([(await channel.receive()).text, (await channel.receive()).text]).toEqual(["a", "b"]);
    again.socket.terminate();
    const third = await listening.connection();
    expect(Object.fromEntries(third.query)).toEqual({ resume: "other", after: "1" });
  });

  test.each([
    [4001, "reset"],
    [4002, "withdrawn"],
  ] as const)("after %i, as a new session, as soon as the endpoint is there", async (code, reason) => {
    const listening = await Peer.listen();
    const { channel, peer } = await listening.connect();
    const seen: unknown[] = [];
    channel.on("state", ({ connection, reason: why }) => seen.push([connection, why]));
    const changed = new Promise<GenerationChange>((resolve) => {
      channel.on("generation", (change) => {
        seen.push("generation");
        resolve(change);
      });
    });
    peer.send({
      type: "state",
      state: "down",
      reason,
      endpointState: "declared",
      guestState: "detached",
      generation: 2,
    });
    listening.refuse(404, "endpoint-unknown", "not yet");
    peer.socket.close(code);
    await listening.refused(3);
    listening.refusal = undefined;
    const again = await listening.connection();
    expect([...again.query]).toEqual([]);
    // Nobody asked for a session.
    again.hello({ generation: 2, resumed: true });
    expect(await changed).toEqual({ previous: 1, current: 2, resumed: false });
    await again.settle();
    expect(seen).toEqual([["open", reason], ["reconnecting", reason], "generation", ["open", undefined]]);
  });

  test("after 1013 an unknown number of messages is told as dropped", async () => {
    const listening = await Peer.listen();
    const { channel, peer } = await listening.connect();
    const dropped = nextEvent(channel, "dropped");
    peer.socket.close(1013, "slow reader");
    expect(await dropped).toEqual({ count: undefined, by: "bridge" });
    (await listening.connection()).hello();
    await nextEvent(channel, "state");
  });

  test("a service that lives as long as its connection is announced again, without a session", async () => {
    const listening = await Peer.listen();
    const opening = connectTo({ url: listening.http }, { guest: "demo", announce: "mine" });
    const peer = await listening.connection();
    peer.hello();
    await opening;
    peer.socket.terminate();
    expect((await listening.connection()).request.url).toBe("/ws/v1/demo?announce=mine");
  });

  test("when nothing comes between two pings: its silent end is left alone until the session goes on", async () => {
    const listening = await Peer.listen();
    const { channel, peer } = await listening.connect({ pingInterval: 5 });
    const again = await listening.connection();
    expect(Object.fromEntries(again.query)).toEqual({ resume: "session", after: "0" });
    // A close frame would have ended the session.
    expect(peer.socket.readyState).toBe(WebSocket.OPEN);
    again.hello({ resumed: true });
    expect(await peer.closed).toBe(1000);
    expect(channel.state.connection).toBe("open");
  });

  test("but not while pings are answered", async () => {
    const listening = await Peer.listen();
    const { channel, peer } = await listening.connect({ pingInterval: 50 });
    for (let i = 0; i < 5; i++) {
      expect(await peer.next()).toEqual({ type: "ping" });
      peer.send({ type: "pong" });
    }
    await peer.settle();
    expect(channel.state.connection).toBe("open");
    expect(listening.upgrades).toBe(1);
  });
});

describe("the channel ends", () => {
  test.each([
    [4003, "replaced"],
    [1008, "refused"],
  ])("with %i: %s", async (code, error) => {
    const listening = await Peer.listen();
    const { channel, peer } = await listening.connect();
    const event = nextEvent(channel, "close");
    peer.socket.close(code, "the reason");
    expect(await channel.closed).toMatchObject({ code, reason: "the reason", error: { code: error } });
    expect(await event).toBe(await channel.closed);
    expect(channel.state.connection).toBe("closed");
    expect(await codeOf(channel.send("x"))).toBe(error);
    expect(listening.upgrades).toBe(1);
  });

  test.each([
    [1001, "connection-lost"],
    [1013, "slow-reader"],
    [4001, "guest-gone"],
    [4002, "endpoint-gone"],
  ])("with %i where it is not to reconnect: %s", async (code, error) => {
    const { channel, peer } = await (await Peer.listen()).connect({ reconnect: false });
    peer.socket.close(code);
    expect(await channel.closed).toMatchObject({ code, error: { code: error } });
  });

  test("after so many attempts, with the bridge's last word", async () => {
    const listening = await Peer.listen();
    const { channel, peer } = await listening.connect({
      reconnect: { minDelay: 1, maxDelay: 1, attempts: 3 },
    });
    listening.refuse(404, "endpoint-unknown", "gone for good");
    peer.socket.close(4001);
    const error = { code: "endpoint-unknown", message: "gone for good" };
    expect(await channel.closed).toMatchObject({ error });
    expect(listening.upgrades).toBe(4);
  });

  test("but not after as many that were not in a row", async () => {
    const listening = await Peer.listen();
    const reconnect = { minDelay: 1, maxDelay: 1, attempts: 2 };
    const { channel, peer } = await listening.connect({ reconnect });
    let last = peer;
    for (let i = 0; i < 3; i++) {
      listening.refuse(404, "endpoint-unknown", "not yet");
      last.socket.terminate();
      await listening.refused(1);
      listening.refusal = undefined;
      last = await listening.connection();
      last.hello();
      await last.settle();
    }
    expect(channel.state.connection).toBe("open");
  });

  test("and connects no more when it is closed between two attempts", async () => {
    const listening = await Peer.listen();
    const [closed, later] = [
      await listening.connect({ reconnect: { minDelay: 20, maxDelay: 20 } }),
      await listening.connect({ reconnect: { minDelay: 80, maxDelay: 80 } }),
    ];
    closed.peer.socket.terminate();
    later.peer.socket.terminate();
    await Promise.all([nextEvent(closed.channel, "state"), nextEvent(later.channel, "state")]);
    closed.channel.close();
    await listening.connection();
    expect(listening.upgrades).toBe(3);
  });

  test("when it is closed, once, also between two attempts", async () => {
    const listening = await Peer.listen();
    const reconnect = { minDelay: 60_000 };
    const { channel, peer } = await listening.connect({ reconnect });
    const ends: unknown[] = [];
    channel.on("close", (end) => ends.push(end));
    peer.socket.terminate();
    await nextEvent(channel, "state");
    channel.close();
    channel.close();
    expect(ends).toEqual([{ code: 1000, reason: "", error: undefined }]);
    expect(await channel.closed).toBe(ends[0]);
  });

  test("when its signal aborts", async () => {
    const abort = new AbortController();
    const { channel, peer } = await (await Peer.listen()).connect({ signal: abort.signal });
    abort.abort();
    expect(getEventListeners(abort.signal, "abort")).toEqual([]);
    expect(await channel.closed).toMatchObject({ code: 1000, error: undefined });
    expect(await peer.closed).toBe(1000);
  });
});

describe("connect rejects", () => {
  test("with the bridge's own words, where the WebSocket shows them", async () => {
    const listening = await Peer.listen();
    listening.refuse(409, "endpoint-in-use", "an exclusive client is there");
    const refused = connectTo(listening);
    await expect(refused).rejects.toMatchObject({
      name: "RpmsgError",
      code: "endpoint-in-use",
      message: "an exclusive client is there",
    });
  });

  const problem = JSON.stringify({ code: "guest-unknown", detail: "there is no guest" });
  const endpoints = (...names: string[]) =>
    JSON.stringify({ endpoints: names.map((name) => ({ id: "e1", name })), next: null });

  test.each([
    ["guest-unknown", "echo", 404, problem],
    ["endpoint-unknown", "echo", 200, endpoints("tty")],
    ["endpoint-unknown", "~e2", 200, endpoints("echo")],
    ["refused", "~e1", 200, endpoints("echo")],
    ["refused", "echo", 200, endpoints("tty", "echo")],
    ["refused", "%65cho@0x400", 200, endpoints("echo")],
    ["refused", "%ff", 200, endpoints("echo")],
    ["unreachable", "echo", 404, "nginx"],
    ["unreachable", "echo", 200, "[]"],
    ["unreachable", "echo", 200, "nothing"],
  ])("with %s for %s, which it learns from the lists in a browser", async (code, path, status, body) => {
    const listening = await Peer.listen();
    listening.refuse(404, "not-found", "not shown");
    const asked: (string | undefined)[] = [];
    listening.onRequest = (request, response) => {
      asked.push(request.url, request.headers.authorization);
      // A browser's WebSocket shows a ticket instead of the token.
      const isTicket = request.url === "/api/v1/tickets";
      response
        .writeHead(isTicket ? 201 : status, { "content-type": "application/json" })
        .end(isTicket ? JSON.stringify({ ticket: "ticket", expires: "2027-01-01T00:00:00Z" }) : body);
    };
    const url = listening.url.replace("echo", path);
    expect(await codeOf(connectTo({ url }, { WebSocket: BrowserLike, token: "secret" }))).toBe(code);
    expect(asked).toEqual(
      ["/api/v1/tickets", "/api/v1/guests/demo/endpoints"].flatMap((path) => [path, "Bearer secret"]),
    );
  });

  test("unless it is to keep trying", async () => {
    const listening = await Peer.listen();
    listening.refuse(404, "endpoint-unknown", "not yet");
    const reconnect = { initial: true, minDelay: 1, maxDelay: 1 };
    const opening = connectTo(listening, { reconnect });
    await listening.refused(3);
    listening.refusal = undefined;
    (await listening.connection()).hello();
    expect((await opening).endpoint).toBe("echo");
  });

  test("where nothing listens", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}/ws/v1/demo/echo`;
    server.close();
    await once(server, "close");
    for (const Socket of [WebSocket, BrowserLike]) {
      const refused = connectTo({ url }, { WebSocket: Socket });
      await expect(refused).rejects.toMatchObject({ code: "unreachable", message: /ECONNREFUSED/ });
    }
  });

  test.each([
    ["another protocol", '{"type":"hello","protocol":"rpmsg.v2.json"}'],
    ["another frame", '{"type":"pong"}'],
    ["no frame", "hello"],
  ])("where what answers speaks %s", async (_what, text) => {
    const listening = await Peer.listen();
    const opening = connectTo(listening);
    const peer = await listening.connection();
    peer.socket.send(text);
    expect(await codeOf(opening)).toBe("unreachable");
    await peer.closed;
  });

  test("where nothing is said in time", async () => {
    const listening = await Peer.listen();
    const opening = connectTo(listening, { timeout: 20 });
    const peer = await listening.connection();
    await expect(opening).rejects.toMatchObject({ code: "unreachable", message: /20 ms/ });
    await peer.closed;
  });

  test("with the signal's reason, at any time", async () => {
    const listening = await Peer.listen();
    const reason = new Error("enough");
    expect(await codeOf(connectTo(listening, { signal: AbortSignal.abort(reason) }))).toBe(reason);
    const abort = new AbortController();
    const opening = connectTo(listening, { signal: abort.signal });
    const peer = await listening.connection();
    abort.abort(reason);
    expect(await codeOf(opening)).toBe(reason);
    await peer.closed;
    const hanging = new AbortController();
    listening.refuse(404, "not-found", "");
    listening.onRequest = () => hanging.abort(reason);
    const asking = connectTo(listening, { WebSocket: BrowserLike, signal: hanging.signal });
    expect(await codeOf(asking)).toBe(reason);
    expect(listening.upgrades).toBe(2);
  });

  test("with a plain mistake for a URL or a WebSocket that is none", async () => {
    await expect(connect("/ws/v1/demo/echo", { WebSocket })).rejects.toThrow(TypeError);
    class Unable extends WebSocket {
      constructor() {
        super(null);
        throw new Error("not from this page");
      }
    }
    const opening = connect("ws://h/ws/v1/demo/echo", { WebSocket: Unable });
    await expect(opening).rejects.toMatchObject({ code: "unreachable", message: /not from this page/ });
  });
});

test("without a WebSocket the error says which to give", async () => {
  const holder = globalThis as { WebSocket?: unknown };
  const { WebSocket: global } = holder;
  onTestFinished(() => {
    if (global !== undefined) holder.WebSocket = global;
  });
  delete holder.WebSocket;
  await expect(connect("ws://h/ws/v1/demo/echo")).rejects.toThrow(/\{ WebSocket \}.*"ws"/);
  const listening = await Peer.listen();
  holder.WebSocket = WebSocket;
  const opening = connect(listening.url, { pingInterval: 0 });
  (await listening.connection()).hello();
  (await opening).close();
  delete holder.WebSocket;
});
