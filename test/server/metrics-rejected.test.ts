import { once } from "node:events";
import { connect } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import { WebSocket } from "ws";
import type { GuestLink } from "../../guest/emulated-guest.ts";
import type { ServiceContext, ServiceFactory } from "../../guest/index.ts";
import { EmulatedGuest, echo } from "../../guest/index.ts";
import { MEMORY_BASE } from "../../guest/layout.ts";
import { encodeNameService, NAME_SERVICE_ADDRESS, REQUEST_QUEUE } from "../../rpmsg/index.ts";
import type { EndpointDeclaration } from "../../schemas/index.ts";
import { errorCodes } from "../../schemas/index.ts";
import { startBridge } from "../../server/index.ts";
import type { RunningBridge } from "./support.ts";
import { eventually, testBridge } from "./support.ts";
import { vhostBridge } from "./vhost-guest.ts";

/** The values above 0 of a counter: by its labels without the name, `where code`. */
async function counted(url: string, name: string): Promise<Record<string, number>> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const counts: Record<string, number> = {};
  for (const line of text.split("\n")) {
    if (!line.startsWith(`${name}{`)) continue;
    const labels = [...line.matchAll(/"([^"]*)"/g)].map(([, value]) => value).join(" ");
    const value = Number(line.slice(line.lastIndexOf(" ")));
    if (value > 0) counts[labels] = value;
  }
  return counts;
}

const rejected = (url: string) => counted(url, "rpmsg_client_rejected_total");
const closed = (url: string) => counted(url, "rpmsg_connections_closed_total");

/** Sends bytes that are no request, and waits for the end of the connection. */
async function sendHead(url: string, bytes: string): Promise<void> {
  const socket = connect(Number(new URL(url).port), "127.0.0.1", () => socket.write(bytes));
  socket.on("error", () => {});
  socket.resume();
  await once(socket, "close");
}

/** A JSON client that sends frames and gives the answers. */
async function answers({ connect: open }: RunningBridge, path: string, protocol: string, frames: string[]) {
  const client = await open(path, [protocol]);
  await client.next();
  for (const frame of frames) client.socket.send(frame);
  const codes = (await client.take(frames.length)).map((each) => JSON.parse(each.toString()).code);
  await client.close();
  return codes;
}

describe("what clients do wrong is counted by where and code", () => {
  test("requests, upgrades, frames", async () => {
    const bridge = await testBridge();
    const { url, refusal, endpoint } = bridge;
    await endpoint("sink");
    expect(await rejected(url)).toEqual({});

    await fetch(`${url}/api/v1/guests/nobody`);
    await fetch(`${url}/api/v1/guests/nobody`);
    await fetch(`${url}/nothing`);
    // The router cannot decode it.
    await fetch(`${url}/%ff`);
    await refusal("/ws/v1/demo/nothing");
    await refusal("/ws/v1/demo/echo", { headers: { origin: "https://elsewhere.example" } });
    await sendHead(
      url,
      "GET /ws/v1/demo/echo HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
    );
    await sendHead(url, "nonsense\r\n\r\n");
    await sendHead(url, `GET / HTTP/1.1\r\nHost: ${"x".repeat(70_000)}\r\n\r\n`);
    expect(
      await answers(bridge, "/ws/v1/demo/echo", "rpmsg.v1.json", [
        "{",
        '{"type":"send","id":1,"data":"x","dst":53}',
        `{"type":"send","id":1,"data":"${"x".repeat(497)}"}`,
      ]),
    ).toEqual(["bad-frame", "forbidden", "too-large"]);
    expect(
      await answers(bridge, "/ws/v1", "rpmsg.v1.mux", [
        '{"type":"credit","sub":9,"bytes":1}',
        '{"type":"subscribe","sub":1,"path":"/ws/v1/demo/nothing"}',
      ]),
    ).toEqual(["subscription-unknown", "endpoint-unknown"]);

    expect(await rejected(url)).toEqual({
      "head malformed": 1,
      "head too-large": 1,
      "http guest-unknown": 2,
      "http not-found": 1,
      "http bad-request": 1,
      "upgrade endpoint-unknown": 1,
      "upgrade origin-forbidden": 1,
      "upgrade bad-request": 1,
      "frame bad-frame": 1,
      "frame forbidden": 1,
      "frame too-large": 1,
      "frame subscription-unknown": 1,
      "frame endpoint-unknown": 1,
    });
  });

  test("every code has a series before it happens, so that its first increase is seen", async () => {
    const { url } = await testBridge();
    const text = await (await fetch(`${url}/metrics`)).text();
    for (const code of errorCodes) {
      expect(text).toContain(`rpmsg_client_rejected_total{where="frame",code="${code}"} 0\n`);
    }
  });
});

