import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { onTestFinished } from "vitest";
import { WebSocket } from "ws";
import type { ConfigInput, Endpoint, Guest } from "../../schemas/index.ts";
import { Config, EndpointList, Problem } from "../../schemas/index.ts";
import { buildApp } from "../../server/app.ts";
import { Bridge } from "../../server/bridge.ts";
import { ConfigError } from "../../server/config/config-error.ts";
import { parseListen } from "../../server/config/flags.ts";
import type { CountedLimit } from "../../server/counted-limits.ts";

/** A bridge that listens on a free port, or on the Unix socket of its configuration. */
export interface RunningBridge {
  readonly bridge: Bridge;
  /** `http://127.0.0.1:PORT`; nothing of here but `bridge` is for a Unix socket. */
  readonly url: string;
  readonly endpoints: () => Promise<Endpoint[]>;
  readonly guest: (name: string) => Promise<Guest>;
  /** The endpoint of that name, as soon as it is listed and `where` holds for it. */
  readonly endpoint: (name: string, where?: (endpoint: Endpoint) => boolean) => Promise<Endpoint>;
  readonly connect: (path: string, protocols?: string[], headers?: Record<string, string>) => Promise<Client>;
  /** Tries to connect where the bridge is to refuse, and gives its answer. */
  readonly refusal: (path: string, options?: RefusalOptions) => Promise<Problem>;
  readonly close: () => Promise<void>;
}

interface RefusalOptions {
  protocols?: string[];
  headers?: Record<string, string>;
}

/** A line of the bridge's log. */
export type LogLine = Record<string, unknown>;

/**
 * Starts a bridge; without a configuration, with the emulated guest `demo`.
 * @param headers of the requests that are made here
 */
export async function startBridge(
  input: ConfigInput = {},
  onLog?: (line: LogLine) => void,
  headers: Record<string, string> = {},
): Promise<RunningBridge> {
  const config = Config.parse({ guests: { demo: { kind: "emulated" } }, ...input });
  const sink = { write: (line: string) => onLog?.(JSON.parse(line) as LogLine) };
  const bridge = new Bridge(
    config,
    pino({ level: onLog === undefined ? "silent" : (input.logLevel ?? "info"), base: null }, sink),
  );
  const app = buildApp(bridge);
  await bridge.start();
  const address = parseListen(config.listen);
  await app.listen("path" in address ? address : { host: "127.0.0.1", port: 0 });
  const bound = app.server.address() as AddressInfo | string;
  const url = typeof bound === "string" ? config.listen : `http://127.0.0.1:${bound.port}`;
  const get = async (path: string): Promise<unknown> => (await fetch(url + path, { headers })).json();
  const endpoints = async () => EndpointList.parse(await get("/api/v1/endpoints")).endpoints;
  return {
    bridge,
    url,
    endpoints,
    endpoint: (name, where = () => true) =>
      eventually(`endpoint ${name}`, async () =>
        (await endpoints()).find((each) => each.name === name && where(each)),
      ),
    guest: async (name) => (await get(`/api/v1/guests/${name}`)) as Guest,
    connect: (path, protocols, more = headers) =>
      Client.open(url.replace("http", "ws") + path, protocols, more),
    refusal: (path, options) => refusal(url.replace("http", "ws") + path, options),
    async close() {
      bridge.close();
      await app.close();
    },
  };
}

/** As `startBridge`, closed at the end of the test. */
export async function testBridge(
  input?: ConfigInput,
  onLog?: (line: LogLine) => void,
  headers?: Record<string, string>,
): Promise<RunningBridge> {
  const running = await startBridge(input, onLog, headers);
  onTestFinished(() => running.close());
  return running;
}

