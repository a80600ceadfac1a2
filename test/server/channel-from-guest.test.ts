import { Worker } from "node:worker_threads";
import { describe, expect, onTestFinished, test } from "vitest";
import { opcode, RawClient } from "./raw-client.ts";
import { eventually, testBridge } from "./support.ts";

describe("a client that does not read", () => {
  test("is closed with 1013 past its limit, while another goes on", async () => {
    const { connect, endpoint } = await testBridge({ limits: { slowReaderBytes: 65_536 } });
    const slow = await connect("/ws/v1/demo/source");
    const fast = await connect("/ws/v1/demo/source");
    slow.socket.pause();
    slow.send("200000 496");
    await endpoint("source", (each) => each.counters.messagesFromGuest > 1000);
    fast.send("2000 100");
    // The bursts come in turn; the slow one's is thrown away from its close on.
    const burst = await fast.take(2000);
    expect(burst.findIndex((each, i) => each.length !== 100 || each.readUInt32LE(0) !== i)).toBe(-1);
    await endpoint("source", (each) => each.clients === 1);
    slow.socket.resume();
    const { code, reason } = await slow.closed;
    expect([code, reason]).toEqual([1013, "slow reader: more than 65536 bytes wait"]);
    // What it got is a beginning without a gap.
    expect(slow.received).toBeGreaterThan(0);
    const kept = await slow.take(slow.received);
    expect(kept.findIndex((each, i) => each.length !== 496 || each.readUInt32LE(0) !== i)).toBe(-1);
    expect(kept.length).toBeLessThan(200_000);
  });

  test("and never finishes its close is cut off", async () => {
    const { connect, endpoint } = await testBridge({ limits: { slowReaderBytes: 65_536 } });
    const slow = await connect("/ws/v1/demo/source");
    slow.socket.pause();
    slow.send("100000 496");
    // The close takes its 5 seconds; the endpoint is rid of the client at once.
    await endpoint("source", (each) => each.clients === 0);
    slow.socket.resume();
    expect(await slow.closed).toMatchObject({ code: 1013 });
  });
});

test("a burst of 100,000 messages comes whole and in order", async () => {
  const { connect } = await testBridge({ limits: { slowReaderBytes: 2 ** 28 } });
  const client = await connect("/ws/v1/demo/source");
  client.send("100000 12");
  const burst = await client.take(100_000);
  expect(burst.findIndex((each, i) => each.length !== 12 || each.readUInt32LE(0) !== i)).toBe(-1);
});

describe("liveness", () => {
  test("a client that answers pings stays, however long it is silent", async () => {
    const { connect } = await testBridge({ limits: { pingInterval: 80, pongTimeout: 70 } });
    const client = await connect("/ws/v1/demo/echo");
    let pings = 0;
    client.socket.on("ping", () => pings++);
    await eventually("five pings", () => (pings >= 5 ? true : undefined));
    client.send("still here");
    expect(await client.text()).toBe("still here");
  });

  test("a client that answers none is cut off, and others stay", async () => {
    const { url, connect, endpoint } = await testBridge({ limits: { pingInterval: 100, pongTimeout: 80 } });
    const other = await connect("/ws/v1/demo/echo");
    const dead = await RawClient.open(url, "/ws/v1/demo/echo");
    expect((await endpoint("echo")).clients).toBe(2);
    await dead.ended;
    expect(dead.frames.map((each) => each.opcode)).toEqual([opcode.ping]);
    await endpoint("echo", (each) => each.clients === 1);
    other.send("still here");
    expect(await other.text()).toBe("still here");
  });

  test("a client that has answered stays, where it was the bridge that stood still", async () => {
    const { url, endpoint } = await testBridge({ limits: { pingInterval: 100, pongTimeout: 80 } });
    // In a thread of its own: it answers pings while this one stands still.
    const client = new Worker(
      `import { workerData, parentPort } from "node:worker_threads";
       import { WebSocket } from ${JSON.stringify(import.meta.resolve("ws"))};
       const socket = new WebSocket(workerData);
       socket.on("open", () => parentPort.postMessage("open"));
       socket.on("ping", () => parentPort.postMessage("ping"));
       socket.on("close", (code) => parentPort.postMessage(code));`,
      { eval: true, workerData: `${url.replace("http", "ws")}/ws/v1/demo/echo` },
    );
    onTestFinished(async () => void (await client.terminate()));
    const heard: unknown[] = [];
    client.on("message", (what) => heard.push(what));
    await endpoint("echo", (each) => each.clients === 1);
    await eventually("twenty pings, each with an answer that comes late", () => {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 150);
      return heard.length > 20 || heard.some((what) => typeof what === "number") ? true : undefined;
    });
    expect(new Set(heard)).toEqual(new Set(["open", "ping"]));
  });

  test("a client that gets messages but answers no ping is ended too", async () => {
    const { url, endpoint } = await testBridge({ limits: { pingInterval: 100, pongTimeout: 80 } });
    const dead = await RawClient.open(url, "/ws/v1/demo/sensor");
    dead.send(opcode.binary, Buffer.from("start 200"));
    await dead.ended;
    expect(dead.frames.filter((each) => each.opcode === opcode.binary).length).toBeGreaterThan(0);
    await endpoint("sensor", (each) => each.clients === 0);
  });

  test("a pong that was not asked for does not count as an answer to the next ping", async () => {
    const { url } = await testBridge({ limits: { pingInterval: 100, pongTimeout: 80 } });
    const dead = await RawClient.open(url, "/ws/v1/demo/echo");
    dead.send(opcode.pong);
    await dead.ended;
    expect(dead.frames.map((each) => each.opcode)).toEqual([opcode.ping]);
  });

  test("a time for the answer that is longer than the interval works too", async () => {
    const { url, connect } = await testBridge({ limits: { pingInterval: 50, pongTimeout: 120 } });
    const other = await connect("/ws/v1/demo/echo");
    const dead = await RawClient.open(url, "/ws/v1/demo/echo");
    await dead.ended;
    expect(other.socket.readyState).toBe(other.socket.OPEN);
  });
});
