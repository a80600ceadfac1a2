import { once } from "node:events";
import type { Socket } from "node:net";
import { connect } from "node:net";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { WebSocket } from "ws";
import type { ConfigInput, Problem } from "../../schemas/index.ts";
import { Config } from "../../schemas/index.ts";
import { Admission } from "../../server/access/admission.ts";
import { Peers } from "../../server/access/peer.ts";
import type { CountedLimit } from "../../server/counted-limits.ts";
import { Tally } from "../../server/tally.ts";
import type { RunningBridge } from "./support.ts";
import { eventually, reached, testBridge } from "./support.ts";

type Limits = ConfigInput["limits"];

/** A bridge behind a proxy on this machine, which says who its clients are. */
const proxied = (limits: Limits) => testBridge({ trustedProxies: ["loopback"], limits });
const from = (address: string) => ({ "x-forwarded-for": address });

/** A WebSocket that is open, as the proxy passes it on for an address. */
async function open({ url }: RunningBridge, address: string, path = "/ws/v1/demo/echo"): Promise<WebSocket> {
  const socket = new WebSocket(url.replace("http", "ws") + path, { headers: from(address) });
  onTestFinished(() => socket.terminate());
  await once(socket, "open");
  return socket;
}

async function end(socket: WebSocket): Promise<void> {
  socket.close();
  await once(socket, "close");
}

/** A bare connection to the bridge. */
async function dial({ url }: RunningBridge): Promise<Socket> {
  const socket = connect(Number(new URL(url).port), "127.0.0.1");
  onTestFinished(() => {
    socket.destroy();
  });
  await once(socket, "connect");
  return socket;
}

/** Status and code of the answer to a request on a connection. */
async function ask(socket: Socket): Promise<string> {
  socket.write("GET /api/v1/guests HTTP/1.1\r\nHost: localhost\r\n\r\n");
  let text = "";
  for await (const part of socket) {
    text += String(part);
    if (/\r\n\r\n.*\}$/s.test(text)) break;
  }
  const [status = ""] = text.split("\r\n");
  return `${status.slice(9, 12)} ${/"code":"([^"]*)"/.exec(text)?.[1] ?? ""}`;
}

describe("connectionsPerAddress", () => {
  test("WebSockets of an address: the last one that may be is, the next one is refused until one has left", async () => {
    const running = await proxied({ connectionsPerAddress: 3 });
    await running.endpoint("echo");
    const sockets = await Promise.all([1, 2, 3].map(() => open(running, "203.0.113.9")));
    const refused = { headers: from("203.0.113.9") };
    expect(await running.refusal("/ws/v1/demo/echo", refused)).toMatchObject({
      status: 429,
      code: "too-many-connections",
    });
    expect(reached(running, "connectionsPerAddress")).toBe(1);
    // Others are others.
    await open(running, "203.0.113.10");
    if (sockets[0] !== undefined) await end(sockets[0]);
    await eventually("room", async () => {
      try {
        return await open(running, "203.0.113.9");
      } catch {
        return undefined;
      }
    });
  });

  test("streams of events count as well", async () => {
    const running = await proxied({ connectionsPerAddress: 1 });
    await running.endpoint("echo");
    const aborted = new AbortController();
    const stream = await fetch(`${running.url}/api/v1/events`, {
      headers: from("203.0.113.9"),
      signal: aborted.signal,
    });
    expect(stream.status).toBe(200);
    const second = await fetch(`${running.url}/api/v1/events`, { headers: from("203.0.113.9") });
    expect([second.status, ((await second.json()) as Problem).code]).toEqual([429, "too-many-connections"]);
    expect((await running.refusal("/ws/v1/demo/echo", { headers: from("203.0.113.9") })).code).toBe(
      "too-many-connections",
    );
    aborted.abort();
  });

  test("addresses of one network of IPv6 count together", async () => {
    const running = await proxied({ connectionsPerAddress: 1 });
    await running.endpoint("echo");
    await open(running, "2001:db8:1:2::1");
    const other = { headers: from("2001:db8:1:2:3:4:5:6") };
    expect((await running.refusal("/ws/v1/demo/echo", other)).code).toBe("too-many-connections");
    await open(running, "2001:db8:1:3::1");
  });

  test("without a proxy a connection counts from its beginning, request or none", async () => {
    const running = await testBridge({ limits: { connectionsPerAddress: 2, limitLocal: true } });
    const sockets = [await dial(running), await dial(running)];
    await eventually("both", () => (running.bridge.admission.connections === 2 ? true : undefined));
    expect(await ask(await dial(running))).toBe("429 too-many-connections");
    for (const socket of sockets) expect(await ask(socket)).toBe("200 ");
    await eventually("that all are gone", () =>
      running.bridge.admission.connections === 0 ? true : undefined,
    );
    expect(await ask(await dial(running))).toBe("200 ");
  });

  test("far beyond it connections are cut off without an answer", async () => {
    const running = await testBridge({ limits: { connectionsPerAddress: 2, limitLocal: true } });
    const sockets = [];
    for (let i = 0; i < 2 + 64; i++) sockets.push(await dial(running));
    await eventually("all", () => (running.bridge.admission.connections === 66 ? true : undefined));
    const last = await dial(running);
    last.on("error", () => {});
    await once(last, "close");
    expect(running.bridge.admission.connections).toBe(66);
  });

  test("clients on this machine are exempt", async () => {
    const running = await testBridge({
      limits: {
        connectionsPerAddress: 1,
        connectRate: { perSecond: 1, burst: 1 },
        requestRate: { perSecond: 1, burst: 1 },
      },
    });
    await running.endpoint("echo");
    for (let i = 0; i < 5; i++) await running.connect("/ws/v1/demo/echo");
    for (let i = 0; i < 5; i++) expect((await fetch(`${running.url}/api/v1/guests`)).status).toBe(200);
  });
});