describe("connections", () => {
  test("are counted by subprotocol while they are open, and by cause when they end", async () => {
    const { url, connect: open, endpoint } = await testBridge({ limits: { sessionTimeout: 1 } });
    await endpoint("sink");
    const clients = {
      raw: await open("/ws/v1/demo/echo"),
      big: await open("/ws/v1/demo/echo"),
      json: await open("/ws/v1/demo/echo", ["rpmsg.v1.json"]),
      binary: await open("/ws/v1/demo/echo", ["rpmsg.v1.json"]),
      mux: await open("/ws/v1", ["rpmsg.v1.mux"]),
      invalid: await open("/ws/v1/demo/echo"),
      unmasked: await open("/ws/v1/demo/echo"),
    };
    expect(await counted(url, "rpmsg_connections")).toEqual({ raw: 4, json: 2, mux: 1 });
    await clients.raw.close();
    clients.big.send(new Uint8Array(497));
    clients.json.socket.terminate();
    clients.binary.send("x");
    clients.mux.socket.terminate();
    // A text frame that is not UTF-8, and a frame without a mask.
    rawSocket(clients.invalid.socket).write(Buffer.from([0x81, 0x81, 0, 0, 0, 0, 0xff]));
    rawSocket(clients.unmasked.socket).write(Buffer.from([0x82, 0x01, 0x00]));
    await eventually("all are gone", async () => {
      const left = await counted(url, "rpmsg_connections");
      return Object.keys(left).length === 0 || undefined;
    });
    expect(await closed(url)).toEqual({
      client: 1,
      "too-big": 1,
      broken: 2,
      unsupported: 1,
      "bad-data": 1,
      "protocol-error": 1,
    });
    expect(await counted(url, "rpmsg_connections_opened_total")).toEqual({ raw: 4, json: 2, mux: 1 });
  });

  test("that were resumed, or whose client does not answer", async () => {
    const {
      url,
      connect: open,
      endpoint,
    } = await testBridge({
      limits: { pingInterval: 50, pongTimeout: 50 },
    });
    await endpoint("sink");
    const first = await open("/ws/v1/demo/echo", ["rpmsg.v1.json"]);
    const { session } = JSON.parse(await first.text()) as { session: string };
    await open(`/ws/v1/demo/echo?resume=${session}&after=0`, ["rpmsg.v1.json"]);
    await first.closed;
    const silent = new WebSocket(`${url.replace("http", "ws")}/ws/v1/demo/echo`, { autoPong: false });
    silent.on("error", () => {});
    await once(silent, "close");
    expect(await closed(url)).toEqual({ resumed: 1, "no-pong": 1 });
  });
});

