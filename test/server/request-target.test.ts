import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { Agent as PlainAgent, request as plainRequest } from "node:http";
import { Agent as TlsAgent, request as tlsRequest } from "node:https";
import type { Socket } from "node:net";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { pino } from "pino";
import { afterAll, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import type { ConfigInput } from "../../schemas/index.ts";
import { EndpointList, Problem } from "../../schemas/index.ts";
import { startBridge } from "../../server/index.ts";
import type { Certificate } from "./certificates.ts";
import { Authority } from "./certificates.ts";

/** An answer as it came. */
interface Answer {
  readonly status: number;
  /** Its fields, in small letters, as far as there is a body behind them. */
  readonly fields: ReadonlyMap<string, string>;
  readonly body: string;
}

/** A connection on which one request after another is sent, and nothing is sent but what is given. */
class Wire {
  readonly socket: Socket;
  readonly #closed: Promise<unknown>;
  #received = "";

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on("error", () => {});
    socket.on("data", (part: Buffer) => {
      this.#received += part.toString("latin1");
    });
    this.#closed = new Promise((resolve) => socket.once("close", resolve));
    onTestFinished(() => void socket.destroy());
  }

  /** Resolves when the bridge has ended the connection. */
  get closed(): Promise<unknown> {
    return this.#closed;
  }

  /** The answer to a request; what has no length has no body here. */
  async ask(line: string, ...fields: string[]): Promise<Answer> {
    this.socket.write([line, ...fields, "", ""].join("\r\n"));
    const [, status, head = ""] = await this.take(/^HTTP\/1\.1 (\d+) [^\r]*\r\n(.*?)\r\n\r\n/s);
    const pairs = head.split("\r\n").map((field) => field.split(/: (.*)/));
    const known = new Map(pairs.map(([name = "", value = ""]) => [name.toLowerCase(), value]));
    const length = Number(known.get("content-length") ?? 0);
    const [body = ""] = await this.take(new RegExp(`^.{${length}}`, "s"));
    return { status: Number(status), fields: known, body };
  }

  /** Waits for what matches at the start of what has come, and takes it. */
  async take(pattern: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      const match = pattern.exec(this.#received);
      if (match !== null) {
        this.#received = this.#received.slice(match[0].length);
        return match;
      }
      const end = this.#closed.then(() => "end");
      const event = await Promise.race([once(this.socket, "data"), end]);
      if (event === "end" && !pattern.test(this.#received)) {
        throw new Error(`ended behind ${JSON.stringify(this.#received)}`);
      }
    }
  }
}

/** The code of a problem, after the check that it is one and that its head says the same. */
function codeOf({ status, fields, body }: Answer): string {
  expect(fields.get("content-type")).toMatch(/^application\/problem\+json/);
  const problem = Problem.parse(JSON.parse(body));
  expect(problem.status).toBe(status);
  return problem.code;
}

const HOST = "Host: localhost";
const webSocket = [
  "Connection: Upgrade",
  "Upgrade: websocket",
  "Sec-WebSocket-Version: 13",
  "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
];

describe.each(["http", "https"] as const)("over %s", (scheme) => {
  const secure = scheme === "https";
  let tls: Certificate | undefined;
  let ca: Buffer | undefined;

  const directory = mkdtempSync(join(tmpdir(), "rpmsg-"));
  afterAll(() => rmSync(directory, { recursive: true }));

  // Made once, for the first test, which can be left out.
  beforeEach(() => {
    if (!secure || tls !== undefined) return;
    const authority = new Authority(directory);
    tls = authority.issue("bridge");
    ca = authority.pem;
  });

  /** A bridge that others cannot tell from one in a process of its own, and what its clients need. */
  async function start(input: ConfigInput = {}) {
    let logged = "";
    const log = pino(
      { level: "trace" },
      {
        write: (line: string) => {
          logged += line;
        },
      },
    );
    const bridge = await startBridge({ ...input, listen: "127.0.0.1:0", ...(tls && { tls }) }, { log });
    onTestFinished(() => bridge.close());
    const { host, port } = new URL(bridge.url);
    const dial = async (): Promise<Wire> => {
      const where = { host: "127.0.0.1", port: Number(port) };
      const socket = ca === undefined ? connect(where) : connectTls({ ...where, ca });
      await once(socket, ca === undefined ? "connect" : "secureConnect");
      return new Wire(socket);
    };
    return { url: bridge.url, host, dial, logged: () => logged };
  }

  /** The answer to one request of a connection of its own. */
  async function answerTo(input: ConfigInput, line: string, ...fields: string[]): Promise<Answer> {
    const { dial } = await start(input);
    return (await dial()).ask(line, ...fields);
  }

  describe("a target in absolute form (RFC 9112, 3.2.2)", () => {
    test("its path and query are what is asked for: REST, files, documents, events", async () => {
      const { url, dial } = await start();
      const wire = await dial();
      const get = (path: string) => wire.ask(`GET ${path} HTTP/1.1`, HOST);
      for (const path of [
        ...[
          "/",
          "",
          "/?a=b",
          "?a=b",
          "/healthz",
          "/healthz/",
          "/readyz?",
          "/metrics/nothing",
          "/openapi.json",
        ],
        ...["/api/v1/guests/demo", "/api/v1/guests/nobody", "/api/v1/endpoints?name=", "/%ff", "//healthz"],
        ...["/docs/static/favicon-16x16.png", "/docs/static/nothing", "/ws/v1/demo/%ff", "/ws/v1/demo/echo"],
        ...["/http://evil.example/", "/nothing?http://evil.example/"],
      ]) {
        const { status, body } = await get(path.startsWith("/") ? path : `/${path}`);
        expect([path, await get(url + path)]).toMatchObject([path, { status, body }]);
      }
      const { body } = await get(`${url.toUpperCase()}/api/v1/endpoints?name=echo`);
      expect(EndpointList.parse(JSON.parse(body)).endpoints.map(({ name }) => name)).toEqual(["echo"]);
      const events = await get(`${url}/api/v1/events`);
      expect([events.status, events.fields.get("content-type")]).toEqual([200, "text/event-stream"]);
      await wire.take(/event: guest/);
    });

    test("with a body behind it", async () => {
      const { url, dial } = await start();
      const wire = await dial();
      const declared = '{"name":"late","ns":"up"}';
      const fields = [HOST, "Content-Type: application/json", `Content-Length: ${declared.length}`];
      const declare = `POST ${url}/api/v1/guests/demo/endpoints HTTP/1.1`;
      expect(await wire.ask(declare, ...fields, "", declared)).toMatchObject({ status: 201 });
    });

    test("of a WebSocket: its handshake, and messages", async () => {
      const { url, dial, host } = await start();
      const wire = await dial();
      const get = `GET ${url}/ws/v1/demo/echo?local=2000 HTTP/1.1`;
      const taken = await wire.ask(get, `Host: ${host}`, ...webSocket, `Origin: ${url}`);
      expect([taken.status, taken.fields.get("upgrade")]).toEqual([101, "websocket"]);
      // RFC 6455, 5.2: binary, whole; 5 bytes, masked with 0.
      wire.socket.write(Buffer.concat([Buffer.of(0x82, 0x85, 0, 0, 0, 0), Buffer.from("hello")]));
      await wire.take(/^.{2}hello/s);
      const endpoints = await (await dial()).ask(`GET ${url}/api/v1/endpoints HTTP/1.1`, HOST);
      const echo = EndpointList.parse(JSON.parse(endpoints.body)).endpoints.find(
        ({ name }) => name === "echo",
      );
      expect(echo?.clients).toBe(1);
    });

    test.each([
      ["a foreign name", "evil.example", 421],
      ["a foreign name with a port", "evil.example:80", 421],
      ["a name that begins as ours", "localhost.evil.example", 421],
      ["a name that only looks like an address", "127.1", 421],
      ["ours", "localhost", 200],
      ["ours, of the configuration", "BRIDGE.lab:1", 200],
      ["an address of IPv6", "[::1]:80", 200],
    ])("who it is for is in it, and not in Host: %s, %s, is %i", async (_what, authority, status) => {
      const { dial, logged } = await start({ hosts: ["bridge.lab"] });
      for (const host of ["localhost", "evil.example", ""]) {
        const target = (path: string) => `GET ${scheme}://${authority}${path} HTTP/1.1`;
        const answer = await (await dial()).ask(target("/api/v1/guests"), `Host: ${host}`);
        expect(answer.status).toBe(status);
        const upgrade = await (await dial()).ask(target("/ws/v1/demo/echo"), `Host: ${host}`, ...webSocket);
        expect(upgrade.status).toBe(status === 200 ? 101 : status);
        // What offers another protocol is answered as if it did not.
        const h2c = ["Connection: Upgrade", "Upgrade: h2c"];
        const other = await (await dial()).ask(target("/api/v1/guests"), `Host: ${host}`, ...h2c);
        expect(other.status).toBe(status);
        if (status === 421) {
          expect([answer, upgrade, other].map(codeOf)).toEqual(Array(3).fill("host-unknown"));
        }
      }
      if (status === 421) expect(logged()).toMatch(/"code":"host-unknown".*"path":"\/ws\/v1\/demo\/echo"/);
    });

    test("a page is compared with it", async () => {
      const { url, dial } = await start();
      const wire = await dial();
      const ask = async (host: string, origin: string) =>
        (await wire.ask(`GET ${url}/healthz HTTP/1.1`, `Host: ${host}`, `Origin: ${origin}`)).status;
      expect(await ask("localhost", url)).toBe(200);
      expect(await ask("localhost", `${scheme}://localhost`)).toBe(403);
    });

    test.each([
      ["no host", `${scheme}:///healthz`, "names no host"],
      ["nothing behind the scheme", `${scheme}://`, "names no host"],
      ["a port alone", `${scheme}://:80/healthz`, "names no host"],
      ["half a bracket", `${scheme}://[::1/healthz`, "names no host"],
      ["a port that is none", `${scheme}://localhost:x/healthz`, "names no host"],
      ["a user", `${scheme}://pass@localhost/healthz`, "has a user"],
      ["a user, and a password", `${scheme}://user:pass@localhost/healthz`, "has a user"],
      ["what a reader takes for the host", `${scheme}://localhost:pass@evil.example/`, "has a user"],
      ["the scheme of a WebSocket", "ws://localhost/ws/v1/demo/echo", "is of ws: want http, https or a path"],
      ["another scheme", "ftp://localhost/healthz", "is of ftp: want http, https or a path"],
    ])("one with %s is 400: %s", async (_what, target, text) => {
      const { dial, logged } = await start();
      for (const fields of [[], webSocket]) {
        const answer = await (await dial()).ask(`GET ${target} HTTP/1.1`, HOST, ...fields);
        expect(codeOf(answer)).toBe("bad-request");
        expect(answer.body).toContain(text);
        expect(answer.body).not.toMatch(/pass/);
      }
      expect(logged()).toContain("upgrade-refused");
      expect(logged()).not.toMatch(/pass/);
    });

    test("Host is to be there nevertheless, once, but in HTTP/1.0", async () => {
      const { url, dial } = await start();
      const ask = async (version: string, ...fields: string[]) =>
        (await dial()).ask(`GET ${url}/healthz HTTP/${version}`, ...fields);
      expect(codeOf(await ask("1.1"))).toBe("bad-request");
      expect(codeOf(await ask("1.1", HOST, HOST))).toBe("bad-request");
      expect((await ask("1.0")).status).toBe(200);
    });

    test("https is for whoever came over TLS, maybe to a trusted proxy (RFC 9110, 7.4)", async () => {
      const [http, https] = ["http", "https"].map((each) => `GET ${each}://localhost/healthz HTTP/1.1`) as [
        string,
        string,
      ];
      expect((await answerTo({}, http, HOST)).status).toBe(200);
      const forwarded = "X-Forwarded-Proto: https";
      expect((await answerTo({}, https, HOST, forwarded)).status).toBe(secure ? 200 : 400);
      expect((await answerTo({ trustedProxies: ["loopback"] }, https, HOST, forwarded)).status).toBe(200);
    });
  });

  test.each([
    ["OPTIONS *", 404, "there is no OPTIONS *"],
    ["GET *", 404, "there is no GET *"],
    ["CONNECT localhost:22", 404, "there are no tunnels"],
    ["CONNECT localhost", 404, "there are no tunnels"],
    ["CONNECT user:pass@localhost:22", 404, "there are no tunnels"],
    ["CONNECT user:pass%ff@localhost:22", 404, "there are no tunnels"],
    ["CONNECT http://user:pass@localhost/", 404, "there are no tunnels"],
    ["CONNECT /ws/v1/demo/echo", 404, "there are no tunnels"],
  ])("other forms of a target: %s is %i", async (line, status, text) => {
    const { dial, logged } = await start();
    for (const more of [[], webSocket]) {
      const answer = await (await dial()).ask(`${line} HTTP/1.1`, HOST, ...more);
      expect([answer.status, codeOf(answer)]).toEqual([status, "not-found"]);
      if (more.length === 0) expect(answer.body).toContain(text);
      const foreign = await (await dial()).ask(`${line} HTTP/1.1`, "Host: evil.example", ...more);
      expect(codeOf(foreign)).toBe("host-unknown");
      expect(answer.body + foreign.body).not.toMatch(/pass/);
    }
    expect(logged()).not.toMatch(/pass/);
  });

  describe("426 tells what to upgrade to, in both fields (RFC 9110, 7.8 and 15.5.22)", () => {
    const GET = "GET /ws/v1/demo/echo HTTP/1.1";

    test("and the connection goes on, to become a WebSocket", async () => {
      const { dial } = await start();
      const wire = await dial();
      for (const path of ["demo/echo", "demo/%ff", "demo/echo"]) {
        const answer = await wire.ask(`GET /ws/v1/${path} HTTP/1.1`, HOST);
        expect(codeOf(answer)).toBe("upgrade-required");
        expect(answer.fields.get("upgrade")).toBe("websocket");
        expect(answer.fields.get("connection")).toBe("Upgrade, keep-alive");
        expect(answer.fields.get("keep-alive")).toBe("timeout=72");
      }
      // As in an answer of which Node writes both fields.
      const plain = await wire.ask("GET /healthz HTTP/1.1", HOST);
      expect([plain.status, plain.fields.get("keep-alive")]).toEqual([200, "timeout=72"]);
      expect((await wire.ask(GET, HOST, ...webSocket)).status).toBe(101);
    });

    test("Node's client keeps its connection, too", async () => {
      const { url } = await start();
      const [Agent, request] = secure ? [TlsAgent, tlsRequest] : [PlainAgent, plainRequest];
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      onTestFinished(() => agent.destroy());
      const sockets = new Set<unknown>();
      for (let i = 0; i < 3; i++) {
        const asked = request(`${url}/ws/v1/demo/echo`, { agent, ...(ca && { ca }) });
        const [response] = (await once(asked.end(), "response")) as [IncomingMessage];
        sockets.add(response.socket);
        expect([response.statusCode, response.headers.connection]).toEqual([426, "Upgrade, keep-alive"]);
        for await (const _part of response);
      }
      expect(sockets.size).toBe(1);
    });

    test.each([
      ["the client asks for it", GET, [HOST, "Connection: close"]],
      ["it speaks HTTP/1.0", "GET /ws/v1/demo/echo HTTP/1.0", [HOST]],
      ["it offers another protocol", GET, [HOST, "Connection: Upgrade", "Upgrade: h2c"]],
      ["its WebSocket is of another version", GET, [HOST, ...webSocket.with(2, "Sec-WebSocket-Version: 8")]],
    ])("and ends where %s", async (_what, line, fields) => {
      const { dial } = await start();
      const wire = await dial();
      const answer = await wire.ask(line, ...fields);
      expect(codeOf(answer)).toBe("upgrade-required");
      expect(answer.fields.get("upgrade")).toBe("websocket");
      expect(answer.fields.get("connection")).toBe("Upgrade, close");
      expect(answer.fields.get("keep-alive")).toBeUndefined();
      await wire.closed;
    });
  });
});
