import { once } from "node:events";
import type { AddressInfo, Server, Socket } from "node:net";
import { connect, createServer } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import type { WebSocket } from "ws";
import { WebSocketServer } from "ws";
import {
  assertGeneratorNotBottleneck,
  cpuUse,
  formatTable,
  median,
  runLoad,
  startProcess,
} from "../../bench/harness.ts";
import { generateLoad } from "../../bench/load/load-generator.ts";
import type { LoadOptions, LoadResult } from "../../bench/load/load-options.ts";

const cleanups: (() => void)[] = [];

afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

/** Starts a ws server; `connected` says what it does with a connection. */
async function serve(connected: (ws: WebSocket) => void): Promise<number> {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: false });
  server.on("connection", connected);
  cleanups.push(() => {
    for (const client of server.clients) client.terminate();
    server.close();
  });
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

/** Starts a server that answers the n-th message of a connection with what `answers` makes of it. */
function serveAnswers(answers: (message: Buffer, n: number) => Buffer[]): Promise<number> {
  return serve((ws) => {
    let n = 0;
    ws.on("message", (data: Buffer) => {
      for (const answer of answers(data, n++)) ws.send(answer);
    });
  });
}

const echo = (ws: WebSocket) => ws.on("message", (data, isBinary) => ws.send(data, { binary: isBinary }));

/** Milliseconds for the last answers, where they come: longer than a busy machine takes. */
const DRAIN = 10_000;
/** Where some of them never come. */
const SHORT_DRAIN = 500;

/**
 * @param enough answers that the run must have brought: on a busy machine it is repeated, longer each time, over new
 *   connections
 */
async function load(port: number, options: Partial<LoadOptions> = {}, enough = 0): Promise<LoadResult> {
  for (let measureMs = options.measureMs ?? 100; ; measureMs *= 3) {
    const result = await generateLoad({
      port,
      clients: 1,
      size: 64,
      inFlight: 8,
      warmupMs: 0,
      drainMs: DRAIN,
      ...options,
      measureMs,
    });
    if (result.messages >= enough || measureMs > 3000) return result;
  }
}

const CLEAN = { corrupted: 0, missing: 0, reordered: 0, protocol: 0 };

describe("a load on an echo server", () => {
  it("counts each answer once", async () => {
    let received = 0;
    const port = await serve((ws) => {
      echo(ws).on("message", () => received++);
    });
    const result = await load(port, { clients: 4, inFlight: 16, measureMs: 1000 });
    expect(result).toMatchObject({ errors: 0, faults: CLEAN, firstFault: null, unexpected: 0 });
    expect(result.messages).toBeGreaterThan(100);
    // All but those of the drain fall into the measured time.
    expect(result.messages).toBeLessThanOrEqual(received);
    expect(result.messages).toBeGreaterThanOrEqual(received - 4 * 16);
    expect(result.perSecond).toBeCloseTo(result.messages / result.seconds);
    expect(result.seconds).toBeGreaterThan(0.99);
    expect(result.p50us).toBeGreaterThan(0);
    expect(result.p99us).toBeGreaterThanOrEqual(result.p50us);
    expect(result.cpu).toBeGreaterThan(0);
  });

  it.each([
    8, // the least
    125, // the greatest with a length of 7 bits
    126, // the least with one of 16 bits
    65_535, // the greatest with one of 16 bits
    65_536, // the least with one of 64 bits
    1 << 20, // more than a read takes
  ])("sends and checks messages of %i bytes", async (size) => {
    const sizes = new Set<number>();
    const port = await serve((ws) => {
      echo(ws).on("message", (data: Buffer) => sizes.add(data.length));
    });
    const result = await load(port, { size, inFlight: 3 }, 1);
    expect(result).toMatchObject({ errors: 0, unexpected: 0 });
    expect(result.messages).toBeGreaterThan(0);
    expect([...sizes]).toEqual([size]);
  });

  it("keeps exactly as many messages outstanding as asked for", async () => {
    let held: Buffer[] = [];
    let most = 0;
    const port = await serve((ws) => {
      ws.on("message", (data: Buffer) => {
        held.push(data);
        most = Math.max(most, held.length);
        // Nothing is answered before all are here; a run that sends fewer would come to nothing.
        if (held.length < 5) return;
        for (const message of held) ws.send(message);
        held = [];
      });
    });
    const result = await load(port, { inFlight: 5, drainMs: SHORT_DRAIN }, 6);
    expect(result.messages).toBeGreaterThan(5);
    expect(result.errors).toBeLessThan(5); // the last few were waiting for company
    expect(most).toBe(5);
  });

  it.each([1, 3, 7])("takes frames that come in pieces of %i bytes", async (piece) => {
    const target = await serve((ws) => {
      ws.send(Buffer.alloc(300)); // a greeting, in pieces too
      echo(ws);
    });
    const port = await slicingProxy(target, piece);
    const result = await load(port, { size: 130, inFlight: 2, measureMs: 300 }, 1);
    expect(result).toMatchObject({ errors: 0, unexpected: 1 });
    expect(result.messages).toBeGreaterThan(0);
  });

  it("asks for the subprotocol", async () => {
    const protocols: string[] = [];
    const port = await serve((ws) => {
      protocols.push(ws.protocol);
      echo(ws);
    });
    await load(port, { subprotocol: "rpmsg.v1" });
    expect(protocols).toEqual(["rpmsg.v1"]);
  });
});

