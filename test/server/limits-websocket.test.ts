import { randomBytes } from "node:crypto";
import { once } from "node:events";
import type { Socket } from "node:net";
import { connect } from "node:net";
import { join } from "node:path";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { clientFrame, opcode, RawClient } from "./raw-client.ts";
import { eventually, reached, testBridge, testDirectory } from "./support.ts";

const ECHO = "/ws/v1/demo/echo";

async function rawBridge(limits: NonNullable<Parameters<typeof testBridge>[0]>["limits"] = {}) {
  const running = await testBridge({ limits });
  await running.endpoint("echo");
  return { ...running, raw: () => RawClient.open(running.url, ECHO) };
}

/** The head of a frame of that length, masked with zeros. */
function head(code: number, length: number): Buffer {
  const bytes = Buffer.alloc(14);
  bytes[0] = 0x80 | code;
  bytes[1] = 0x80 | 127;
  bytes.writeUInt32BE(length, 6);
  return bytes;
}

describe("a message", () => {
  test("of payloadBytes is taken, one byte more is 1009 before it has come", async () => {
    const running = await rawBridge({ payloadBytes: 100 });
    const client = await running.raw();
    client.send(opcode.binary, Buffer.alloc(100, 1));
    expect((await client.frame((each) => each.opcode === opcode.binary)).payload).toHaveLength(100);
    client.socket.write(head(opcode.binary, 101));
    expect(await client.closeCode()).toBe(1009);
    await client.ended;
    expect(reached(running, "payloadBytes")).toBe(1);
  });

  test("over HTTP may be as long, and other bodies may not", async () => {
    const running = await rawBridge({ payloadBytes: 400, bodyBytes: 100 });
    const { id } = await running.endpoint("echo");
    const post = async (path: string, body: object) => {
      const headers = { "content-type": "application/json" };
      const answer = await fetch(`${running.url}/api/v1/guests/demo/endpoints${path}`, {
        method: "POST",
        headers,
        body: JSON.stringify(body),
      });
      return answer.status;
    };
    expect(await post(`/${id}/messages`, { data: "x".repeat(400) })).toBe(202);
    expect(await post(`/${id}/messages`, { data: "x".repeat(900) })).toBe(413);
    expect(reached(running, "bodyBytes")).toBe(1);
    const declaration = { name: "n", ns: "none", address: 5000 };
    expect(await post("", declaration)).toBe(201);
    expect(await post("", { ...declaration, name: "n".repeat(100) })).toBe(413);
  });

  test.each([
    [16, undefined],
    [3, 3],
  ])("in %i fragments is taken, in one more it is 1008", async (most, fragments) => {
    const running = await rawBridge(fragments === undefined ? {} : { fragments });
    const send = (client: RawClient, count: number) => {
      for (let i = 0; i < count; i++) {
        client.send(i === 0 ? opcode.binary : opcode.continuation, Buffer.of(i), i === count - 1);
      }
    };
    const client = await running.raw();
    send(client, most);
    expect((await client.frame((each) => each.opcode === opcode.binary)).payload).toHaveLength(most);
    send(client, most + 1);
    expect(await client.closeCode()).toBe(1008);
    await client.ended;
    expect(reached(running, "fragments")).toBe(1);
  });

  test("of one-byte fragments without an end is over at the 17th", async () => {
    const running = await rawBridge();
    const client = await running.raw();
    client.send(opcode.binary, Buffer.of(0), false);
    for (let i = 0; i < 100_000; i++) client.send(opcode.continuation, Buffer.of(0), false);
    expect(await client.closeCode()).toBe(1008);
  });

  test("that comes byte by byte is taken in bufferedChunks pieces and not in more", async () => {
    const running = await rawBridge({ bufferedChunks: 8 });
    /** Sends a frame of that many bytes one by one, each when the one before was read. */
    const trickle = async (client: RawClient, count: number) => {
      client.send(opcode.ping, Buffer.of(0));
      await client.frame((each) => each.opcode === opcode.pong);
      client.socket.setNoDelay(true);
      client.socket.write(head(opcode.binary, count));
      for (let i = 0; i < count; i++) {
        // The next turn of this loop is one of the bridge's too, which reads what has come.
        await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
        client.socket.write(Buffer.of(i));
      }
    };
    const client = await running.raw();
    await trickle(client, 200);
    expect(await client.closeCode()).toBe(1008);
    expect(reached(running, "bufferedChunks")).toBe(1);
  });
});

