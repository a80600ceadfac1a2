import { once } from "node:events";
import { readdirSync } from "node:fs";
import { Agent, get } from "node:http";
import { connect } from "node:net";
import { pino } from "pino";
import { expect, onTestFinished, test } from "vitest";
import { Config } from "../../schemas/index.ts";
import { Bridge } from "../../server/bridge.ts";
import { listen } from "../../server/listen.ts";
import { Log } from "../../server/log.ts";
import type { RunningBridge } from "./support.ts";
import { eventually, testBridge } from "./support.ts";

/** A request for `path`, with more lines in its head. */
function requestFor(path: string, ...lines: string[]): string {
  return [`GET ${path} HTTP/1.1`, "Host: localhost", ...lines, "", ""].join("\r\n");
}

const h2c = ["Connection: Upgrade", "Upgrade: h2c"];
const webSocket = [
  "Connection: Upgrade",
  "Upgrade: websocket",
  "Sec-WebSocket-Version: 13",
  "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
];

/** Sends all that at once and reads until the bridge ends the connection. @returns what came, if it came before */
async function send({ url }: Pick<RunningBridge, "url">, text: string): Promise<string> {
  const socket = connect(Number(new URL(url).port), "127.0.0.1");
  onTestFinished(() => void socket.destroy());
  let answer = "";
  socket.on("data", (part) => {
    answer += part.toString("latin1");
  });
  socket.on("error", () => {});
  socket.write(text);
  await once(socket, "close");
  return answer;
}

const pipelined = ({ bridge }: RunningBridge): number =>
  new Map(bridge.counts.rejected.head.entries()).get("pipelined") ?? 0;

/** What the bridge holds for clients. Of the process: it is the same one as the test. */
const held = ({ bridge: { admission, channels } }: RunningBridge) => ({
  connections: admission.connections,
  streams: admission.eventStreams,
  bytes: channels.budget.bytes,
  descriptors: readdirSync("/proc/self/fd").length,
});

test.each([
  ["streams of events", requestFor("/api/v1/events").repeat(50)],
  ["files", requestFor("/docs/static/swagger-ui-bundle.js").repeat(50)],
  ["long answers", requestFor("/openapi.json").repeat(50)],
  ["paths that cannot be decoded", requestFor("/%ff").repeat(50)],
  ["a stream, and others", requestFor("/api/v1/events") + requestFor("/%ff") + requestFor("/healthz")],
  ["a stream, and an upgrade to h2c", requestFor("/api/v1/events") + requestFor("/healthz", ...h2c)],
  [
    "a stream, and a tunnel",
    `${requestFor("/api/v1/events")}CONNECT localhost:22 HTTP/1.1\r\nHost: localhost\r\n\r\n`,
  ],
  [
    "a stream, and an upgrade to a WebSocket",
    requestFor("/api/v1/events") + requestFor("/ws/v1/demo/echo", ...webSocket),
  ],
])(
  "requests before the first one is answered end their connection, and nothing of them stays: %s",
  async (_what, text) => {
    const running = await testBridge();
    await running.endpoint("echo");
    // What is opened once, such as the connections of `fetch`.
    await send(running, requestFor("/docs/static/swagger-ui-bundle.js", "Connection: close"));
    const before = held(running);
    expect(await send(running, text)).not.toContain(" 101 ");
    expect(pipelined(running)).toBe(1);
    await eventually("that it is as before", () => {
      const now = held(running);
      return Object.entries(before).every(([key, most]) => now[key as keyof typeof now] <= most) || undefined;
    });
    expect((await fetch(`${running.url}/healthz`)).status).toBe(200);
  },
);

test("one request after another on one connection is nothing unusual", async () => {
  const running = await testBridge();
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  onTestFinished(() => agent.destroy());
  const sockets = new Set<unknown>();
  const paths = ["/healthz", "/openapi.json", "/api/v1/guests", "/%ff", "/nothing"];
  for (let i = 0; i < 50; i++) {
    const request = get(running.url + (paths[i % paths.length] ?? ""), { agent });
    const [response] = await once(request, "response");
    sockets.add(response.socket);
    for await (const _part of response);
  }
  expect([sockets.size, pipelined(running)]).toEqual([1, 0]);
});

test("an answered request that offered h2c ends its connection, whatever the client does", async () => {
  const running = await testBridge();
  const socket = connect({ port: Number(new URL(running.url).port), host: "127.0.0.1", allowHalfOpen: true });
  onTestFinished(() => void socket.destroy());
  socket.write(requestFor("/healthz", ...h2c));
  const [answer] = (await once(socket, "data")) as [Buffer];
  expect(answer.toString("latin1")).toContain(" 200 ");
  await eventually("its end", () => running.bridge.admission.connections === 0 || undefined);
});

test("nothing is kept of requests out of turn: a hand-over does not wait for their answers", async () => {
  const log = pino({ level: "silent" });
  const config = Config.parse({ listen: "127.0.0.1:0", guests: { demo: { kind: "emulated" } } });
  const bridge = new Bridge(config, log);
  const listener = await listen(bridge, new Log(log));
  onTestFinished(() => listener.close());
  onTestFinished(() => bridge.close());
  await send(listener, requestFor("/openapi.json").repeat(50));
  // Far longer than this test may take.
  await expect(listener.door.idle(3_600_000)).resolves.toBeUndefined();
});