/** Passes bytes on; those to the client a few at a time, one piece a turn of the event loop. */
async function slicingProxy(target: number, piece: number): Promise<number> {
  const proxy: Server = createServer({ noDelay: true }, (client: Socket) => {
    const server = connect(target, "127.0.0.1");
    let waiting = Buffer.alloc(0);
    const step = () => {
      client.write(waiting.subarray(0, piece));
      waiting = waiting.subarray(piece);
      if (waiting.length > 0) setImmediate(step);
    };
    server.on("data", (chunk) => {
      if (waiting.length === 0) setImmediate(step);
      waiting = Buffer.concat([waiting, chunk]);
    });
    client.pipe(server);
    for (const [one, other] of [
      [client, server],
      [server, client],
    ] as const) {
      one.on("error", () => other.destroy());
      one.on("close", () => other.destroy());
    }
  });
  proxy.listen(0, "127.0.0.1");
  cleanups.push(() => proxy.close());
  await once(proxy, "listening");
  return (proxy.address() as AddressInfo).port;
}

describe("faults of a server", () => {
  it.each(["first", "last"] as const)("notices a changed %s byte of one message", async (which) => {
    const port = await serveAnswers((message, n) => {
      // The first byte belongs to the sequence number: this one is of a message that was never sent.
      const at = which === "last" ? 63 : 3;
      if (n === 10) message.writeUInt8(message.readUInt8(at) ^ 0x40, at);
      return [message];
    });
    const result = await load(port, {}, 12);
    expect(result.faults).toEqual({ ...CLEAN, corrupted: 1 });
    expect(result.errors).toBe(1);
    expect(result.firstFault).toBe("wrong content instead of answer 10");
  });

  it("notices a byte inside the messages that is always wrong", async () => {
    const port = await serveAnswers((message) => {
      message.writeUInt8(message.readUInt8(30) ^ 1, 30);
      return [message];
    });
    const { faults, messages } = await load(port, {}, 64);
    expect(faults).toMatchObject({ missing: 0, reordered: 0, protocol: 0 });
    expect(faults.corrupted).toBeGreaterThanOrEqual(Math.floor(messages / 64));
    expect(faults.corrupted).toBeGreaterThan(0);
  });

  it("notices an answer of another length", async () => {
    const port = await serveAnswers((message, n) => [n === 10 ? message.subarray(0, 63) : message]);
    expect((await load(port, {}, 12)).faults).toEqual({ ...CLEAN, corrupted: 1 });
  });

  it("notices a frame that no server may send", async () => {
    const port = await serveRaw("HTTP/1.1 101 x\r\n\r\n\x82\x80\x01\x02\x03\x04"); // masked
    const result = await load(port);
    expect(result.faults).toEqual({ ...CLEAN, protocol: 1 });
    expect(result.firstFault).toBe("frame that begins with 8280");
  });

  it("notices answers to another connection", async () => {
    let first: Buffer | undefined;
    const port = await serve((ws) => {
      ws.on("message", (data: Buffer) => {
        first ??= data;
        ws.send(data[63] === first[63] ? data : first);
      });
    });
    expect((await load(port, { clients: 2, drainMs: SHORT_DRAIN }, 2)).faults.corrupted).toBeGreaterThan(0);
  });

  it("notices missing messages and goes on", async () => {
    const port = await serveAnswers((message, n) => (n === 10 || n === 11 || n === 30 ? [] : [message]));
    const result = await load(port, {}, 51);
    expect(result.faults).toEqual({ ...CLEAN, missing: 3 });
    expect(result.messages).toBeGreaterThan(50);
  });

  it("notices that the last messages have no answer", async () => {
    const port = await serveAnswers((message, n) => (n < 100 ? [message] : []));
    const result = await load(port, { measureMs: 300, drainMs: SHORT_DRAIN }, 100);
    expect(result.messages).toBe(100);
    expect(result.faults).toEqual({ ...CLEAN, missing: 8 });
    expect(result.firstFault).toBe("8 messages without an answer at the end");
  });

  it("notices an answer that was overtaken: as missing, then as out of order", async () => {
    const held: Buffer[] = [];
    const port = await serveAnswers((message, n) => {
      if (n === 10) held.push(message);
      if (n === 10) return [];
      return [message, ...held.splice(0)];
    });
    expect((await load(port, {}, 12)).faults).toEqual({ ...CLEAN, missing: 1, reordered: 1 });
  });

  it("notices an answer that comes twice", async () => {
    const port = await serveAnswers((message, n) => (n === 10 ? [message, message] : [message]));
    expect((await load(port, {}, 12)).faults).toEqual({ ...CLEAN, reordered: 1 });
  });

  it("ends when the server closes the connection", async () => {
    const port = await serve((ws) => {
      echo(ws).once("message", () => ws.close(1013, "come back later"));
    });
    const result = await load(port, { drainMs: 60_000 });
    expect(result.faults.protocol).toBe(1);
    expect(result.firstFault).toBe("closed by the server with 1013 come back later");
  });

  it("ends when the server drops the connection", async () => {
    const port = await serve((ws) => {
      ws.once("message", () => ws.terminate());
    });
    const result = await load(port, { drainMs: 60_000 });
    expect(result.faults).toEqual({ ...CLEAN, missing: 8, protocol: 1 });
  });

  it.each([
    [
      "no WebSocket server",
      () => serveRaw("HTTP/1.1 404 Not Found\r\n\r\n"),
      {},
      "refused: HTTP/1.1 404 Not Found",
    ],
    [
      "no answer to the handshake",
      () => serveRaw(undefined),
      {},
      "ended the connection during the handshake",
    ],
    [
      "another subprotocol",
      () => serveRaw("HTTP/1.1 101 x\r\n\r\n"),
      { subprotocol: "a" },
      "subprotocol a asked for",
    ],
  ])("fails with %s", async (_name, start, options, message) => {
    await expect(load(await start(), { clients: 3, ...options })).rejects.toThrow(message);
  });

  it("fails when nobody listens", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    server.close();
    await once(server, "close");
    await expect(load(port)).rejects.toThrow("ECONNREFUSED");
  });
});

