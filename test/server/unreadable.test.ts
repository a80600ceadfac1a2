import { once } from "node:events";
import { connect } from "node:net";
import { Duplex } from "node:stream";
import { connect as connectTls } from "node:tls";
import { expect, onTestFinished, test } from "vitest";
import { Problem } from "../../schemas/index.ts";
import { startBridge } from "../../server/index.ts";
import { HttpProblem } from "../../server/problem.ts";
import { refuse } from "../../server/refuse.ts";
import { Authority } from "./certificates.ts";
import type { RunningBridge } from "./support.ts";
import { eventually, reached, testBridge, testDirectory } from "./support.ts";

/** What came on a connection, as Latin-1, until the bridge ended it. */
async function answerOn(socket: ReturnType<typeof connect>, ...parts: (string | Buffer)[]): Promise<string> {
  onTestFinished(() => void socket.destroy());
  let answer = "";
  socket.on("error", () => {});
  socket.on("data", (part) => {
    answer += part.toString("latin1");
  });
  for (const part of parts) socket.write(part);
  // `once` would reject where the connection is reset.
  await new Promise((resolve) => socket.once("close", resolve));
  return answer;
}

const portOf = ({ url }: { url: string }) => Number(new URL(url).port);

/** Sends bytes over TCP and reads until the bridge ends the connection. */
const send = (bridge: { url: string }, ...parts: (string | Buffer)[]) =>
  answerOn(connect(portOf(bridge), "127.0.0.1"), ...parts);

/** The one answer that there is: a problem, its head as it is to be. */
function problemIn(answer: string): Problem {
  const [, status, head = "", body = ""] =
    /^HTTP\/1\.1 (\d+) [^\r]*\r\n(.*?)\r\n\r\n(.*)$/s.exec(answer) ?? [];
  expect(head.toLowerCase()).toMatch(/^content-type: application\/problem\+json/m);
  const problem = Problem.parse(JSON.parse(body));
  expect(problem.status).toBe(Number(status));
  return problem;
}

/** What was counted of heads, without what is 0. */
function counted({ counts }: RunningBridge["bridge"]): Record<string, number> {
  return Object.fromEntries([...counts.rejected.head.entries()].filter(([, count]) => count > 0));
}

const HOST = "Host: localhost\r\n";
const POST = `POST /api/v1/guests/demo/endpoints HTTP/1.1\r\n${HOST}Content-Type: application/json\r\n`;
/** Longer than what Node takes: 16 KiB of names and values, or of extensions. */
const LONG = "x".repeat(17_000);