describe("messageRate", () => {
  test("holds a client up, and loses nothing", async () => {
    const running = await rawBridge({ limitLocal: true, messageRate: { perSecond: 500, burst: 100 } });
    const client = await running.raw();
    const start = performance.now();
    for (let i = 0; i < 400; i++) client.send(opcode.binary, Buffer.from(String(i)));
    await eventually("all of them", () =>
      client.frames.filter((each) => each.opcode === opcode.binary).length === 400 ? true : undefined,
    );
    // The kernel has them in one read: what was read is passed on, and the next message waits for its turn.
    client.send(opcode.binary, Buffer.from("next"));
    await client.frame((each) => each.payload.toString() === "next");
    expect(performance.now() - start).toBeGreaterThan(500);
    expect(
      client.frames.filter((each) => each.opcode === opcode.binary).map((each) => each.payload.toString()),
    ).toEqual([...Array.from({ length: 400 }, (_, i) => String(i)), "next"]);
    expect(reached(running, "messageRate")).toBeGreaterThan(0);
  });

  test("at it nobody is held up", async () => {
    const running = await rawBridge({ limitLocal: true, messageRate: { perSecond: 1, burst: 50 } });
    // Time stands still: nothing is refilled.
    vi.spyOn(performance, "now").mockReturnValue(performance.now());
    onTestFinished(() => void vi.restoreAllMocks());
    const client = await running.raw();
    for (let i = 0; i < 50; i++) client.send(opcode.binary, Buffer.of(i));
    await client.frame((each) => each.payload.equals(Buffer.of(49)));
    expect(reached(running, "messageRate")).toBe(0);
    client.send(opcode.ping, Buffer.of(1));
    await client.frame((each) => each.opcode === opcode.pong);
    expect(reached(running, "messageRate")).toBe(1);
  });

  test("a client that is held up is not taken for one that does not answer, and is closed at once", async () => {
    const running = await rawBridge({
      limitLocal: true,
      messageRate: { perSecond: 1, burst: 1 },
      pingInterval: 20,
      pongTimeout: 10,
    });
    const client = await running.raw();
    for (let i = 0; i < 60; i++) client.send(opcode.binary, Buffer.of(i));
    // Pings come, and nobody reads the answers for a minute.
    await client.frame((each) => each.opcode === opcode.ping, client.frames.length + 5);
    expect(client.socket.closed).toBe(false);
    void running.bridge.drain();
    expect(await client.closeCode()).toBe(1001);
  });
});

test("a client that floods is not taken for one that does not answer, and is when it floods no more", async () => {
  const running = await rawBridge({ pingInterval: 20, pongTimeout: 10, pendingPongs: 100_000 });
  const client = await running.raw();
  const flood = Buffer.concat(Array.from({ length: 200 }, () => clientFrame(opcode.ping, Buffer.alloc(100))));
  let [seen, pings] = [0, 0];
  await eventually("five pings", () => {
    client.socket.write(flood);
    for (; seen < client.frames.length; seen++) if (client.frames[seen]?.opcode === opcode.ping) pings++;
    return pings >= 5 || client.socket.closed ? true : undefined;
  });
  expect(client.socket.closed).toBe(false);
  await client.ended;
  expect(
    (await fetch(`${running.url}/metrics`).then((answer) => answer.text())).includes('cause="no-pong"} 1'),
  ).toBe(true);
});

