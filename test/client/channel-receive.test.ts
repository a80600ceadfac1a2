import { describe, expect, test } from "vitest";
import type { Message } from "../../client/index.ts";
import { codeOf, nextEvent, Peer } from "./peer.ts";

const texts = (messages: Message[]) => messages.map(({ text }) => text);

test("a message has its bytes and its text, whatever its encoding", async () => {
  const { channel, peer } = await (await Peer.listen()).connect();
  peer.send({ type: "message", seq: 1, src: 7, data: "ä", encoding: "utf8" });
  peer.send({ type: "message", seq: 2, src: 8, data: "/2E=", encoding: "base64" });
  peer.send({ type: "message", seq: 5, src: 7, data: "ff61", encoding: "hex" });
  const [a, b, c] = [await channel.receive(), await channel.receive(), await channel.receive()];
  expect(a).toMatchObject({ seq: 1, src: 7, text: "ä", data: Uint8Array.of(0xc3, 0xa4) });
  expect(b).toMatchObject({ seq: 2, src: 8, text: "\uFFFDa", data: Uint8Array.of(0xff, 0x61) });
  expect(c).toMatchObject({ seq: 5, src: 7, text: "\uFFFDa", data: Uint8Array.of(0xff, 0x61) });
});

describe("a loop over the channel", () => {
  test("gets what came before it began, and what comes; it may be left and entered again", async () => {
    const { channel, peer } = await (await Peer.listen()).connect();
    for (let seq = 1; seq <= 3; seq++) peer.message(seq);
    await peer.settle();
    const first: Message[] = [];
    for await (const message of channel) {
      first.push(message);
      if (first.length === 2) break;
    }
    const second: Message[] = [];
    for await (const message of channel) {
      second.push(message);
      if (second.length === 1) peer.message(4);
      else break;
    }
    expect([texts(first), texts(second)]).toEqual([
      ["1", "2"],
      ["3", "4"],
    ]);
  });

  test("ends with what is left when the channel is closed", async () => {
    const { channel, peer } = await (await Peer.listen()).connect();
    peer.message(1);
    await peer.settle();
    channel.close();
    const all: Message[] = [];
    for await (const message of channel) all.push(message);
    expect(texts(all)).toEqual(["1"]);
    expect(await codeOf(channel.receive())).toBe("closed");
  });

  test("throws when the channel ends otherwise, whether it waits or not", async () => {
    const { channel, peer } = await (await Peer.listen()).connect();
    const waiting = channel.receive();
    const loop = channel[Symbol.asyncIterator]();
    const pending = loop.next();
    peer.socket.close(4003);
    expect(await codeOf(waiting)).toBe("replaced");
    expect(await codeOf(pending)).toBe("replaced");
    expect(await codeOf(loop.next())).toBe("replaced");
  });

  test("that does not come loses the oldest messages past the bound, and is told how many", async () => {
    const { channel, peer } = await (await Peer.listen()).connect({ inbox: { messages: 3 } });
    const dropped: unknown[] = [];
    channel.on("dropped", (event) => dropped.push(event));
    for (let seq = 1; seq <= 5; seq++) peer.message(seq);
    await peer.settle();
    expect(dropped).toEqual([
      { count: 1, by: "client" },
      { count: 1, by: "client" },
    ]);
    const left = [await channel.receive(), await channel.receive(), await channel.receive()];
    expect(texts(left)).toEqual(["3", "4", "5"]);
  });

  test("bytes are bounded, too; the newest message stays, however long it is", async () => {
    const { channel, peer } = await (await Peer.listen()).connect({ inbox: { bytes: 10 } });
    const dropped: unknown[] = [];
    channel.on("dropped", ({ count }) => dropped.push(count));
    peer.message(1, "12345");
    peer.message(2, "67890");
    await peer.settle();
    expect(dropped).toEqual([]);
    peer.message(3, "x".repeat(20));
    await peer.settle();
    expect(dropped).toEqual([2]);
    expect((await channel.receive()).seq).toBe(3);
    peer.message(4, "12345");
    peer.message(5, "67890");
    await peer.settle();
    expect(dropped).toEqual([2]);
    expect((await channel.receive()).seq).toBe(4);
  });
});

