import { once } from "node:events";
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { Agent, request } from "node:https";
import type { Socket } from "node:net";
import { connect as connectPlain } from "node:net";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { json } from "node:stream/consumers";
import type { PeerCertificate } from "node:tls";
import { connect } from "node:tls";
import { pino } from "pino";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { WebSocket } from "ws";
import type { ConfigInput } from "../../schemas/index.ts";
import { EndpointList, Problem } from "../../schemas/index.ts";
import { startBridge } from "../../server/index.ts";
import { Authority } from "./certificates.ts";
import { Command } from "./cli-support.ts";
import { eventually, testDirectory } from "./support.ts";
import { allRights, testToken } from "./tokens.ts";

/** The status of an answer; rejects where none comes. */
async function ask(
  url: string,
  { body, ...options }: Record<string, unknown> & { body?: string },
  path = "/readyz",
): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    request(`${url}${path}`, { agent: false, ...options }, (response) => {
      response.resume();
      resolve(response.statusCode);
    })
      .on("error", reject)
      .end(body);
  });
}

/** Name of the certificate that a new connection gets. */
async function nameAt(url: string, ca: Buffer): Promise<unknown> {
  const socket = connect({ host: "127.0.0.1", port: Number(new URL(url).port), ca });
  await once(socket, "secureConnect");
  const { subject } = socket.getPeerCertificate() as Partial<PeerCertificate>;
  socket.destroy();
  return subject?.CN;
}

async function secureBridge(tls: ConfigInput["tls"], onLog: (line: string) => void = () => {}) {
  const log = pino({}, { write: onLog });
  const bridge = await startBridge({ listen: "127.0.0.1:0", tls }, { log });
  onTestFinished(() => bridge.close());
  return bridge;
}

test("connectRate: a connection too many is cut off before its handshake, and an upgrade costs nothing more", async () => {
  const authority = new Authority(testDirectory());
  const limits = { limitLocal: true, connectRate: { perSecond: 1, burst: 3 } };
  // Time stands still for the bucket.
  vi.spyOn(performance, "now").mockReturnValue(performance.now());
  onTestFinished(() => void vi.restoreAllMocks());
  const bridge = await startBridge({ listen: "127.0.0.1:0", tls: authority.issue("bridge"), limits });
  onTestFinished(() => bridge.close());
  const options = { ca: authority.pem };
  const socket = new WebSocket(`${bridge.url.replace("https", "wss")}/ws/v1/demo/echo`, options);
  await once(socket, "open");
  socket.terminate();
  expect([await ask(bridge.url, options), await ask(bridge.url, options)]).toEqual([200, 200]);
  await expect(ask(bridge.url, options)).rejects.toThrow(/reset|disconnected|hang up/);
});

describe("one request after another on one connection is nothing unusual", () => {
  /**
   * A bridge, and what its clients need for one connection, on which each request comes at once after an answer. It is
   * another process: over TLS Node hears later than such a client that an answer was written.
   */
  async function oneConnection() {
    const directory = testDirectory();
    const authority = new Authority(directory);
    const { cert, key } = authority.issue("bridge");
    const config = join(directory, "bridge.yaml");
    writeFileSync(config, `listen: 127.0.0.1:0\ntls: { cert: ${cert}, key: ${key} }\n`);
    const url = await Command.start(["serve", "--config", config]).url();
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    onTestFinished(() => agent.destroy());
    return { url, options: { ca: authority.pem, agent } };
  }

  test("documents, what is made anew, paths that cannot be decoded", async () => {
    const { url, options } = await oneConnection();
    const paths = ["/metrics", "/openapi.json", "/%ff", "/docs/static/swagger-ui-bundle.js", "/readyz"];
    for (let i = 0; i < 200; i++) {
      const path = paths[i % paths.length];
      expect(await ask(url, options, path)).toBe(path === "/%ff" ? 400 : 200);
    }
  });

  test("messages that wait for a reply", async () => {
    const { url, options } = await oneConnection();
    const [listed] = (await once(request(`${url}/api/v1/endpoints`, options).end(), "response")) as [
      Readable,
    ];
    const { endpoints } = EndpointList.parse(await json(listed));
    const id = endpoints.find(({ name }) => name === "echo")?.id;
    const path = `/api/v1/guests/demo/endpoints/${id}/messages`;
    const headers = { "content-type": "application/json" };
    const message = { method: "POST", headers, body: JSON.stringify({ data: "hello", wait: 15_000 }) };
    for (let i = 0; i < 150; i++) expect(await ask(url, { ...options, ...message }, path)).toBe(200);
  });

  test("a WebSocket behind an answer, and a message behind its handshake", async () => {
    const { url, options } = await oneConnection();
    const { agent } = options;
    const headers = {
      connection: "Upgrade",
      upgrade: "websocket",
      "sec-websocket-version": "13",
      "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
    };
    // RFC 6455, 5.2: binary, whole; 5 bytes, masked with 0.
    const frame = Buffer.concat([Buffer.of(0x82, 0x85, 0, 0, 0, 0), Buffer.from("hello")]);
    for (let i = 0; i < 30; i++) {
      expect(await ask(url, options, "/metrics")).toBe(200);
      const [before] = [agent.sockets, agent.freeSockets].flatMap((each) => Object.values(each)).flat();
      const upgrade = request(`${url}/ws/v1/demo/echo`, { ...options, headers });
      // When its head is on the way.
      upgrade.once("socket", (socket) => process.nextTick(() => socket.write(frame)));
      const [, socket, head] = (await once(upgrade.end(), "upgrade")) as [unknown, Socket, Buffer];
      onTestFinished(() => void socket.destroy());
      expect(socket === before).toBe(true);
      let got = head.toString("latin1");
      socket.on("data", (part: Buffer) => {
        got += part.toString("latin1");
      });
      await eventually("the echo", () => got === "\x82\x05hello" || undefined);
      socket.destroy();
    }
  });
});

