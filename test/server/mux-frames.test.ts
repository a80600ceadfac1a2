import { describe, expect, test } from "vitest";
import { MuxClient, muxMessage, PEER } from "./mux-client.ts";
import { opcode, RawClient } from "./raw-client.ts";
import { testBridge } from "./support.ts";

const hostService = { name: "rpmsg-raw", address: 1040 };

async function muxBridge(limits: Record<string, number> = {}) {
  const running = await testBridge({
    guests: { demo: { kind: "emulated", endpoints: [hostService] } },
    limits,
  });
  return { ...running, mux: () => MuxClient.open(running.url) };
}

describe("the connection", () => {
  test("begins with a hello that names the protocol and the bridge", async () => {
    const { bridge, connect } = await muxBridge();
    for (const [path, protocols] of [
      ["/ws/v1", ["rpmsg.v1.mux"]],
      ["/ws/v1/", ["rpmsg.v9", "rpmsg.v1.mux"]],
      ["/ws/v1", []],
    ] as const) {
      const client = await connect(path, [...protocols]);
      expect(client.socket.protocol).toBe(protocols.length === 0 ? "" : "rpmsg.v1.mux");
      expect(JSON.parse(await client.text())).toEqual({
        type: "hello",
        protocol: "rpmsg.v1.mux",
        instance: bridge.instance,
      });
    }
  });

  test.each([
    ["/ws/v1", ["rpmsg.v1.raw"], "want rpmsg.v1.mux"],
    ["/ws/v1", ["rpmsg.v2.mux", "x"], "want rpmsg.v1.mux"],
    ["/ws/v1/demo/echo", ["rpmsg.v1.mux"], "want rpmsg.v1.raw, rpmsg.v1.json"],
    ["/ws/v1?share=shared", ["rpmsg.v1.mux"], "takes none"],
  ])("%s with %j is refused", async (path, protocols, detail) => {
    const { refusal } = await muxBridge();
    const problem = await refusal(path, { protocols });
    expect(problem).toMatchObject({ status: 400, code: "bad-request" });
    expect(problem.detail).toContain(detail);
  });

  test("a ping is answered with a pong", async () => {
    const { mux } = await muxBridge();
    const client = await mux();
    client.control({ type: "ping" });
    expect(await client.next()).toEqual({ type: "pong" });
  });
});