describe("clients that do not play by the rules", () => {
  test("pings without reading: cut off, whatever is in the kernel's buffers", async () => {
    const running = await rawBridge();
    const client = await running.raw();
    client.socket.pause();
    const ping = Buffer.alloc(125, 7);
    let over = false;
    void client.ended.then(() => {
      over = true;
    });
    client.socket.on("error", () => {});
    // Pongs fill the kernel's buffers first.
    await eventually("its end", async () => {
      for (let i = 0; i < 2000 && !over; i++) client.send(opcode.ping, ping);
      if (reached(running, "pendingPongs") > 0) return true;
      await new Promise((resolve) => setImmediate(resolve));
      return undefined;
    });
    client.socket.resume();
    await client.ended;
    expect(reached(running, "pendingPongs")).toBe(1);
  });

  test("pings of a client that reads are all answered, however many come at once", async () => {
    const running = await rawBridge({ pendingPongs: 5 });
    const client = await running.raw();
    const pings = Array.from({ length: 100 }, (_, i) => clientFrame(opcode.ping, Buffer.from(`${i}`)));
    client.socket.write(Buffer.concat(pings));
    const last = await client.frame(
      (each) => each.opcode === opcode.pong && each.payload.toString() === "99",
    );
    expect(last.opcode).toBe(opcode.pong);
    expect(client.frames.filter((each) => each.opcode === opcode.pong)).toHaveLength(100);
    expect(reached(running, "pendingPongs")).toBe(0);
  });

  test("a close that is not answered ends within closeTimeout", async () => {
    const running = await rawBridge({ closeTimeout: 50 });
    const client = await running.raw();
    // Longer than a buffer of the guest. To what comes of it this client says nothing.
    client.send(opcode.binary, Buffer.alloc(1000));
    expect(await client.closeCode()).toBe(1009);
    await client.ended;
    const { closed } = running.bridge.counts;
    await eventually("its end", () => (new Map(closed.entries()).get("too-big") === 1 ? true : undefined));
    expect(reached(running, "closeTimeout")).toBe(1);
  });

  test.each([
    ["answered", (client: RawClient) => client.send(opcode.close, Buffer.of(0x03, 0xf1))],
    ["followed by the end of the connection", (client: RawClient) => void client.socket.end()],
    ["followed by its reset", (client: RawClient) => void client.socket.resetAndDestroy()],
  ])("a close that is %s has not reached closeTimeout", async (_how, end) => {
    const running = await rawBridge({ closeTimeout: 60_000 });
    const client = await running.raw();
    client.send(opcode.binary, Buffer.alloc(1000));
    expect(await client.closeCode()).toBe(1009);
    end(client);
    const { closed } = running.bridge.counts;
    await eventually("its end", () => (new Map(closed.entries()).get("too-big") === 1 ? true : undefined));
    expect(reached(running, "closeTimeout")).toBe(0);
  });

  test("a close of the client that is only begun does not hold up others, and the connection ends", async () => {
    const running = await rawBridge({ pingInterval: 30, pongTimeout: 30 });
    const client = await running.raw();
    // The head of a close frame, whose code never comes.
    client.socket.write(Buffer.of(0x88, 0x82, 0, 0, 0, 0, 0x03));
    await client.ended;
    expect((await running.raw()).socket.closed).toBe(false);
  });
});

/** A bare connection that has sent something. */
async function dial(url: string, text: string): Promise<{ socket: Socket; answer: Promise<string> }> {
  const socket = connect(Number(new URL(url).port), "127.0.0.1");
  onTestFinished(() => {
    socket.destroy();
  });
  await once(socket, "connect");
  let all = "";
  socket.on("error", () => {});
  socket.on("data", (part) => {
    all += part.toString("latin1");
  });
  socket.write(text);
  return { socket, answer: once(socket, "close").then(() => all) };
}