describe("connections", () => {
  test("in all: the last one that may be is answered, the next one is refused", async () => {
    const running = await testBridge({ limits: { connections: 3 } });
    const sockets = [await dial(running), await dial(running), await dial(running)];
    await eventually("three", () => (running.bridge.admission.connections === 3 ? true : undefined));
    expect(await ask(await dial(running))).toBe("503 overloaded");
    expect(reached(running, "connections")).toBe(1);
    for (const socket of sockets) expect(await ask(socket)).toBe("200 ");
  });
});

test("eventStreams: one more is refused", async () => {
  const running = await testBridge({ limits: { eventStreams: 2 } });
  const aborted = new AbortController();
  const stream = () => fetch(`${running.url}/api/v1/events`, { signal: aborted.signal });
  expect([(await stream()).status, (await stream()).status]).toEqual([200, 200]);
  const third = await stream();
  expect([third.status, ((await third.json()) as Problem).code]).toEqual([503, "overloaded"]);
  expect(reached(running, "eventStreams")).toBe(1);
  aborted.abort();
  await eventually("room", async () => {
    const again = new AbortController();
    const { status } = await fetch(`${running.url}/api/v1/events`, { signal: again.signal });
    again.abort();
    return status === 200 ? true : undefined;
  });
});

test("connectionsPerToken: a token has so many, whatever the address", () => {
  const limits = Config.parse({ limits: { connectionsPerToken: 2 } });
  const counts = new Tally<CountedLimit>();
  const admission = new Admission(new Peers(limits), limits.limits, counts);
  const peer = { address: "127.0.0.1", key: "127.0.0.1", local: true, host: undefined, protocol: undefined };
  /** A socket of which only the end matters. */
  const sockets: (() => void)[] = [];
  const stay = (token: string) =>
    admission.stay({ once: (_event: string, done: () => void) => sockets.push(done) } as never, peer, token);
  stay("one");
  stay("one");
  expect(() => stay("one")).toThrow(
    expect.objectContaining({ code: "too-many-connections", statusCode: 429 }),
  );
  stay("two");
  sockets[0]?.();
  stay("one");
  expect(() => stay("one")).toThrow(expect.objectContaining({ code: "too-many-connections" }));
  expect([...counts.entries()]).toEqual([["connectionsPerToken", 2]]);
});

/** Time stands still: however slow the test is, no bucket is filled again. */
function stopTime(): void {
  vi.spyOn(performance, "now").mockReturnValue(performance.now());
  onTestFinished(() => void vi.restoreAllMocks());
}

describe("rates of an address", () => {
  test("connectRate: upgrades beyond the burst are refused, and told when to come again", async () => {
    const running = await proxied({ connectRate: { perSecond: 1, burst: 3 } });
    await running.endpoint("echo");
    stopTime();
    for (let i = 0; i < 3; i++) await end(await open(running, "203.0.113.9"));
    const socket = new WebSocket(`${running.url.replace("http", "ws")}/ws/v1/demo/echo`, {
      headers: from("203.0.113.9"),
    });
    socket.on("error", () => {});
    const [, response] = (await once(socket, "unexpected-response")) as [
      unknown,
      { statusCode: number; headers: object },
    ];
    expect(response).toMatchObject({ statusCode: 429, headers: { "retry-after": "1" } });
    expect(reached(running, "connectRate")).toBe(1);
    await open(running, "203.0.113.10");
    // Refused ones count too: a guess at a token costs as much as a success.
    expect((await running.refusal("/ws/v1/demo/none", { headers: from("198.51.100.1") })).code).toBe(
      "endpoint-unknown",
    );
    expect((await running.refusal("/ws/v1/demo/none", { headers: from("198.51.100.1") })).code).toBe(
      "endpoint-unknown",
    );
    expect((await running.refusal("/ws/v1/demo/none", { headers: from("198.51.100.1") })).code).toBe(
      "endpoint-unknown",
    );
    expect((await running.refusal("/ws/v1/demo/none", { headers: from("198.51.100.1") })).code).toBe(
      "rate-limited",
    );
  });

  test("requestRate: requests beyond the burst are refused with Retry-After", async () => {
    const running = await proxied({ requestRate: { perSecond: 1, burst: 3 } });
    stopTime();
    const get = (address: string) => fetch(`${running.url}/api/v1/guests`, { headers: from(address) });
    for (let i = 0; i < 3; i++) expect((await get("203.0.113.9")).status).toBe(200);
    const refused = await get("203.0.113.9");
    expect([refused.status, refused.headers.get("retry-after")]).toEqual([429, "1"]);
    expect(((await refused.json()) as Problem).code).toBe("rate-limited");
    expect(reached(running, "requestRate")).toBe(1);
    expect((await get("203.0.113.10")).status).toBe(200);
    // Nor does it matter what it asks for.
    expect((await fetch(`${running.url}/%ff`, { headers: from("203.0.113.9") })).status).toBe(429);
    // What the client says itself does not make it another one.
    expect((await get("198.51.100.7, 203.0.113.9")).status).toBe(429);
  });
});