test("the cap of connections holds for TLS over a Unix socket", async () => {
  const authority = new Authority(testDirectory());
  const path = join(testDirectory(), "socket");
  const tls = authority.issue("bridge");
  const bridge = await startBridge({ listen: `unix:${path}`, tls, limits: { connections: 1 } });
  onTestFinished(() => bridge.close());
  const options = { socketPath: path, path: "/readyz", ca: authority.pem, rejectUnauthorized: false };
  const first = connect({ path, ca: authority.pem, rejectUnauthorized: false });
  onTestFinished(() => void first.destroy());
  await once(first, "secureConnect");
  expect(await ask("https://localhost", options)).toBe(503);
});

describe("caps of connections over TLS", () => {
  /** A bridge, and what its clients need to trust it. */
  async function capped(input: ConfigInput) {
    const authority = new Authority(testDirectory());
    const tls = authority.issue("bridge");
    const bridge = await startBridge({ listen: "127.0.0.1:0", tls, ...input });
    onTestFinished(() => bridge.close());
    const ca = authority.pem;
    return {
      port: Number(new URL(bridge.url).port),
      status: (path: string, headers = {}) => ask(bridge.url, { ca, headers }, path),
      /** A WebSocket that is open, or the code with which it is refused. */
      open: async (headers = {}): Promise<WebSocket | string> => {
        const url = `${bridge.url.replace("https", "wss")}/ws/v1/demo/echo`;
        const socket = new WebSocket(url, { ca, headers });
        onTestFinished(() => socket.terminate());
        socket.on("error", () => {});
        const opened = once(socket, "open").then(() => socket);
        const refused = once(socket, "unexpected-response") as Promise<[unknown, IncomingMessage]>;
        const problem = refused.then(async ([, response]) => Problem.parse(await json(response)).code);
        return Promise.race([opened, problem]);
      },
    };
  }

  async function end(socket: WebSocket | string | undefined): Promise<void> {
    if (!(socket instanceof WebSocket)) throw new Error(`not open: ${socket}`);
    socket.close();
    await once(socket, "close");
  }

  /** As many are open as may be, one more is refused, and taken when one has left. */
  async function holdsAt(most: number, open: () => Promise<WebSocket | string>): Promise<void> {
    const sockets = [];
    for (let i = 0; i < most; i++) sockets.push(await open());
    expect(sockets.filter((each) => typeof each === "string")).toEqual([]);
    expect(await open()).toBe("too-many-connections");
    await end(sockets[0]);
    await eventually("room", async () => (typeof (await open()) === "string" ? undefined : true));
    expect(await open()).toBe("too-many-connections");
  }

  test("connectionsPerAddress: one counts once, with its handshake, its upgrade and its WebSocket", async () => {
    const { open, status } = await capped({ limits: { connectionsPerAddress: 3, limitLocal: true } });
    await holdsAt(3, open);
    expect(await status("/api/v1/events")).toBe(429);
    expect(await status("/healthz")).toBe(429);
  });

  test("connectionsPerAddress: far beyond it they are cut off before their handshake", async () => {
    const { port } = await capped({
      limits: { connectionsPerAddress: 1, limitLocal: true, connectRate: { perSecond: 1, burst: 100 } },
    });
    const dial = async () => {
      const socket = connectPlain(port, "127.0.0.1");
      onTestFinished(() => void socket.destroy());
      socket.on("error", () => {});
      await once(socket, "connect");
      return socket;
    };
    for (let i = 0; i < 1 + 64; i++) await dial();
    const last = await dial();
    if (!last.closed) await once(last, "close");
    expect(last.bytesRead).toBe(0);
  });

  test("connectionsPerAddress: behind a trusted proxy from the upgrade on", async () => {
    const { open } = await capped({
      trustedProxies: ["loopback"],
      limits: { connectionsPerAddress: 2 },
    });
    await holdsAt(2, () => open({ "x-forwarded-for": "203.0.113.9" }));
    expect(await open({ "x-forwarded-for": "203.0.113.10" })).toBeInstanceOf(WebSocket);
  });

  test("connectionsPerToken: a token has so many, and streams of events count as well", async () => {
    const [one, two] = [allRights(), testToken("other", { list: ["*/*"], read: ["*/*"] })];
    const { open, status } = await capped({
      tokens: [one.config, two.config],
      limits: { connectionsPerToken: 2 },
    });
    await holdsAt(2, () => open(one.headers));
    expect(await status("/api/v1/events", one.headers)).toBe(429);
    // Requests are no connections that stay.
    expect(await status("/api/v1/guests", one.headers)).toBe(200);
    expect(await open(two.headers)).toBeInstanceOf(WebSocket);
  });
});