describe("requests that take too long", () => {
  const key = randomBytes(16).toString("base64");
  const upgrade = `GET ${ECHO} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n`;

  test.each([
    ["nothing at all", ""],
    ["half a head", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: "],
    ["half an upgrade", upgrade],
    ["half a key", `${upgrade}Sec-WebSocket-Key: ${key.slice(0, 5)}`],
  ])("headersTimeout: %s is cut off", async (_what, text) => {
    const running = await testBridge({ limits: { headersTimeout: 60 } });
    const { answer } = await dial(running.url, text);
    expect((await answer).split("\r\n")[0]).toMatch(/^(HTTP\/1.1 408 Request Timeout)?$/);
    expect(reached(running, "requestTimeout")).toBe(1);
  });

  test("a head that comes line by line is cut off all the same", async () => {
    const running = await testBridge({ limits: { headersTimeout: 60 } });
    const { socket, answer } = await dial(running.url, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n");
    const more = setInterval(() => socket.write("X-A: b\r\n"), 10);
    onTestFinished(() => clearInterval(more));
    expect(await answer).toContain(" 408 ");
  });

  test("requestTimeout: a body that does not come to its end is cut off", async () => {
    const running = await testBridge({ limits: { headersTimeout: 60, requestTimeout: 100 } });
    const { answer } = await dial(
      running.url,
      "POST /api/v1/guests/demo/endpoints HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
    );
    expect(await answer).toContain(" 408 ");
    expect(reached(running, "requestTimeout")).toBe(1);
  });

  /** Over a Unix socket, for whose path it is. */
  async function unixBridge(responseTimeout: number) {
    const path = join(testDirectory(), "socket");
    return { ...(await testBridge({ listen: `unix:${path}`, limits: { responseTimeout } })), path };
  }

  /** Asks for an answer that it does not take. */
  function ask(path: string): Socket {
    const socket = connect(path);
    onTestFinished(() => void socket.destroy());
    // 1.4 MB: more than the kernel takes for a Unix socket.
    socket.write("GET /docs/static/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n");
    return socket;
  }

  test("responseTimeout: an answer that nobody takes is cut off", async () => {
    const running = await unixBridge(100);
    ask(running.path);
    await eventually("its end", () => (reached(running, "responseTimeout") > 0 ? true : undefined));
    await eventually("the connection's", () => running.bridge.admission.connections === 0 || undefined);
    expect(reached(running, "responseTimeout")).toBe(1);
  });

  test("responseTimeout: a client that left before its answer is not waited for, nor counted", async () => {
    const running = await unixBridge(20);
    const { directory, admission, counts } = running.bridge;
    const id = await eventually(
      "the sink",
      () => directory.list(({ name }) => name === "sink").endpoints[0]?.id,
    );
    const body = JSON.stringify({ data: "nobody answers this", wait: 60_000 });
    const socket = connect(running.path);
    onTestFinished(() => void socket.destroy());
    socket.write(
      `POST /api/v1/guests/demo/endpoints/${id}/messages HTTP/1.1\r\nHost: localhost\r\n` +
        `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    await eventually("the message", () =>
      directory.byId(id)?.counters.messagesToGuest === 1 ? true : undefined,
    );
    socket.destroy();
    const refused = () => new Map(counts.rejected.http.entries()).get("no-reply");
    await eventually("the end of the wait", () => (refused() === 1 ? true : undefined));
    await eventually("its own end", () => (admission.connections === 0 ? true : undefined));
    // A time that began for that client would be over before that of the next one, which is as long and begins later.
    ask(running.path);
    await eventually("the next one", () => (admission.connections === 1 ? true : undefined));
    await eventually("its end", () => (admission.connections === 0 ? true : undefined));
    expect(reached(running, "responseTimeout")).toBe(1);
  });

  test("pipelined garbage is answered once, and over", async () => {
    const running = await testBridge();
    const garbage = randomBytes(300_000).toString("latin1");
    const { answer } = await dial(running.url, `GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n${garbage}`);
    const text = await answer;
    expect(text.match(/^HTTP\/1\.1 \d+/gm)).toContain("HTTP/1.1 400");
    await eventually("its end", () => (running.bridge.admission.connections === 0 ? true : undefined));
  });
});