describe("subscribe", () => {
  test("gives what there is to know of the endpoint and the channel", async () => {
    const { mux, endpoint } = await muxBridge();
    const { id } = await endpoint("echo");
    const client = await mux();
    expect(await client.subscribed(7, "/ws/v1/demo/echo")).toEqual({
      type: "subscribed",
      sub: 7,
      guest: "demo",
      endpoint: "echo",
      id,
      local: expect.any(Number),
      endpointState: "connected",
      guestState: "attached",
      generation: 1,
      mtu: 496,
      credit: 65_536,
    });
    expect((await endpoint("echo")).clients).toBe(1);
  });

  test("a service of the host is shared, at its own address", async () => {
    const { mux, endpoint } = await muxBridge();
    await endpoint("rpmsg-raw", (each) => each.state === "connected");
    const client = await mux();
    const { local, id } = await client.subscribed(0, "/ws/v1/demo/rpmsg-raw");
    expect([local, id]).toEqual([1040, (await endpoint("rpmsg-raw")).id]);
  });

  test.each([
    ["/ws/v1/demo/echo@1024", "echo"],
    ["/ws/v1/demo/echo@0x400", "echo"],
    ["/ws/v1/demo/%65cho?origin=guest", "echo"],
    ["/ws/v1/demo/rpmsg-raw?origin=host&slow=pause", "rpmsg-raw"],
    ["/ws/v1/demo/sink?local=0x7d0", "sink"],
  ])("%s", async (path, name) => {
    const { mux, endpoint } = await muxBridge();
    await endpoint("rpmsg-raw", (each) => each.state === "connected");
    expect(await (await mux()).subscribed(1, path)).toMatchObject({ endpoint: name });
  });

  test("an endpoint by its id", async () => {
    const { mux, endpoint } = await muxBridge();
    const { id } = await endpoint("echo");
    expect(await (await mux()).subscribed(1, `/ws/v1/demo/~${id}`)).toMatchObject({ id });
  });

  test.each([
    ["/ws/v1/nobody/echo", "guest-unknown"],
    ["/ws/v1/demo/nothing", "endpoint-unknown"],
    ["/ws/v1/demo/echo@5", "endpoint-unknown"],
    ["/ws/v1/demo/~e999", "endpoint-unknown"],
    ["/ws/v1/demo/echo?origin=host", "endpoint-unknown"],
    ["/ws/v1/demo", "not-found"],
    ["/ws/v1", "not-found"],
    ["/ws/v1/demo/", "not-found"],
    ["/ws/v1/demo/echo/more", "not-found"],
    ["/ws/v1/demo/%zz", "not-found"],
    ["/api/v1/guests", "not-found"],
    ["", "not-found"],
    ["/ws/v1/demo/echo?share=sometimes", "bad-request"],
    ["/ws/v1/demo/echo?slow=never", "bad-request"],
    ["/ws/v1/demo/echo?local=-1", "bad-request"],
    ["/ws/v1/demo/echo?share=shared&share=private", "bad-request"],
    ["/ws/v1/demo/echo?takeover=1", "bad-request"],
    ["/ws/v1/demo/echo?encoding=hex", "bad-request"],
    ["/ws/v1/demo/echo?what=ever", "bad-request"],
    ["/ws/v1/demo/echo?local=53", "local-in-use"],
    ["/ws/v1/demo/echo?local=1040", "local-in-use"],
  ])("%s is refused with %s, and the number stays free", async (path, code) => {
    const { mux } = await muxBridge();
    const client = await mux();
    const error = await client.refused(3, path);
    expect(error).toMatchObject({ sub: 3, code });
    expect(error.message).not.toBe("");
    await client.subscribed(3, "/ws/v1/demo/echo");
  });

  test("a number that is in use is refused, and the subscription that has it goes on", async () => {
    const { mux, endpoint } = await muxBridge();
    const client = await mux();
    await client.subscribed(3, "/ws/v1/demo/echo");
    expect(await client.refused(3, "/ws/v1/demo/sink")).toMatchObject({ code: "subscription-in-use" });
    client.send(3, "still");
    expect((await client.take("message", 3)).bytes.toString()).toBe("still");
    expect((await endpoint("sink")).clients).toBe(0);
  });

  test("more than limits.subscriptions are refused until one is free", async () => {
    const { mux } = await muxBridge({ subscriptions: 2 });
    const client = await mux();
    await client.subscribed(1, "/ws/v1/demo/echo");
    await client.subscribed(2, "/ws/v1/demo/echo");
    expect(await client.refused(3, "/ws/v1/demo/echo")).toMatchObject({ code: "too-many-subscriptions" });
    client.control({ type: "unsubscribe", sub: 1 });
    await client.take("unsubscribed", 1);
    await client.subscribed(3, "/ws/v1/demo/echo");
    // Another connection has its own.
    await (await mux()).subscribed(1, "/ws/v1/demo/echo");
  });

  test("numbers are 32 bits of the client's choice", async () => {
    const { mux } = await muxBridge();
    const client = await mux();
    for (const sub of [0, 0xffff_ffff, 12_345]) {
      await client.subscribed(sub, "/ws/v1/demo/echo");
      client.send(sub, `to ${sub}`);
    }
    for (const sub of [12_345, 0xffff_ffff, 0]) {
      expect((await client.take("message", sub)).bytes.toString()).toBe(`to ${sub}`);
    }
  });
});

describe("unsubscribe", () => {
  test("ends the subscription; its number is free, and messages for it are errors", async () => {
    const { mux, endpoint } = await muxBridge();
    const client = await mux();
    await client.subscribed(1, "/ws/v1/demo/echo");
    client.control({ type: "unsubscribe", sub: 1 });
    expect(await client.next()).toEqual({ type: "unsubscribed", sub: 1 });
    expect((await endpoint("echo")).clients).toBe(0);
    client.send(1, "late", 9);
    expect(await client.next()).toMatchObject({
      type: "error",
      sub: 1,
      id: 9,
      code: "subscription-unknown",
    });
    await client.subscribed(1, "/ws/v1/demo/sink");
  });

  test("what was sent before it still arrives", async () => {
    const { mux, connect } = await muxBridge();
    const client = await mux();
    await client.subscribed(1, "/ws/v1/demo/sink");
    for (let i = 0; i < 5; i++) client.send(1, "x");
    client.control({ type: "unsubscribe", sub: 1 });
    await client.take("unsubscribed", 1);
    const other = await connect("/ws/v1/demo/sink");
    other.send("stat");
    expect(JSON.parse(await other.text())).toEqual({ messages: 5, bytes: 5 });
  });

  test.each([{ type: "unsubscribe", sub: 5 } as const, { type: "credit", sub: 5, bytes: 1 } as const])(
    "$type of a number that is not in use is an error",
    async (frame) => {
      const { mux } = await muxBridge();
      const client = await mux();
      client.control(frame);
      expect(await client.next()).toMatchObject({ type: "error", sub: 5, code: "subscription-unknown" });
    },
  );
});