describe("with a certificate", () => {
  test("everything goes over TLS: requests, WebSockets, messages both ways", async () => {
    const authority = new Authority(testDirectory());
    const { url } = await secureBridge(authority.issue("bridge"));
    expect(url).toMatch(/^https:\/\/127\.0\.0\.1:\d+$/);
    const ca = authority.pem;
    expect(await ask(url, { ca })).toBe(200);
    const socket = new WebSocket(`${url.replace("https", "wss")}/ws/v1/demo/echo`, { ca });
    await once(socket, "open");
    // More than one TLS record, all together.
    const payload = Buffer.alloc(496, "x");
    let bytes = 0;
    socket.on("message", (data: Buffer) => {
      bytes += data.length;
    });
    for (let i = 0; i < 100; i++) socket.send(payload);
    await eventually("all are back", () => (bytes === 49_600 ? true : undefined));
    socket.close();
    expect(await ask(url, { ca, method: "GET" }, "/ws/v1/demo/echo")).toBe(426);
    await expect(ask(url, {})).rejects.toThrow(/certificate/);
    await expect(fetch(url.replace("https", "http"))).rejects.toThrow();
  });

  test("a page of the same name that came without TLS gets nothing", async () => {
    const authority = new Authority(testDirectory());
    const { url } = await secureBridge(authority.issue("bridge"));
    const ca = authority.pem;
    const asPage = (origin: string) => ask(url, { ca, headers: { origin } });
    expect([await asPage(url), await asPage(url.replace("https", "http"))]).toEqual([200, 403]);
    const socket = new WebSocket(`${url.replace("https", "wss")}/ws/v1/demo/echo`, {
      ca,
      origin: url.replace("https", "http"),
    });
    const [, response] = (await once(socket, "unexpected-response")) as [unknown, IncomingMessage];
    expect(response.statusCode).toBe(403);
    response.resume();
  });

  test("TLS 1.1 is not spoken, 1.2 and 1.3 are", async () => {
    const authority = new Authority(testDirectory());
    const { url } = await secureBridge(authority.issue("bridge"));
    const ca = authority.pem;
    const only = (version: string) => ask(url, { ca, minVersion: version, maxVersion: version });
    expect([await only("TLSv1.2"), await only("TLSv1.3")]).toEqual([200, 200]);
    await expect(only("TLSv1.1")).rejects.toThrow();
  });

  test("it is read again when it changes; open connections stay; one that does not fit changes nothing", async () => {
    const directory = testDirectory();
    const authority = new Authority(directory);
    const [first, second] = [authority.issue("first"), authority.issue("second")];
    const files = { cert: join(directory, "now.pem"), key: join(directory, "now.key") };
    copyFileSync(first.cert, files.cert);
    copyFileSync(first.key, files.key);
    const lines: string[] = [];
    const { url } = await secureBridge(files, (line) => lines.push(line));
    const ca = authority.pem;
    expect(await nameAt(url, ca)).toBe("first");
    const socket = new WebSocket(`${url.replace("https", "wss")}/ws/v1/demo/echo`, { ca });
    await once(socket, "open");

    // A key of another one: this certificate is not used.
    copyFileSync(second.cert, files.cert);
    await eventually("it is refused", () => lines.find((line) => line.includes("tls-reload-failed")));
    expect(await nameAt(url, ca)).toBe("first");
    copyFileSync(second.key, files.key);
    await eventually("it is taken", () => lines.find((line) => line.includes("tls-reloaded")));
    expect(await nameAt(url, ca)).toBe("second");
    writeFileSync(files.cert, "no certificate");
    const failures = () => lines.filter((line) => line.includes("tls-reload-failed")).length;
    await eventually("it is refused again", () => (failures() > 1 ? true : undefined));
    expect(await nameAt(url, ca)).toBe("second");

    socket.send("still there");
    const [data] = (await once(socket, "message")) as [Buffer];
    expect(data.toString()).toBe("still there");
    socket.close();
  });
});

