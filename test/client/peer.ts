import { once } from "node:events";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { onTestFinished } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import type { Channel, ChannelEvents, ConnectOptions } from "../../client/index.ts";
import { connect } from "../../client/index.ts";
import type { ClientFrameInput, ErrorCode, ServerFrame } from "../../schemas/index.ts";
import { ClientFrame } from "../../schemas/index.ts";

type Frame<Type extends ServerFrame["type"]> = Extract<ServerFrame, { type: Type }>;
type SendFrame = Extract<ClientFrameInput, { type: "send" }>;

/** Items that come when they come, for who asks one by one. */
class Arrivals<T> {
  readonly #items: T[] = [];
  readonly #waiting: ((item: T) => void)[] = [];

  push(item: T): void {
    const waiting = this.#waiting.shift();
    if (waiting === undefined) this.#items.push(item);
    else waiting(item);
  }

  next(): Promise<T> {
    const item = this.#items.shift();
    if (item !== undefined) return Promise.resolve(item);
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  get size(): number {
    return this.#items.length;
  }
}

/** The bridge's end of a connection, which does what the test says. */
class PeerConnection {
  readonly socket: WebSocket;
  readonly request: IncomingMessage;
  readonly query: URLSearchParams;
  /** Resolves with the client's close code. */
  readonly closed: Promise<number>;
  readonly #frames = new Arrivals<ClientFrameInput>();

  constructor(socket: WebSocket, request: IncomingMessage) {
    this.socket = socket;
    this.request = request;
    this.query = new URL(request.url ?? "", "http://peer").searchParams;
    socket.on("message", (data: Buffer, isBinary) => {
      if (isBinary) throw new Error("not text");
      const frame = JSON.parse(data.toString()) as ClientFrameInput;
      ClientFrame.parse(frame);
      this.#frames.push(frame);
    });
    this.closed = once(socket, "close").then(([code]) => code as number);
  }

  /** Frames that have come and were not asked for. */
  get waiting(): number {
    return this.#frames.size;
  }

  next(): Promise<ClientFrameInput> {
    return this.#frames.next();
  }

  async nextSend(): Promise<SendFrame> {
    const frame = await this.next();
    if (frame.type !== "send") throw new Error(`a ${frame.type} frame`);
    return frame;
  }

  send(frame: ServerFrame): void {
    this.socket.send(JSON.stringify(frame));
  }

  hello(changes: Partial<Frame<"hello">> = {}): void {
    this.send({
      type: "hello",
      protocol: "rpmsg.v1.json",
      guest: "demo",
      endpoint: "echo",
      id: "e1",
      local: 1024,
      endpointState: "connected",
      guestState: "attached",
      generation: 1,
      mtu: 496,
      instance: "instance",
      session: "session",
      resumed: false,
      ...changes,
    });
  }

  message(seq: number, data = `${seq}`): void {
    this.send({ type: "message", seq, src: 7, data, encoding: "utf8" });
  }

  sent(id: string | number | undefined): void {
    if (id === undefined) throw new Error("no id");
    this.send({ type: "sent", id });
  }

  failed(id: string | number | undefined, code: ErrorCode): void {
    this.send({ type: "error", ...(id !== undefined && { id }), code, message: code });
  }

  /** All that the client has written before now is with the peer, and all that the peer has written with the client. */
  async settle(): Promise<void> {
    this.socket.ping();
    await once(this.socket, "pong");
  }
}

/** What stands in for a bridge where a test needs one that errs, or says a certain thing at a certain time. */
export class Peer {
  readonly url: string;
  readonly http: string;
  /** The answer to the next upgrades, for as long as it is set. */
  refusal: { status: number; body: string } | undefined;
  /** Upgrades so far. */
  upgrades = 0;
  /** The answer to plain requests. */
  onRequest: (request: IncomingMessage, response: ServerResponse) => void = (_request, response) => {
    response.writeHead(404).end();
  };
  readonly #sockets = new WebSocketServer({ noServer: true });
  readonly #connections = new Arrivals<PeerConnection>();
  readonly #refusals = new Arrivals<IncomingMessage>();

  private constructor(server: Server) {
    this.http = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    this.url = `${this.http.replace("http", "ws")}/ws/v1/demo/echo`;
    server.on("request", (request, response) => this.onRequest(request, response));
    server.on("upgrade", (request, stream, head) => {
      this.upgrades++;
      if (this.refusal !== undefined) {
        this.#refusals.push(request);
        const { status, body } = this.refusal;
        stream.end(
          `HTTP/1.1 ${status} No\r\nConnection: close\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
        );
        return;
      }
      this.#sockets.handleUpgrade(request, stream, head, (socket) => {
        this.#connections.push(new PeerConnection(socket, request));
      });
    });
  }

  static async listen(): Promise<Peer> {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const peer = new Peer(server);
    onTestFinished(() => {
      for (const socket of peer.#sockets.clients) socket.terminate();
      server.closeAllConnections();
      server.close();
    });
    return peer;
  }

  refuse(status: number, code: ErrorCode, detail: string): void {
    this.refusal = {
      status,
      body: JSON.stringify({ type: "about:blank", title: "No", status, code, detail }),
    };
  }

  /** So many upgrades were refused. */
  async refused(count: number): Promise<void> {
    for (let i = 0; i < count; i++) await this.#refusals.next();
  }

  connection(): Promise<PeerConnection> {
    return this.#connections.next();
  }

  /** A channel, and this end of it. */
  async connect(options: ConnectOptions = {}, hello: Partial<Frame<"hello">> = {}) {
    const opening = connectTo(this, options);
    const peer = await this.connection();
    peer.hello(hello);
    return { channel: await opening, peer };
  }
}

/** A WebSocket that shows as little as that of a browser. */
export class BrowserLike {
  readonly #socket: WebSocket;

  constructor(url: string, protocols: string[]) {
    this.#socket = new WebSocket(url, protocols);
    this.#socket.on("error", () => {});
  }

  get readyState(): number {
    return this.#socket.readyState;
  }

  send(data: string): void {
    this.#socket.send(data);
  }

  close(code?: number): void {
    this.#socket.close(code);
  }

  addEventListener(type: "message" | "close" | "error", listener: (event: never) => void): void {
    if (type !== "error") this.#socket.addEventListener(type as "message", listener as () => void);
  }
}

/** As `connect`, with the WebSocket of ws, at once again after a loss, and over at the end of the test. */
export async function connectTo({ url }: { url: string }, options: ConnectOptions = {}) {
  const channel = await connect(url, {
    WebSocket,
    pingInterval: 0,
    reconnect: { minDelay: 1, maxDelay: 1 },
    ...options,
  });
  onTestFinished(() => channel.close());
  return channel;
}

/** The code that a promise is rejected with. */
export async function codeOf(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return (error as { code?: unknown }).code ?? error;
  }
  throw new Error("not rejected");
}

/** The next event of that type. */
export function nextEvent<Type extends keyof ChannelEvents>(
  channel: Channel,
  type: Type,
): Promise<ChannelEvents[Type]> {
  return new Promise((resolve) => {
    const off = channel.on(type, (event) => {
      off();
      resolve(event);
    });
  });
}