describe("messages", () => {
  test("carry subscription, source and count one way, subscription, destination and number the other", async () => {
    const { mux, endpoint } = await muxBridge();
    const { address } = await endpoint("echo");
    const client = await mux();
    await client.subscribed(0x0102_0304, "/ws/v1/demo/echo");
    // 0102 0304, PEER, number 0x0506.
    client.socket.send(Buffer.from("04030201ffffffff06050000", "hex"));
    client.send(0x0102_0304, "second");
    const messages = await client.takeMany(2, "message");
    expect(messages).toEqual([
      { type: "message", sub: 0x0102_0304, src: address, seq: 1, bytes: Buffer.alloc(0) },
      { type: "message", sub: 0x0102_0304, src: address, seq: 2, bytes: Buffer.from("second") },
    ]);
    expect(await client.take("sent")).toEqual({ type: "sent", sub: 0x0102_0304, id: 0x0506 });
  });

  test("any bytes, up to the MTU", async () => {
    const { mux } = await muxBridge();
    const client = await mux();
    const { mtu } = await client.subscribed(1, "/ws/v1/demo/echo");
    for (const length of [0, 1, 31, 32, 33, 125, 126, mtu]) {
      const bytes = Buffer.from(Array.from({ length }, (_, i) => (i * 7 + length) & 0xff));
      client.send(1, bytes);
      expect((await client.take("message", 1)).bytes).toEqual(bytes);
    }
  });

  test("with a number are answered with sent, in order, those without are not", async () => {
    const { mux, connect } = await muxBridge();
    const client = await mux();
    await client.subscribed(1, "/ws/v1/demo/sink");
    for (const number of [5, 0, 4, 0xffff_ffff, 0, 4]) client.send(1, "x", number);
    await client.settled();
    expect(client.of(1)).toEqual([5, 4, 0xffff_ffff, 4].map((id) => ({ type: "sent", sub: 1, id })));
    const other = await connect("/ws/v1/demo/sink");
    other.send("stat");
    expect(JSON.parse(await other.text())).toMatchObject({ messages: 6 });
  });

  test("longer than the MTU are errors, the next one goes", async () => {
    const { mux } = await muxBridge();
    const client = await mux();
    const { mtu } = await client.subscribed(1, "/ws/v1/demo/sink");
    client.send(1, Buffer.alloc(mtu + 1), 1);
    client.send(1, Buffer.alloc(mtu + 1));
    client.send(1, Buffer.alloc(mtu), 2);
    const [first, second] = await client.takeMany(2, "error", 1);
    expect(first).toMatchObject({ id: 1, code: "too-large" });
    expect(first?.message).toContain(`${mtu + 1} bytes`);
    expect(second).toMatchObject({ code: "too-large" });
    expect(second).not.toHaveProperty("id");
    expect(await client.take("sent", 1)).toMatchObject({ id: 2 });
  });

  test("go to the peer and to whoever has sent to the channel, to nobody else and never to 53", async () => {
    const { mux, endpoint } = await muxBridge();
    const { address: echo } = await endpoint("echo");
    const { address: sink } = await endpoint("sink");
    const client = await mux();
    await client.subscribed(1, "/ws/v1/demo/echo");
    client.send(1, "by its address", 1, echo ?? 0);
    expect((await client.take("message", 1)).bytes.toString()).toBe("by its address");
    client.send(1, "elsewhere", 2, sink ?? 0);
    client.send(1, "name service", 3, 53);
    client.send(1, "nobody", 4, 99_999);
    const errors = await client.takeMany(3, "error", 1);
    expect(errors.map(({ id, code }) => [id, code])).toEqual([
      [2, "forbidden"],
      [3, "forbidden"],
      [4, "forbidden"],
    ]);
  });

  test("to a source of the channel's messages, though it is not the endpoint's peer any more", async () => {
    const { mux, endpoint } = await muxBridge();
    await endpoint("rpmsg-raw", (each) => each.state === "connected");
    const { address: echo } = await endpoint("echo");
    const client = await mux();
    await client.subscribed(1, "/ws/v1/demo/rpmsg-raw");
    await client.subscribed(2, "/ws/v1/demo/echo?local=2000");
    client.send(1, "to the other half");
    const { src } = await client.take("message", 1);
    expect(src).not.toBe(echo);
    client.send(1, "and back", 5, src);
    expect((await client.take("message", 1)).bytes.toString()).toBe("and back");
    // What one subscription has seen is nothing to another.
    client.send(2, "foreign", 6, src);
    expect(await client.take("error", 2)).toMatchObject({ id: 6, code: "forbidden" });
  });

  test("before the peer is known wait, and are told of when they go", async () => {
    const running = await testBridge({
      guests: { demo: { kind: "emulated", endpoints: [{ name: "fixed", ns: "none", address: 1500 }] } },
      limits: { sendTimeout: 50 },
    });
    const client = await MuxClient.open(running.url);
    expect(await client.subscribed(1, "/ws/v1/demo/fixed")).toMatchObject({ endpointState: "declared" });
    client.send(1, "nobody there", 1);
    client.send(1, "nobody there");
    const [first, second] = await client.takeMany(2, "error", 1);
    expect(first).toMatchObject({ id: 1, code: "no-peer" });
    expect(second).not.toHaveProperty("id");
    expect((await running.endpoint("fixed")).counters).toMatchObject({ accepted: 2, undelivered: 2 });
  });
});