describe("what guests do wrong is counted by where and code", () => {
  test("requests of a frontend, and what ends its connection", async () => {
    const { url, bridge, guest } = await vhostBridge();
    const { path } = bridge.config.guests["vm"] as { path: string };
    expect(await nonMessages(url)).toEqual({});
    // Request 99, version 1, no payload; then one of which the end is missing.
    for (const bytes of [
      [99, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
      [1, 0, 0, 0],
    ]) {
      const frontend = connect(path, () => frontend.end(Buffer.from(bytes)));
      frontend.resume();
      await once(frontend, "close");
    }
    await eventually("both are counted", async () => {
      const { counters } = await guest("vm");
      return counters.frontendErrors === 2 || undefined;
    });
    expect(await nonMessages(url)).toEqual({
      "vm frontend message-unknown": 1,
      "vm frontend message-truncated": 1,
    });
  });

  test("messages to nobody and of no sense, and a queue that it breaks", async () => {
    const board = new Scribbler({ services: { rude, echo } });
    const { url } = await start(board);
    await eventually("its messages are there", async () => {
      const counts = await counted(url, "rpmsg_guest_rejected_total");
      return Object.keys(counts).length === 3 || undefined;
    });
    expect(await counted(url, "rpmsg_guest_rejected_total")).toEqual({
      "board message unknown-address": 2,
      "board message name-service-malformed": 1,
      "board message name-service-ignored": 1,
    });
    board.breakQueue();
    expect(await nonMessages(url)).toEqual({ "board queue avail-index-jump": 1 });
  });
});

describe("messages that got lost are counted by cause", () => {
  test("on the way to clients", async () => {
    const { url, connect: open, endpoint } = await testBridge({ limits: { slowReaderBytes: 65_536 } });
    const client = await open("/ws/v1/demo/source?slow=drop-newest");
    client.socket.pause();
    client.send("20000 496");
    const { counters } = await endpoint("source", (each) => each.counters.messagesFromGuest === 20_000);
    expect(counters.dropped).toBeGreaterThan(1000);
    expect(await counted(url, "rpmsg_guest_dropped_total")).toEqual({ "demo drop-newest": counters.dropped });
    client.socket.terminate();
  });

  test("because no client was there", async () => {
    let log: ServiceContext | undefined;
    const service: ServiceFactory = (context) => {
      log = context;
      return echo(context);
    };
    const guest = new EmulatedGuest({ services: { log: { service, ns: "none", address: 1400 } } });
    const { url } = await start(guest, [{ name: "log", ns: "none", address: 1500 }]);
    for (let i = 0; i < 3; i++) log?.send(1500, Buffer.from("nobody hears it"));
    const dropped = await eventually("they are counted", async () => {
      const counts = await counted(url, "rpmsg_guest_dropped_total");
      return counts["board no-client"] === 3 ? counts : undefined;
    });
    expect(dropped).toEqual({ "board no-client": 3 });
  });

  test("on the way to the guest", async () => {
    const { url, connect: open } = await testBridge({
      guests: { demo: { kind: "emulated", endpoints: [{ name: "quiet", ns: "none", address: 1500 }] } },
      limits: { sendTimeout: 1 },
    });
    const client = await open("/ws/v1/demo/quiet");
    client.send("x");
    expect(await client.closed).toEqual({ code: 4004, reason: "no-peer" });
    expect(await counted(url, "rpmsg_guest_undelivered_total")).toEqual({ "demo no-peer": 1 });
    expect(await closed(url)).toEqual({ "not-delivered": 1 });
  });
});

/** What of guests was rejected besides messages. */
async function nonMessages(url: string): Promise<Record<string, number>> {
  const all = Object.entries(await counted(url, "rpmsg_guest_rejected_total"));
  return Object.fromEntries(all.filter(([labels]) => !labels.includes(" message ")));
}

/** Sends two messages to an address that nobody has, a name-service message that is too short, and a lone withdrawal. */
const rude: ServiceFactory = (context) => {
  for (let i = 0; i < 2; i++) context.send(9999, Buffer.from("x"));
  context.send(NAME_SERVICE_ADDRESS, Buffer.from("short"));
  context.send(NAME_SERVICE_ADDRESS, encodeNameService({ name: "never", address: 7, created: false }));
  return echo(context);
};

/** A guest that breaks its rings on demand. */
class Scribbler extends EmulatedGuest {
  #link: GuestLink | undefined;

  override boot(link: GuestLink): void {
    this.#link = link;
    super.boot(link);
  }

  /** Makes more buffers available than the request queue has room for. */
  breakQueue(): void {
    const index = this.layout.transmitRing.available - MEMORY_BASE + 2;
    const { u16 } = (this.#link as GuestLink).window;
    u16[index / 2] = (u16[index / 2] as number) + 1000;
    this.#link?.kick(REQUEST_QUEUE);
  }
}

async function start(board: EmulatedGuest, endpoints: EndpointDeclaration[] = []) {
  const guests = { board: { kind: "emulated" as const, endpoints } };
  const bridge = await startBridge({ listen: "127.0.0.1:0", guests }, { guests: { board } });
  onTestFinished(() => bridge.close());
  return bridge;
}

/** The TCP socket below a WebSocket, for bytes that ws would not send. */
function rawSocket(socket: WebSocket): NodeJS.WritableStream {
  return (socket as unknown as { _socket: NodeJS.WritableStream })._socket;
}