describe("a message listener", () => {
  test("gets what came before it, first, and nothing is kept for loops besides", async () => {
    const { channel, peer } = await (await Peer.listen()).connect({ inbox: { messages: 2 } });
    peer.message(1);
    peer.message(2);
    await peer.settle();
    const seen: Message[] = [];
    channel.on("dropped", () => expect.unreachable());
    channel.on("message", (message) => seen.push(message));
    expect(seen).toEqual([]);
    for (let seq = 3; seq <= 9; seq++) peer.message(seq);
    await peer.settle();
    expect(texts(seen).join("")).toBe("123456789");
  });

  test("gets messages in order where more come before it has had those that waited", async () => {
    const { channel, peer } = await (await Peer.listen()).connect();
    const seen: Message[] = [];
    channel.on("dropped", () => {
      channel.on("message", (message) => seen.push(message));
    });
    // In one piece, so that the client reads it in one go.
    peer.request.socket.cork();
    peer.message(1);
    peer.send({ type: "dropped", count: 1 });
    peer.message(3);
    peer.request.socket.uncork();
    await peer.settle();
    expect(texts(seen)).toEqual(["1", "3"]);
  });

  test("that another one adds gets what comes after", async () => {
    const { channel, peer } = await (await Peer.listen()).connect();
    const seen: Message[] = [];
    const off = channel.on("message", () => {
      off();
      channel.on("message", (message) => seen.push(message));
    });
    peer.message(1);
    peer.message(2);
    await peer.settle();
    expect(texts(seen)).toEqual(["2"]);
  });

  test("gets nothing after the channel was closed", async () => {
    const { channel, peer } = await (await Peer.listen()).connect();
    const seen: Message[] = [];
    channel.on("message", (message) => seen.push(message));
    peer.message(1);
    await peer.settle();
    channel.close();
    peer.message(2);
    await peer.closed;
    expect(texts(seen)).toEqual(["1"]);
  });

  test("that ends leaves what comes then to the next one", async () => {
    const { channel, peer } = await (await Peer.listen()).connect();
    for (let seq = 1; seq <= 3; seq++) peer.message(seq);
    await peer.settle();
    expect((await nextEvent(channel, "message")).seq).toBe(1);
    peer.message(4);
    await peer.settle();
    const seen: Message[] = [];
    channel.on("message", (message) => seen.push(message));
    peer.message(5);
    await peer.settle();
    expect(texts(seen).join("")).toBe("2345");
  });

  test("and a loop each get everything", async () => {
    const { channel, peer } = await (await Peer.listen()).connect();
    const first = channel.receive();
    const seen: Message[] = [];
    channel.on("message", (message) => seen.push(message));
    peer.message(1);
    peer.message(2);
    expect([(await first).seq, (await channel.receive()).seq]).toEqual([1, 2]);
    expect(texts(seen)).toEqual(["1", "2"]);
  });

  test("that throws stops neither the others nor the channel; its error is one that nobody caught", async () => {
    const { channel, peer } = await (await Peer.listen()).connect();
    const uncaught = new Promise((resolve) => {
      const others = process.rawListeners("uncaughtException");
      process.removeAllListeners("uncaughtException");
      process.once("uncaughtException", (error) => {
        for (const other of others) process.on("uncaughtException", other as () => void);
        resolve(error);
      });
    });
    const mistake = new Error("a listener's mistake");
    const off = channel.on("message", () => {
      off();
      throw mistake;
    });
    const seen: Message[] = [];
    channel.on("message", (message) => seen.push(message));
    peer.message(1);
    peer.message(2);
    expect(await uncaught).toBe(mistake);
    await peer.settle();
    expect(texts(seen)).toEqual(["1", "2"]);
  });
});

test("what the bridge drops is told as it counts it", async () => {
  const { channel, peer } = await (await Peer.listen()).connect();
  const dropped = nextEvent(channel, "dropped");
  peer.send({ type: "dropped", count: 12 });
  expect(await dropped).toEqual({ count: 12, by: "bridge" });
});

describe("a bridge that errs", () => {
  test.each([
    ["what is not JSON", "{"],
    ["a frame of an unknown type", '{"type":"later"}'],
    ["a frame without its fields", '{"type":"message"}'],
    ["a second hello", undefined],
    [
      "a message that is not in its encoding",
      '{"type":"message","seq":1,"src":7,"data":"*","encoding":"base64"}',
    ],
    ["a binary frame", Buffer.from('{"type":"pong"}')],
  ])("%s is an error that the channel survives", async (_what, data) => {
    const { channel, peer } = await (await Peer.listen()).connect();
    const error = nextEvent(channel, "error");
    if (data === undefined) peer.hello();
    else peer.socket.send(data);
    expect(await error).toMatchObject({ name: "RpmsgError", code: "bad-frame" });
    peer.message(2);
    expect((await channel.receive()).seq).toBe(2);
  });

  test("an error without an id is an event, its code whatever it says", async () => {
    const { channel, peer } = await (await Peer.listen()).connect();
    const error = nextEvent(channel, "error");
    peer.socket.send('{"type":"error","code":"of-a-later-version","message":"text"}');
    expect(await error).toMatchObject({ code: "of-a-later-version", message: "text" });
  });

  test("the same message twice comes once", async () => {
    const { channel, peer } = await (await Peer.listen()).connect();
    for (const seq of [1, 2, 2, 1, 3]) peer.message(seq);
    const seen = [await channel.receive(), await channel.receive(), await channel.receive()];
    expect(texts(seen)).toEqual(["1", "2", "3"]);
  });
});