describe("what is no frame", () => {
  test.each([
    ["not JSON", "hello"],
    ["nothing", ""],
    ["not an object", "17"],
    ["no type", "{}"],
    ["an unknown type", '{"type":"shout"}'],
    ["a type of the bridge", '{"type":"sent","sub":1,"id":1}'],
    ["no number", '{"type":"subscribe","path":"/ws/v1/demo/echo"}'],
    ["a number beyond 32 bits", '{"type":"subscribe","sub":4294967296,"path":"/ws/v1/demo/echo"}'],
    ["a number below 0", '{"type":"unsubscribe","sub":-1}'],
    ["half a number", '{"type":"unsubscribe","sub":0.5}'],
    ["credit below 0", '{"type":"credit","sub":1,"bytes":-1}'],
    ["credit beyond 2^31", '{"type":"credit","sub":1,"bytes":2147483649}'],
    ["a key too many", '{"type":"ping","why":"not"}'],
    ["a path that is too long", `{"type":"subscribe","sub":1,"path":"/ws/v1/demo/${"x".repeat(1100)}"}`],
  ])("%s is answered with bad-frame, and the connection goes on", async (_what, text) => {
    const { mux } = await muxBridge();
    const client = await mux();
    client.socket.send(text);
    expect(await client.next()).toMatchObject({ type: "error", code: "bad-frame" });
    await client.subscribed(1, "/ws/v1/demo/echo");
    client.send(1, "fine");
    expect((await client.take("message", 1)).bytes.toString()).toBe("fine");
  });

  test.each([0, 1, 4, 11])("a binary frame of %i bytes is a bad-frame", async (length) => {
    const { mux } = await muxBridge();
    const client = await mux();
    await client.subscribed(0, "/ws/v1/demo/sink");
    client.socket.send(Buffer.alloc(length));
    expect(await client.next()).toMatchObject({ type: "error", code: "bad-frame" });
    client.socket.send(Buffer.alloc(12));
    client.send(0, "x", 1);
    expect(await client.take("sent", 0)).toMatchObject({ id: 1 });
  });

  test("a message for a number that is not in use says so, with its own number", async () => {
    const { mux } = await muxBridge();
    const client = await mux();
    client.send(77, "x", 5);
    client.send(78, "x");
    const unknown = { type: "error", code: "subscription-unknown" };
    expect(await client.next()).toMatchObject({ ...unknown, sub: 77, id: 5 });
    const second = await client.next();
    expect(second).toMatchObject({ ...unknown, sub: 78 });
    expect(second).not.toHaveProperty("id");
  });

  test("bad UTF-8 ends the connection with 1007, a frame beyond 128 KiB with 1009", async () => {
    const { url } = await muxBridge();
    const text = await RawClient.open(url, "/ws/v1");
    text.send(opcode.text, Buffer.from([0xff, 0xfe]));
    expect(await text.closeCode()).toBe(1007);
    const client = await MuxClient.open(url);
    client.socket.send(Buffer.alloc(128 * 1024 + 1));
    expect(await client.closed).toBe(1009);
  });

  test("errors that a client does not read end its connection with 1013, and free what it had", async () => {
    const { url, endpoint } = await muxBridge({ slowReaderBytes: 4096 });
    const client = await RawClient.open(url, "/ws/v1");
    client.send(
      opcode.text,
      Buffer.from(JSON.stringify({ type: "subscribe", sub: 1, path: "/ws/v1/demo/echo" })),
    );
    await endpoint("echo", (each) => each.clients === 1);
    client.socket.pause();
    // Each costs the bridge an answer; what the kernels keep of those has its bounds.
    const frame = muxMessage(99, PEER, 7, "");
    const flood = async (): Promise<void> => {
      while (!client.socket.destroyed && (await endpoint("echo")).clients > 0) {
        for (let i = 0; i < 2000; i++) client.send(opcode.binary, frame);
      }
    };
    await flood();
    client.socket.resume();
    expect(await client.closeCode()).toBe(1013);
  });
});