test("with clientCa only clients with a certificate of it come in", async () => {
  const directory = testDirectory();
  const [ours, theirs] = [new Authority(directory), new Authority(directory, "other")];
  const { url } = await secureBridge({ ...ours.issue("bridge"), clientCa: ours.cert });
  const as = ({ cert, key }: { cert: string; key: string }) => ({
    ca: ours.pem,
    cert: readFileSync(cert),
    key: readFileSync(key),
  });
  expect(await ask(url, as(ours.issue("client")))).toBe(200);
  await expect(ask(url, { ca: ours.pem })).rejects.toThrow();
  await expect(ask(url, as(theirs.issue("stranger")))).rejects.toThrow();
  const socket = new WebSocket(`${url.replace("https", "wss")}/ws/v1/demo/echo`, { ca: ours.pem });
  const [error] = (await once(socket, "error")) as [Error];
  expect(error.message).not.toContain("Unexpected server response");
});

test.each([
  ["cert", { cert: "/nowhere.pem", key: "bridge.key" }],
  ["key", { cert: "bridge.pem", key: "/nowhere.key" }],
  ["cert", { cert: "bridge.key", key: "bridge.key" }],
  ["key", { cert: "bridge.pem", key: "authority.key" }],
  ["clientCa", { cert: "bridge.pem", key: "bridge.key", clientCa: "bridge.key" }],
])("a mistake in tls.%s is named: %j", async (key, files) => {
  const directory = testDirectory();
  new Authority(directory).issue("bridge");
  const tls = Object.fromEntries(
    Object.entries(files).map(([name, file]) => [name, file.startsWith("/") ? file : join(directory, file)]),
  ) as ConfigInput["tls"];
  await expect(startBridge({ listen: "127.0.0.1:0", tls })).rejects.toThrow(`tls.${key}: `);
});

describe("the command line", () => {
  test("serves over TLS, reads the certificate again on SIGHUP, and its clients trust what --ca says", async () => {
    const directory = testDirectory();
    const authority = new Authority(directory);
    const { cert, key } = authority.issue("bridge");
    const config = join(directory, "bridge.yaml");
    writeFileSync(config, `listen: 127.0.0.1:0\ntls: { cert: ${cert}, key: ${key} }\n`);
    const bridge = Command.start(["serve", "--config", config]);
    const url = await bridge.url();
    expect(url).toMatch(/^https:/);
    bridge.signal("SIGHUP");
    await bridge.says("tls-reloaded");
    const trusting = ["--url", url, "--ca", authority.cert];
    for (const args of [
      ["ls", ...trusting],
      ["send", "demo/echo", "hello", "--wait", ...trusting],
    ]) {
      expect(await Command.run(args)).toMatchObject({ code: 0 });
    }
    const watch = Command.start(["watch", "--json", ...trusting]);
    expect(await watch.line()).toContain('"guest"');
    const { code, stderr } = await Command.run(["ls", "--url", url]);
    expect([code, stderr]).toEqual([1, expect.stringContaining("Name its authority with --ca.")]);
    expect((await Command.run(["ls", "--url", url, "--ca", "/nowhere"])).code).toBe(2);
  });
});
