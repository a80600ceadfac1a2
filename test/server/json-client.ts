import { once } from "node:events";
import type { Socket } from "node:net";
import { isDeepStrictEqual } from "node:util";
import { WebSocket } from "ws";
import type { ClientFrameInput, ConfigInput } from "../../schemas/index.ts";
import { ServerFrame } from "../../schemas/index.ts";
import type { RunningBridge } from "./support.ts";
import { Valve, vhostBridge } from "./vhost-guest.ts";

export type Frame<Type extends ServerFrame["type"] = ServerFrame["type"]> = Extract<
  ServerFrame,
  { type: Type }
>;
type SendFields = Omit<Extract<ClientFrameInput, { type: "send" }>, "type">;

/** A client of `rpmsg.v1.json` that keeps the frames until they are asked for; each must be as the schema says. */
export class JsonClient {
  readonly socket: WebSocket;
  /** The first frame. */
  hello!: Frame<"hello">;
  /** Code and reason of the end. */
  readonly closed: Promise<{ code: number; reason: string }>;
  readonly #url: string;
  readonly #frames: ServerFrame[] = [];
  #bad: Error | undefined;
  #wake: (() => void) | undefined;

  private constructor(socket: WebSocket, url: string) {
    this.socket = socket;
    this.#url = url;
    socket.on("message", (data: Buffer, isBinary: boolean) => {
      try {
        this.#frames.push(frameOf(data, isBinary));
      } catch (error) {
        this.#bad ??= error as Error;
      }
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

  /** Connects and takes the greeting. Rejects where the bridge refuses. */
  static async open(
    { url }: Pick<RunningBridge, "url">,
    path: string,
    headers: Record<string, string> = {},
  ): Promise<JsonClient> {
    const socket = new WebSocket(url.replace("http", "ws") + path, ["rpmsg.v1.json"], {
      perMessageDeflate: false,
      headers,
    });
    const client = new JsonClient(socket, url);
    await Promise.race([
      once(socket, "open"),
      client.closed.then(() => Promise.reject(new Error("closed before it was open"))),
      once(socket, "unexpected-response").then(([, response]) =>
        Promise.reject(new Error(`status ${(response as { statusCode: number }).statusCode}`)),
      ),
    ]);
    client.hello = await client.next("hello");
    return client;
  }

  /** Sends a frame as it is. */
  write(frame: unknown): void {
    this.socket.send(JSON.stringify(frame));
  }

  send(data: string, fields: Omit<SendFields, "data"> = {}): void {
    this.write({ type: "send", data, ...fields });
  }

  /** Frames that came and were not taken. */
  get received(): number {
    return this.#frames.length;
  }

  /** The next frame, of any type; rejects when the connection ends first. */
  async any(): Promise<ServerFrame> {
    for (;;) {
      if (this.#bad !== undefined) throw this.#bad;
      const frame = this.#frames.shift();
      if (frame !== undefined) return frame;
      if (this.socket.readyState === WebSocket.CLOSED) throw new Error("the connection has ended");
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** The next frame, which must be of that type. */
  async next<Type extends ServerFrame["type"]>(type: Type): Promise<Frame<Type>> {
    const frame = await this.any();
    if (frame.type !== type) throw new Error(`want ${type}, not ${JSON.stringify(frame)}`);
    return frame as Frame<Type>;
  }

  async take(count: number): Promise<ServerFrame[]> {
    const frames: ServerFrame[] = [];
    while (frames.length < count) frames.push(await this.any());
    return frames;
  }

  /** The next frames, so many, which must be messages: their data. */
  async texts(count: number): Promise<string[]> {
    const texts: string[] = [];
    while (texts.length < count) texts.push((await this.next("message")).data);
    return texts;
  }

  /** All that the bridge has written so far, without the answer to the question that tells when it is all. */
  async all(): Promise<ServerFrame[]> {
    this.write({ type: "ping" });
    const frames: ServerFrame[] = [];
    for (let frame = await this.any(); frame.type !== "pong"; frame = await this.any()) frames.push(frame);
    return frames;
  }

  /** Sends so many at once that the bridge finds them all in one read. */
  sendTogether(data: string, count: number): void {
    const { _socket: wire } = this.socket as unknown as { _socket: Socket };
    wire.cork();
    for (let i = 0; i < count; i++) this.send(data);
    wire.uncork();
  }

  /** The connection breaks, without a close frame, and the bridge knows. */
  async break(): Promise<void> {
    this.socket.terminate();
    await this.closed;
    // Asked later, it has heard of the end before.
    await fetch(`${this.#url}/healthz`);
  }

  /** Goes on with the session over a new connection. */
  resume(after = 0, query = "", endpoint = this.hello.endpoint): Promise<JsonClient> {
    const { guest, session } = this.hello;
    const path = `/ws/v1/${guest}/${endpoint}?resume=${session}&after=${after}${query}`;
    return JsonClient.open({ url: this.#url }, path);
  }

  async close(code?: number): Promise<void> {
    this.socket.close(code);
    await this.closed;
  }
}

/** Reads a frame of the bridge: text, as the schema says, and nothing beside it. */
function frameOf(data: Buffer, isBinary: boolean): ServerFrame {
  if (isBinary) throw new Error("a binary frame");
  const value: unknown = JSON.parse(data.toString());
  const frame = ServerFrame.parse(value);
  if (!isDeepStrictEqual(value, frame)) throw new Error(`more than the schema has: ${data.toString()}`);
  return frame;
}

/** A bridge whose guest `vm` has 8 receive buffers, and a service `valve` that takes messages only while it is open. */
export async function jsonValve(limits: NonNullable<ConfigInput["limits"]> = {}) {
  const running = await vhostBridge({ limits });
  const valve = new Valve();
  const attached = await running.attach({ profile: "rpmsg-lite", services: { valve: valve.factory } });
  await running.endpoint("valve");
  return {
    ...running,
    valve,
    vm: attached.vm,
    emulated: attached.guest,
    open: (query = "") => JsonClient.open(running, `/ws/v1/vm/valve${query}`),
    /** The guest takes what waits, and what comes. */
    release: () => valve.release(attached),
    counters: async () => (await running.endpoint("valve")).counters,
  };
}

/** A connected client whose messages have all 8 buffers of the guest: what it sends next waits. */
export async function fullValve(limits?: NonNullable<ConfigInput["limits"]>) {
  const running = await jsonValve(limits);
  const client = await running.open();
  for (let i = 0; i < 8; i++) client.send(`filler ${i}`, { id: i });
  for (let i = 0; i < 8; i++) await client.next("sent");
  return { ...running, client };
}
