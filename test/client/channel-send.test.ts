import { getEventListeners } from "node:events";
import { describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { BrowserLike, codeOf, nextEvent, Peer } from "./peer.ts";

test("a string goes as utf8, bytes as base64, with what was asked besides", async () => {
  const { channel, peer } = await (await Peer.listen()).connect();
  void channel.send("ä");
  void channel.send(Uint8Array.of(0, 255), { dst: 7, timeout: 100 });
  expect(await peer.next()).toEqual({ type: "send", id: 1, data: "ä" });
  expect(await peer.next()).toEqual({
    type: "send",
    id: 2,
    data: "AP8=",
    encoding: "base64",
    dst: 7,
    timeout: 100,
  });
});

test("bytes are taken at the call: the caller may use them again", async () => {
  const { channel, peer } = await (await Peer.listen()).connect({ window: { messages: 1 } });
  const bytes = Uint8Array.of(1);
  void channel.send(bytes);
  void channel.send(bytes);
  bytes[0] = 2;
  const { id } = await peer.nextSend();
  peer.sent(id);
  expect(await peer.nextSend()).toMatchObject({ data: "AQ==" });
});

test("each promise gets the answer to its own message, in whatever order they come", async () => {
  const { channel, peer } = await (await Peer.listen()).connect();
  const results = Promise.allSettled(["a", "b", "c", "d"].map((data) => channel.send(data)));
  const [a, b, c, d] = [
    await peer.nextSend(),
    await peer.nextSend(),
    await peer.nextSend(),
    await peer.nextSend(),
  ];
  peer.failed(d.id, "no-buffer");
  peer.sent(b.id);
  peer.failed(a.id, "no-peer");
  peer.sent(c.id);
  const settled = await results;
  expect(settled.map((each) => each.status)).toEqual(["rejected", "fulfilled", "fulfilled", "rejected"]);
  expect(settled[0]).toMatchObject({ reason: { name: "RpmsgError", code: "no-peer", message: "no-peer" } });
  expect(settled[3]).toMatchObject({ reason: { code: "no-buffer" } });
});

test("answers to what nobody asked do nothing", async () => {
  const { channel, peer } = await (await Peer.listen()).connect();
  const result = channel.send("a");
  const { id } = await peer.nextSend();
  for (const other of ["1", 0, 99, "x"]) peer.sent(other);
  peer.failed(id, "no-buffer");
  peer.sent(id);
  expect(await codeOf(result)).toBe("no-buffer");
});

test("an error that comes after `sent` is an event", async () => {
  const { channel, peer } = await (await Peer.listen()).connect();
  const result = channel.send("a");
  const { id } = await peer.nextSend();
  const error = nextEvent(channel, "error");
  peer.sent(id);
  peer.failed(id, "guest-gone");
  await result;
  expect(await error).toMatchObject({ name: "RpmsgError", code: "guest-gone" });
});

describe("back-pressure", () => {
  test("no more messages are written than the window has, the rest in order as answers come", async () => {
    const { channel, peer } = await (await Peer.listen()).connect({ window: { messages: 3 } });
    const results = Array.from({ length: 10 }, (_, i) => channel.send(`${i}`));
    for (let i = 0; i < 10; i++) {
      await peer.settle();
      expect(peer.waiting).toBe(Math.min(3, 10 - i));
      const { id, data } = await peer.nextSend();
      expect(data).toBe(`${i}`);
      peer.sent(id);
    }
    await Promise.all(results);
  });

  test("no more bytes either; one message goes alone, however long", async () => {
    const { channel, peer } = await (await Peer.listen()).connect({ window: { bytes: 100 } });
    for (const length of [60, 40, 1, 500, 1, 50, 50])
      void channel.send("ä".repeat(length / 2) + "x".repeat(length % 2));
    const lengths: number[][] = [];
    for (let answered = 0; answered < 7; ) {
      await peer.settle();
      const written = await Promise.all(Array.from({ length: peer.waiting }, () => peer.nextSend()));
      lengths.push(written.map(({ data }) => Buffer.byteLength(data)));
      for (const { id } of written) peer.sent(id);
      answered += written.length;
    }
    expect(lengths).toEqual([[60, 40], [1], [500], [1, 50], [50]]);
  });

  test("past the queue's bounds a message is refused, until others were answered", async () => {
    const limits = { window: { messages: 2 }, queue: { messages: 3, bytes: 100 } };
    const { channel, peer } = await (await Peer.listen()).connect(limits);
    for (let i = 0; i < 5; i++) void channel.send("x");
    expect(await codeOf(channel.send("one too many"))).toBe("queue-full");
    for (let i = 0; i < 3; i++) peer.sent((await peer.nextSend()).id);
    await peer.settle();
    void channel.send("x".repeat(99));
    expect(await codeOf(channel.send("xx"))).toBe("queue-full");
    void channel.send("x");
    void channel.send("");
    expect(await codeOf(channel.send(""))).toBe("queue-full");
  });

  test("what no guest can take is refused at once", async () => {
    const { channel, peer } = await (await Peer.listen()).connect();
    expect(await codeOf(channel.send("x".repeat(65_520)))).toBe("too-large");
    void channel.send("x".repeat(65_519));
    expect((await peer.nextSend()).data.length).toBe(65_519);
  });
});

describe("an abort", () => {
  const reason = new Error("enough");

  test("before the call: nothing is sent", async () => {
    const { channel, peer } = await (await Peer.listen()).connect();
    expect(await codeOf(channel.send("a", { signal: AbortSignal.abort(reason) }))).toBe(reason);
    void channel.send("b");
    expect(await peer.nextSend()).toMatchObject({ data: "b" });
  });

  test("while the message waits: it is taken back, and makes room", async () => {
    const limits = { window: { messages: 1 }, queue: { messages: 2 } };
    const { channel, peer } = await (await Peer.listen()).connect(limits);
    const abort = new AbortController();
    void channel.send("a");
    const back = [channel.send("b", { signal: abort.signal }), channel.send("c", { signal: abort.signal })];
    abort.abort(reason);
    expect(await Promise.all(back.map(codeOf))).toEqual([reason, reason]);
    void channel.send("d");
    void channel.send("e");
    for (const data of ["a", "d", "e"]) {
      const frame = await peer.nextSend();
      expect(frame.data).toBe(data);
      peer.sent(frame.id);
    }
  });

  test("of one in the middle leaves the others as they are", async () => {
    const { channel, peer } = await (await Peer.listen()).connect({ window: { messages: 1 } });
    const abort = new AbortController();
    void channel.send("a");
    const back = channel.send("b", { signal: abort.signal });
    for (const data of ["c", "d", "e"]) void channel.send(data);
    abort.abort(reason);
    expect(await codeOf(back)).toBe(reason);
    for (const data of ["a", "c", "d", "e"]) {
      const frame = await peer.nextSend();
      expect(frame.data).toBe(data);
      peer.sent(frame.id);
    }
  });

  test("when it is written: the promise ends, and the window is filled until the answer", async () => {
    const limits = { window: { messages: 1 }, queue: { messages: 1 } };
    const { channel, peer } = await (await Peer.listen()).connect(limits);
    const abort = new AbortController();
    const result = channel.send("a", { signal: abort.signal });
    const { id } = await peer.nextSend();
    abort.abort(reason);
    expect(await codeOf(result)).toBe(reason);
    void channel.send("b");
    expect(await codeOf(channel.send("c"))).toBe("queue-full");
    await peer.settle();
    expect(peer.waiting).toBe(0);
    peer.sent(id);
    expect(await peer.nextSend()).toMatchObject({ data: "b" });
  });

  test("after the answer it does nothing", async () => {
    const { channel, peer } = await (await Peer.listen()).connect();
    const abort = new AbortController();
    const result = channel.send("a", { signal: abort.signal });
    peer.sent((await peer.nextSend()).id);
    await result;
    expect(getEventListeners(abort.signal, "abort")).toEqual([]);
    abort.abort(reason);
    await expect(result).resolves.toBeUndefined();
  });
});

describe("a connection is lost: messages before", () => {
  test("are answered in the resumed session; what was not written is, in order", async () => {
    const listening = await Peer.listen();
    const { channel, peer } = await listening.connect({ window: { messages: 2 } });
    const results = Promise.allSettled(["a", "b", "c", "d"].map((data) => channel.send(data)));
    const [a, b] = [await peer.nextSend(), await peer.nextSend()];
    peer.socket.terminate();
    await nextEvent(channel, "state");
    const late = channel.send("e");
    const again = await listening.connection();
    again.hello({ resumed: true });
    await again.settle();
    expect(again.waiting).toBe(0);
    again.sent(a.id);
    again.failed(b.id, "no-buffer");
    for (const data of ["c", "d", "e"]) {
      const frame = await again.nextSend();
      expect(frame.data).toBe(data);
      again.sent(frame.id);
    }
    await late;
    expect((await results).map(({ status }) => status)).toEqual([
      "fulfilled",
      "rejected",
      "fulfilled",
      "fulfilled",
    ]);
  });

  test("are not written to a connection that is about to end", async () => {
    let ending = false;
    class Ending extends BrowserLike {
      override get readyState() {
        return ending ? WebSocket.CLOSING : super.readyState;
      }
    }
    const listening = await Peer.listen();
    const { channel, peer } = await listening.connect({ WebSocket: Ending });
    ending = true;
    const result = channel.send("a");
    peer.socket.terminate();
    await peer.closed;
    expect(peer.waiting).toBe(0);
    ending = false;
    const again = await listening.connection();
    again.hello({ resumed: true });
    again.sent((await again.nextSend()).id);
    await result;
  });

  test.each([
    ["connection-lost", "was lost", {}],
    ["guest-gone", "in another generation", { generation: 2 }],
    ["guest-gone", "of another bridge", { instance: "other" }],
  ])("get %s where the session %s; what came after the loss is sent", async (code, _where, hello) => {
    const listening = await Peer.listen();
    const { channel, peer } = await listening.connect({ window: { messages: 1 } });
    const results = Promise.allSettled(["written", "not written"].map((data) => channel.send(data)));
    await peer.nextSend();
    peer.socket.terminate();
    await nextEvent(channel, "state");
    const late = channel.send("late");
    const again = await listening.connection();
    again.hello(hello);
    expect(await results).toMatchObject([
      { reason: { code, message: expect.stringContaining("not known") } },
      { reason: { code, message: expect.stringContaining("not sent") } },
    ]);
    const frame = await again.nextSend();
    expect(frame.data).toBe("late");
    again.sent(frame.id);
    await late;
  });

  test.each([
    [4001, "guest-gone"],
    [4002, "endpoint-gone"],
  ])("get their answer at once after %i: %s", async (closeCode, code) => {
    const listening = await Peer.listen();
    const { channel, peer } = await listening.connect({ window: { messages: 1 } });
    const results = ["a", "b"].map((data) => codeOf(channel.send(data)));
    await peer.nextSend();
    peer.socket.close(closeCode);
    expect(await Promise.all(results)).toEqual([code, code]);
  });

  test("are given up when their time is over: waiting for a connection, or for an answer that does not come", async () => {
    const listening = await Peer.listen();
    const { channel, peer } = await listening.connect({ window: { messages: 1 } });
    const written = codeOf(channel.send("a", { timeout: 1 }));
    const waiting = codeOf(channel.send("b", { timeout: 1 }));
    const patient = channel.send("c");
    await peer.nextSend();
    listening.refusal = { status: 404, body: "" };
    peer.socket.terminate();
    const late = nextEvent(channel, "state").then(() => codeOf(channel.send("d", { timeout: 1 })));
    for (const result of [written, waiting, late]) expect(await result).toBe("connection-lost");
    listening.refusal = undefined;
    const again = await listening.connection();
    again.hello({ resumed: true });
    const frame = await again.nextSend();
    expect(frame.data).toBe("c");
    again.sent(frame.id);
    await patient;
  });

  test("that have no answer in a resumed session make room for others when their time is over", async () => {
    const listening = await Peer.listen();
    const { channel, peer } = await listening.connect({ window: { messages: 1 } });
    const lost = codeOf(channel.send("a", { timeout: 100 }));
    await peer.nextSend();
    peer.socket.terminate();
    const again = await listening.connection();
    again.hello({ resumed: true });
    // Without a connection its own time would run.
    await again.settle();
    const next = channel.send("b", { timeout: 1 });
    expect(await lost).toBe("connection-lost");
    again.sent((await again.nextSend()).id);
    await next;
  });
});

test("a channel that is closed gives up what is unanswered, and takes no more", async () => {
  const { channel, peer } = await (await Peer.listen()).connect({ window: { messages: 1 } });
  const results = ["a", "b"].map((data) => channel.send(data));
  await peer.nextSend();
  channel.close();
  expect(await Promise.all(results.map(codeOf))).toEqual(["closed", "closed"]);
  expect(await codeOf(channel.send("c"))).toBe("closed");
  expect(await peer.closed).toBe(1000);
});
