import { setImmediate as nextTurn } from "node:timers/promises";
import { WebSocket } from "ws";
import { muxHeader } from "../../schemas/index.ts";

/** Bytes of each message. */
const SIZE = 400;
/** Messages that are given to the socket at once. */
const AT_ONCE = 32;
const SUB = 1;
/** In a mux frame: the endpoint's peer. */
const PEER = 0xffff_ffff;

export const protocols = ["raw", "mux"] as const;
export type Protocol = (typeof protocols)[number];

/**
 * A client that sends messages for as long as it lives, as fast as its socket takes them, whatever it is told: it keeps
 * to no credit, and where it is closed it comes again.
 */
export class Flooder {
  /** What it was told so far: codes of errors and of closes, with how often. */
  readonly told = new Map<string, number>();
  readonly #url: string;
  readonly #protocol: Protocol;
  readonly #path: string;
  readonly #message: Buffer;
  readonly #running: Promise<void>;
  #socket: WebSocket | undefined;
  #isOver = false;

  /** @param path of a channel */
  constructor(url: string, protocol: Protocol, path: string) {
    this.#url = url.replace("http", "ws");
    this.#protocol = protocol;
    this.#path = path;
    this.#message = messageOf(protocol);
    this.#running = this.#run();
  }

  async end(): Promise<void> {
    this.#isOver = true;
    this.#socket?.terminate();
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#isOver) await this.#once();
  }

  /** One connection, until its end. */
  async #once(): Promise<void> {
    const mux = this.#protocol === "mux";
    const path = mux ? "/ws/v1" : this.#path;
    const socket = new WebSocket(this.#url + path, [`rpmsg.v1.${this.#protocol}`], {
      perMessageDeflate: false,
    });
    this.#socket = socket;
    socket.on("error", () => {});
    socket.on("message", (data: Buffer, isBinary) => {
      if (!isBinary) this.#read(JSON.parse(data.toString()) as Frame);
    });
    // After an error, too.
    const closed = new Promise<number>((resolve) => socket.once("close", resolve));
    const opened = new Promise<void>((resolve) => socket.once("open", resolve));
    if ((await Promise.race([closed, opened])) === undefined) {
      if (mux) socket.send(JSON.stringify({ type: "subscribe", sub: SUB, path: this.#path }));
      await this.#flood(socket);
    }
    const code = await closed;
    if (!this.#isOver) this.#tell(`${code}`);
  }

  async #flood(socket: WebSocket): Promise<void> {
    while (socket.readyState === WebSocket.OPEN) {
      for (let i = 1; i < AT_ONCE; i++) socket.send(this.#message);
      // Until the socket has taken it, or has ended.
      await new Promise((resolve) => socket.send(this.#message, resolve));
      // Where the kernel takes everything at once, that was no turn of the event loop: nothing would ever be read here.
      await nextTurn();
    }
  }

  #read({ type, code }: Frame): void {
    if (type === "error" || (type === "unsubscribed" && code !== undefined)) this.#tell(code ?? "");
  }

  #tell(code: string): void {
    this.told.set(code, (this.told.get(code) ?? 0) + 1);
  }
}

interface Frame {
  readonly type: string;
  readonly code?: string;
}

function messageOf(protocol: Protocol): Buffer {
  if (protocol === "raw") return Buffer.alloc(SIZE, "x");
  const frame = Buffer.alloc(muxHeader.size + SIZE, "x");
  frame.writeUInt32LE(SUB, muxHeader.subscription);
  frame.writeUInt32LE(PEER, muxHeader.address);
  frame.writeUInt32LE(0, muxHeader.number);
  return frame;
}
