import { BridgeProcess } from "../../support/bridge-process.ts";
import { EchoClient } from "../../support/echo-client.ts";
import { count, until } from "../../support/figures.ts";
import { PlainClient } from "../../support/plain-client.ts";
import type { Outcome, Scale, Scenario } from "../scenario.ts";

/** Clients of each kind. */
const CLIENTS = { test: 5, short: 100, full: 500 };
/** Times that a client may take, in milliseconds; the defaults at full scale. */
const TIMES = { test: 500, short: 2000, full: undefined };
/** Bytes of heap and buffers more than before, at most. */
const MARGIN = 20 * 2 ** 20;
const ECHO = "/ws/v1/demo/echo";
const HEAD = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n";
const UPGRADE = `GET ${ECHO} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n`;
const BODY =
  "POST /api/v1/guests/demo/endpoints HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{";
const opcode = { continuation: 0, text: 1, binary: 2, ping: 9 };

export const scenario: Scenario = {
  fault:
    "one-byte fragments, ping floods, heads and bodies that trickle, half upgrades, closes that are not answered, event " +
    "streams, files, answers and upgrades pipelined and not read, pipelined garbage",
  passes:
    "every connection closed within 90 s, no descriptor, event stream or waiting byte left of them, heap and buffers 20 MiB more at most, others are served",
  run,
};

const get = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`;

/** What a bad client does again and again, and how it begins. */
interface Abuse {
  readonly begin: (url: string) => Promise<PlainClient>;
  readonly again?: (client: PlainClient) => unknown;
  /** It does; if not said otherwise. */
  readonly reads?: false;
}

/** Asks for the same many times at once, and reads nothing. */
function unread(path: string): Abuse {
  return {
    reads: false,
    begin: async (url) => {
      const client = await PlainClient.dial(url, get(path).repeat(600));
      client.socket.pause();
      return client;
    },
  };
}

const abuses: Readonly<Record<string, Abuse>> = {
  fragments: {
    begin: async (url) => {
      const client = await PlainClient.open(url, ECHO);
      client.send(opcode.binary, Buffer.of(0), false);
      return client;
    },
    again: (client) => {
      for (let i = 0; i < 20; i++) client.send(opcode.continuation, Buffer.of(0), false);
    },
  },
  pings: {
    reads: false,
    begin: async (url) => {
      const client = await PlainClient.open(url, ECHO);
      client.socket.pause();
      return client;
    },
    again: (client) => {
      for (let i = 0; i < 500 && client.socket.writableLength < 2 ** 20; i++)
        client.send(opcode.ping, Buffer.alloc(125));
    },
  },
  heads: {
    begin: (url) => PlainClient.dial(url, HEAD),
    again: (client) => client.socket.write("X-A: b\r\n"),
  },
  bodies: { begin: (url) => PlainClient.dial(url, BODY), again: (client) => client.socket.write(" ") },
  upgrades: { begin: (url) => PlainClient.dial(url, UPGRADE) },
  nothing: { begin: (url) => PlainClient.dial(url) },
  closes: {
    begin: async (url) => {
      const client = await PlainClient.open(url, ECHO);
      // What is no UTF-8 is closed with 1007.
      client.send(opcode.text, Buffer.of(0xff));
      return client;
    },
  },
  garbage: { begin: (url) => PlainClient.dial(url, `${HEAD}\r\n${"\u0000\u00ff{]".repeat(10_000)}`) },
  streams: unread("/api/v1/events"),
  files: unread("/docs/static/swagger-ui-bundle.js"),
  answers: unread("/openapi.json"),
  "upgrades behind a stream": {
    begin: (url) =>
      PlainClient.dial(url, `${get("/api/v1/events")}${HEAD}Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n`),
  },
};

async function run(scale: Scale): Promise<Outcome> {
  const each = CLIENTS[scale];
  const time = TIMES[scale];
  const limits =
    time === undefined
      ? {}
      : { headersTimeout: time, requestTimeout: time, responseTimeout: time, closeTimeout: time };
  const bridge = await BridgeProcess.start(() => ({ guests: { demo: { kind: "emulated" } }, limits }));
  try {
    await until("the guest", async () => ((await bridge.endpoints()).length >= 5 ? true : undefined));
    const good = await EchoClient.open(bridge.url, ECHO);
    // What is loaded and allocated once is there before anything is compared.
    for (const abuse of Object.values(abuses)) (await abuse.begin(bridge.url)).socket.destroy();
    const before = await bridge.probe();
    const connections = bridge.outside().descriptors;
    const sizeOf = ({ heapUsed, external }: typeof before) => heapUsed + external;
    const sizes = new Map<string, number>();
    const problems: string[] = [];
    const times: string[] = [];
    for (const [name, { begin, again, reads }] of Object.entries(abuses)) {
      const start = performance.now();
      const clients = await Promise.all(Array.from({ length: each }, () => begin(bridge.url)));
      await until(
        `the end of ${name}`,
        async () => {
          for (const client of clients) if (!client.closed) again?.(client);
          await good.echo(name);
          const size = sizeOf(await bridge.probe()) - sizeOf(before);
          sizes.set(name, Math.max(size, sizes.get(name) ?? 0));
          // Whoever neither reads nor writes does not hear of its end: the bridge has to have closed it before.
          if (reads !== false || bridge.outside().descriptors <= connections)
            for (const { socket } of clients) socket.resume();
          return clients.every(({ closed }) => closed) ? true : undefined;
        },
        90_000,
      ).catch((error: unknown) => problems.push((error as Error).message));
      times.push(`${name} ${((performance.now() - start) / 1000).toFixed(1)} s`);
      for (const { socket } of clients) socket.destroy();
    }
    await bridge.health();
    let left = "";
    await until(
      "that nothing is left of them",
      async () => {
        const text = await (
          await fetch(`${bridge.url}/metrics`, { headers: { connection: "close" } })
        ).text();
        const idle = ["rpmsg_bridge_event_streams 0", 'rpmsg_bridge_waiting_bytes{for="clients"} 0'];
        const { descriptors } = bridge.outside();
        const size = sizeOf(await bridge.probe()) - sizeOf(before);
        const shown = text
          .split("\n")
          .filter((line) => /^rpmsg_bridge_(?:event_streams|waiting_bytes)/.test(line));
        left = `${shown.join(", ")}; ${descriptors} of ${connections} descriptors, ${size} bytes`;
        const isIdle = idle.every((line) => text.includes(`\n${line}\n`));
        return (isIdle && descriptors <= connections && size < MARGIN) || undefined;
      },
      30_000,
    ).catch((error: unknown) => problems.push(`${(error as Error).message}: ${left}`));
    const [worst, most] = [...sizes].toSorted(([, a], [, b]) => b - a)[0] ?? ["", 0];
    if (most > MARGIN) problems.push(`${(most / 2 ** 20).toFixed(1)} MiB more with ${worst}`);
    return {
      measured: `${count(each)} clients of each kind: closed after ${times.join(", ")}; heap and buffers ${(most / 2 ** 20).toFixed(1)} MiB more at most`,
      problems,
    };
  } finally {
    await bridge.stop("SIGKILL");
  }
}