/** Starts a TCP server that answers the first bytes with a text, or hangs up. */
async function serveRaw(answer: string | undefined): Promise<number> {
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => (answer === undefined ? socket.destroy() : socket.write(answer, "latin1")));
  });
  server.listen(0, "127.0.0.1");
  cleanups.push(() => server.close());
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

describe("frames that are no answers", () => {
  it("counts text, empty frames and a greeting, and goes on", async () => {
    const port = await serve((ws) => {
      ws.send(Buffer.alloc(64)); // as long as an answer, but here with the handshake
      ws.once("message", () => {
        ws.send("hello");
        ws.send(Buffer.alloc(0));
      });
      echo(ws);
    });
    const result = await load(port, {}, 1);
    expect(result).toMatchObject({ errors: 0, unexpected: 3 });
    expect(result.messages).toBeGreaterThan(0);
  });

  it("answers a ping with its content", async () => {
    const pongs: string[] = [];
    const port = await serve((ws) => {
      ws.on("pong", (data) => pongs.push(data.toString()));
      ws.once("message", () => ws.ping("are you there"));
      echo(ws);
    });
    expect(await load(port)).toMatchObject({ errors: 0, unexpected: 0 });
    expect(pongs).toEqual(["are you there"]);
  });
});

describe("a stream of bytes", () => {
  /** Answers with all that came, in frames that begin and end anywhere. */
  const sliced = (piece: number) =>
    serve((ws) => {
      let waiting = Buffer.alloc(0);
      ws.on("message", (data: Buffer) => {
        waiting = Buffer.concat([waiting, data]);
        for (; waiting.length >= piece; waiting = waiting.subarray(piece))
          ws.send(waiting.subarray(0, piece));
      });
    });

  it.each([1, 50, 64, 200])("is cut into messages again, from frames of %d bytes", async (piece) => {
    // Of 16 outstanding messages at most three wait for the rest of a frame.
    const result = await load(await sliced(piece), { stream: true, inFlight: 16, drainMs: SHORT_DRAIN }, 17);
    expect(result.faults).toMatchObject({ corrupted: 0, reordered: 0, protocol: 0 });
    expect(result.messages).toBeGreaterThan(16);
  });

  it("notices a byte that is missing", async () => {
    const port = await serveAnswers((message, n) => [n === 10 ? message.subarray(1) : message]);
    const { faults } = await load(port, { stream: true, drainMs: SHORT_DRAIN }, 10);
    expect(faults.corrupted).toBeGreaterThan(0);
  });
});