test.each([
  ["no request at all", "nonsense\r\n\r\n"],
  ["a method that is none", `FOO / HTTP/1.1\r\n${HOST}\r\n`],
  ["another version", `GET / HTTP/3.7\r\n${HOST}\r\n`],
  ["the preface of HTTP/2 (RFC 9113, 3.4)", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
  ["lines that end with LF alone", "GET / HTTP/1.1\nHost: localhost\n\n"],
  ["a zero in a field", `GET / HTTP/1.1\r\n${HOST}X: a\0b\r\n\r\n`],
  ["a space before the colon (RFC 9112, 5.1)", `GET / HTTP/1.1\r\n${HOST}X : a\r\n\r\n`],
  ["a line that goes on (RFC 9112, 5.2)", `GET / HTTP/1.1\r\nHost: local\r\n host\r\n\r\n`],
  ["two lengths", `${POST}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd`],
  ["a length that is none", `${POST}Content-Length: x\r\n\r\nabcd`],
  [
    "a length and chunks (RFC 9112, 6.1)",
    `${POST}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
  ],
  ["an encoding that does not end with chunks", `${POST}Transfer-Encoding: gzip\r\n\r\nxx`],
  ["a chunk without a length", `${POST}Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n`],
  ["more of a chunk than its length", `${POST}Transfer-Encoding: chunked\r\n\r\n2\r\n{}}\r\n`],
  ["a chunk with long extensions", `${POST}Transfer-Encoding: chunked\r\n\r\n2;${LONG}\r\n{}\r\n`],
  [
    "TLS, to a bridge without it",
    Buffer.from([
      ...[0x16, 0x03, 0x01, 0x00, 0xc8], // handshake, TLS 1.0, 200 bytes
      ...[0x01, 0x00, 0x00, 0xc4, 0x03, 0x03], // ClientHello, 196 bytes, TLS 1.2
    ]),
  ],
])("400 bad-request: %s", async (_what, bytes) => {
  const running = await testBridge();
  expect(problemIn(await send(running, bytes))).toMatchObject({ status: 400, code: "bad-request" });
  expect(counted(running.bridge)).toEqual({ malformed: 1 });
});

test.each([
  ["an address", `GET /${LONG} HTTP/1.1\r\n${HOST}\r\n`],
  ["a field", `GET / HTTP/1.1\r\n${HOST}X: ${LONG}\r\n\r\n`],
  ["many fields", `GET / HTTP/1.1\r\n${HOST}${"X: 12345678\r\n".repeat(2000)}\r\n`],
  [
    "a field of an upgrade",
    `GET /ws/v1/demo/echo HTTP/1.1\r\n${HOST}Upgrade: websocket\r\nX: ${LONG}\r\n\r\n`,
  ],
])("431 head-too-large: %s", async (_what, bytes) => {
  const running = await testBridge();
  expect(problemIn(await send(running, bytes))).toMatchObject({ status: 431, code: "head-too-large" });
  expect(counted(running.bridge)).toEqual({ "too-large": 1 });
});

test.each([
  ["a head", `GET / HTTP/1.1\r\n${HOST}X-A: `],
  ["a body", `${POST}Content-Length: 100\r\n\r\n{`],
])("408 request-timeout: half of %s", async (_what, bytes) => {
  const running = await testBridge({ limits: { headersTimeout: 60, requestTimeout: 100 } });
  expect(problemIn(await send(running, bytes))).toMatchObject({ status: 408, code: "request-timeout" });
  expect(counted(running.bridge)).toEqual({ timeout: 1 });
  expect(reached(running, "requestTimeout")).toBe(1);
});

test("what Node would answer by itself is a problem, too, or no error", async () => {
  const running = await testBridge();
  const close = "Connection: close\r\n\r\n";
  const ask = (text: string) => send(running, text + close);
  const twice = problemIn(await ask(`GET /healthz HTTP/1.1\r\n${HOST}${HOST}`));
  expect(twice).toMatchObject({ code: "bad-request", detail: "want one Host header field, not 2" });
  const none = problemIn(await ask("GET /healthz HTTP/1.1\r\n"));
  expect(none).toMatchObject({ code: "bad-request", detail: "want one Host header field, not 0" });
  const tunnel = problemIn(await ask(`CONNECT localhost:22 HTTP/1.1\r\n${HOST}`));
  expect(tunnel).toMatchObject({ code: "not-found", detail: "there are no tunnels" });
  expect(await ask(`GET /healthz HTTP/1.1\r\n${HOST}Expect: the-unexpected\r\n`)).toContain(" 200 OK");
  const key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
  const upgrade = `${HOST}Connection: Upgrade\r\nUpgrade: websocket\r\n${key}\r\n`;
  const old = problemIn(await send(running, `GET /ws/v1/demo/echo HTTP/1.0\r\n${upgrade}`));
  expect(old).toMatchObject({
    code: "bad-request",
    detail: "a WebSocket begins with HTTP/1.1, not HTTP/1.0",
  });
  // 3,000 fields, the last of which counts.
  const many = "a:\r\n".repeat(3000);
  const last = problemIn(await ask(`GET /healthz HTTP/1.1\r\n${HOST}${many}Origin: http://evil.example\r\n`));
  expect(last.code).toBe("origin-forbidden");
  expect(counted(running.bridge)).toEqual({});
});

test("behind a whole request it is the one answer, and within an answer there is none", async () => {
  const running = await testBridge();
  const behind = await send(running, `GET /healthz HTTP/1.1\r\n${HOST}\r\nnonsense\r\n\r\n`);
  expect(problemIn(behind).code).toBe("bad-request");
  // A Content-Length that is too short.
  const body = '{"name":"late","ns":"up"}and more\r\n\r\n';
  const short = await send(running, `${POST}Content-Length: 25\r\n\r\n${body}`);
  expect(problemIn(short).code).toBe("bad-request");
  const socket = connect(portOf(running), "127.0.0.1");
  const events = answerOn(socket, `GET /api/v1/events HTTP/1.1\r\n${HOST}\r\n`);
  await once(socket, "data");
  socket.write("nonsense\r\n\r\n");
  const stream = await events;
  expect(stream).toContain(" 200 OK");
  expect(stream).not.toContain("bad-request");
  expect(counted(running.bridge)).toEqual({ malformed: 3 });
});

test("after an answer that is over there is one", async () => {
  const running = await testBridge();
  const socket = connect(portOf(running), "127.0.0.1");
  const answers = answerOn(socket, `GET /healthz HTTP/1.1\r\n${HOST}\r\n`);
  await once(socket, "data");
  socket.write("nonsense\r\n\r\n");
  const [first, second = ""] = (await answers).split('{"status":"ok"}');
  expect(first).toContain(" 200 OK");
  expect(problemIn(second).code).toBe("bad-request");
});

test("a client that goes on after what cannot be read is counted once, and leaves nothing", async () => {
  const running = await testBridge();
  const socket = connect(portOf(running), "127.0.0.1");
  const more = () => void (socket.writable && socket.write(LONG, more));
  socket.once("connect", more);
  await answerOn(socket, "nonsense\r\n\r\n");
  await eventually("its end", () => running.bridge.admission.connections === 0 || undefined);
  expect(counted(running.bridge)).toEqual({ malformed: 1 });
});

test("responseTimeout: a client that does not take such an answer is cut off", async () => {
  const { bridge } = await testBridge({ limits: { responseTimeout: 20 } });
  // Of which nothing is ever taken.
  const stream = new Duplex({ read() {}, write() {} });
  refuse(stream, new HttpProblem("bad-request", "no"), bridge);
  await once(stream, "close");
  expect(reached({ bridge }, "responseTimeout")).toBe(1);
});

async function secureBridge(limits = {}) {
  const authority = new Authority(testDirectory());
  const bridge = await startBridge({ listen: "127.0.0.1:0", tls: authority.issue("bridge"), limits });
  onTestFinished(() => bridge.close());
  const metrics = async (...names: string[]) => {
    const socket = connectTls({ host: "127.0.0.1", port: portOf(bridge), ca: authority.pem });
    const text = await answerOn(socket, `GET /metrics HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`);
    return names.map((name) => text.split(`${name} `)[1]?.split("\n")[0]);
  };
  return { ...bridge, ca: authority.pem, metrics };
}

const head = (code: string) => `rpmsg_client_rejected_total{where="head",code="${code}"}`;

test("with TLS a request that cannot be read is answered over it", async () => {
  const bridge = await secureBridge();
  const socket = connectTls({ host: "127.0.0.1", port: portOf(bridge), ca: bridge.ca });
  expect(problemIn(await answerOn(socket, "nonsense\r\n\r\n")).code).toBe("bad-request");
  expect(await bridge.metrics(head("malformed"))).toEqual(["1"]);
});

test.each([
  ["HTTP", `GET / HTTP/1.1\r\n${HOST}\r\n`],
  ["no TLS", Buffer.from([0x16, 0x03, 0x01, 0x00, 0x04, 0xde, 0xad, 0xbe, 0xef])], // handshake of 4 bytes, of no type
])("%s, where TLS is spoken, gets no HTTP", async (_what, bytes) => {
  const bridge = await secureBridge();
  expect(await send(bridge, bytes)).not.toContain("HTTP/1.1");
  expect(await bridge.metrics(head("malformed"))).toEqual(["1"]);
});

test("headersTimeout: a handshake of TLS that does not go on is cut off, and counted", async () => {
  const bridge = await secureBridge({ headersTimeout: 60 });
  // The head of a ClientHello, and nothing of it.
  expect(await send(bridge, Buffer.from([0x16, 0x03, 0x01, 0x00, 0xc8]))).toBe("");
  expect(
    await bridge.metrics(head("timeout"), 'rpmsg_bridge_limit_reached_total{limit="requestTimeout"}'),
  ).toEqual(["1", "1"]);
});