async function refusal(url: string, options: RefusalOptions = {}): Promise<Problem> {
  const socket = new WebSocket(url, options.protocols ?? [], { headers: options.headers ?? {} });
  socket.on("error", () => {});
  const [, response] = (await Promise.race([
    once(socket, "unexpected-response"),
    once(socket, "open").then(() => {
      socket.terminate();
      throw new Error("the bridge accepted");
    }),
  ])) as [unknown, IncomingMessage];
  const parts: Buffer[] = [];
  for await (const part of response) parts.push(part as Buffer);
  const problem = Problem.parse(JSON.parse(Buffer.concat(parts).toString()));
  if (response.statusCode !== problem.status) throw new Error(`status ${response.statusCode} in the head`);
  if (response.headers["content-type"] !== "application/problem+json") throw new Error("not problem+json");
  return problem;
}

/** A directory for sockets, removed at the end of the test. */
export function testDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), "rpmsg-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  return directory;
}

/** The key that the configuration error of `action` names; its message is one line and begins with it. */
export async function configKeyOf(action: () => unknown): Promise<string> {
  try {
    await action();
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    if (!error.message.startsWith(`${error.key}: `) || error.message.includes("\n")) throw error;
    return error.key;
  }
  throw new Error("no error");
}

/** How often a limit of a bridge was reached. */
export function reached(
  { bridge }: { readonly bridge: Pick<Bridge, "counts"> },
  limit: CountedLimit,
): number {
  return new Map(bridge.counts.limits.entries()).get(limit) ?? 0;
}

/** Waits until `probe` gives something, asked again after every turn of the event loop. */
export async function eventually<T>(
  what: string,
  probe: () => T | undefined | Promise<T | undefined>,
): Promise<T> {
  const deadline = performance.now() + 15_000;
  for (;;) {
    const value = await probe();
    if (value !== undefined) return value;
    if (performance.now() > deadline) throw new Error(`did not happen: ${what}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** A WebSocket client that keeps what it gets until it is asked for. */
export class Client {
  readonly socket: WebSocket;
  readonly #messages: Buffer[] = [];
  #wake: (() => void) | undefined;
  /** Code and reason of the end. */
  readonly closed: Promise<{ code: number; reason: string }>;

  private constructor(socket: WebSocket) {
    this.socket = socket;
    socket.on("message", (data: Buffer) => {
      this.#messages.push(data);
      this.#wake?.();
    });
    socket.on("error", () => {});
    this.closed = new Promise((resolve) => {
      socket.once("close", (code, reason) => {
        resolve({ code, reason: reason.toString() });
        this.#wake?.();
      });
    });
  }

  /** Rejects with the status where the bridge refuses. */
  static async open(
    url: string,
    protocols: string[] = [],
    headers: Record<string, string> = {},
  ): Promise<Client> {
    const socket = new WebSocket(url, protocols, { perMessageDeflate: false, headers });
    const client = new Client(socket);
    await Promise.race([
      once(socket, "open"),
      client.closed.then(() => Promise.reject(new Error("closed before it was open"))),
      once(socket, "unexpected-response").then(([, response]) =>
        Promise.reject(new Error(`status ${(response as { statusCode: number }).statusCode}`)),
      ),
    ]);
    return client;
  }

  send(data: string | Uint8Array): void {
    this.socket.send(typeof data === "string" ? Buffer.from(data) : data);
  }

  get received(): number {
    return this.#messages.length;
  }

  /** The next message; rejects when the connection ends first. */
  async next(): Promise<Buffer> {
    for (;;) {
      const message = this.#messages.shift();
      if (message !== undefined) return message;
      if (this.socket.readyState === WebSocket.CLOSED) throw new Error("the connection has ended");
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** The next messages, so many. */
  async take(count: number): Promise<Buffer[]> {
    const messages: Buffer[] = [];
    while (messages.length < count) messages.push(await this.next());
    return messages;
  }

  /** The next message as text. */
  async text(): Promise<string> {
    return (await this.next()).toString();
  }

  async close(): Promise<void> {
    this.socket.close();
    await this.closed;
  }
}