it("gives each connection its own path", async () => {
  const paths = new Set<string | undefined>();
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
  cleanups.push(() => server.close());
  server.on("connection", (ws, request) => {
    paths.add(request.url);
    echo(ws);
  });
  await once(server, "listening");
  await load((server.address() as AddressInfo).port, { path: "/vm{n}/echo", clients: 3 });
  expect(paths).toEqual(new Set(["/vm0/echo", "/vm1/echo", "/vm2/echo"]));
});

describe("the peers", () => {
  it.each([
    ["naive", 64],
    ["batched", 496],
    ["ceiling", 64],
    ["ceiling", 125],
    ["ceiling", 70_000],
  ])("%s echoes %d bytes without a fault", async (name, size) => {
    const server = await startProcess(`bench/load/${name}${name === "ceiling" ? "" : "-echo"}-server.js`);
    try {
      const port = server.ready["port"] as number;
      const result = await load(port, { clients: 3, size, inFlight: 8 }, 9);
      expect(result).toMatchObject({ errors: 0, unexpected: 0 });
      expect(result.messages).toBeGreaterThan(8);
    } finally {
      await server.stop();
    }
  });
});

describe("the harness", () => {
  it("asks a process that it has loaded a probe into", async () => {
    const server = await startProcess("bench/load/naive-echo-server.js", [], { probe: true });
    const before = await server.ask("figures");
    expect(before).toMatchObject({ blockedMs: 0 });
    expect(before.rss).toBeGreaterThan(before.heapUsed);
    await server.ask("watch");
    await load(server.ready["port"] as number);
    expect((await server.ask("figures")).blockedMs).toBeGreaterThan(0);
    await server.stop();
    await expect(server.ask("figures")).rejects.toThrow("naive-echo-server.js has ended");
  });

  it("measures the naive server from another process", async () => {
    const server = await startProcess("bench/load/naive-echo-server.js");
    const port = server.ready["port"] as number;
    const options = {
      port,
      clients: 2,
      size: 64,
      inFlight: 4,
      warmupMs: 50,
      measureMs: 300,
      watchPids: [server.pid],
    };
    const used = await cpuUse(server.pid, async () => {
      const result = await runLoad(options);
      expect(result).toMatchObject({ errors: 0, unexpected: 0 });
      expect(result.messages).toBeGreaterThan(100);
      expect(result.watchedCpu[0]).toBeGreaterThan(0.1);
    });
    expect(used).toBeGreaterThan(0);
    await server.stop();
    expect(() => process.kill(server.pid, 0)).toThrow("ESRCH");
    await expect(runLoad(options)).rejects.toThrow("ECONNREFUSED");
  });

  it("says that a process came to nothing", async () => {
    const started = startProcess("bench/load/naive-echo-server.js", [], { nodeArguments: ["--version"] });
    await expect(started).rejects.toThrow("printed no ready line");
  });

  it("takes the middle of values", () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
    expect(median([])).toBeNaN();
  });

  it("prints a table", () => {
    expect(formatTable([{ server: "naive", "msg/s": 9 }, { server: "ours" }])).toBe(
      "| server | msg/s |\n| ------ | ----: |\n| naive  |     9 |\n| ours   |       |\n",
    );
  });

  it("warns when the generator may be what was measured", () => {
    const warnings: string[] = [];
    const check = (cpu: number, watchedCpu: number[]) =>
      assertGeneratorNotBottleneck({ cpu, watchedCpu } as LoadResult, (text) => warnings.push(text));
    expect([check(0.5, []), check(0.95, [0.5]), check(0.95, [0.99])]).toEqual([true, false, true]);
    expect(warnings).toHaveLength(1);
  });
});
