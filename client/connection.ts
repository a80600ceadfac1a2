import type { ClientFrameInput, ServerFrame } from "../schemas/index.ts";
import { problemError, RpmsgError } from "./errors.ts";
import type { Frame } from "./frames.ts";
import { parseFrame } from "./frames.ts";
import type { WebSocketLike } from "./web-socket.ts";

/** `readyState` of a WebSocket that takes messages. */
const OPEN = 1;
/** What a connection ends with that was not closed by the other side. */
const ABNORMAL = 1006;
/** Characters of a refusal that are read. */
const LONGEST_REFUSAL = 65_536;

/** How a connection ended. */
export interface ConnectionEnd {
  code: number;
  reason: string;
  /** Where more is known than the code says. */
  error?: RpmsgError | undefined;
}

/** Frames that concern the channel. */
export type ChannelFrame = Exclude<ServerFrame, { type: "hello" | "pong" }>;

interface ConnectionEvents {
  /** The connection is up; comes once, first. */
  onHello(hello: Frame<"hello">): void;
  onFrame(frame: ChannelFrame): void;
  /** The bridge sent something that is no frame. */
  onBadFrame(error: RpmsgError): void;
  /** Comes once, last. */
  onEnd(end: ConnectionEnd): void;
}

interface ConnectionTimes {
  /** Milliseconds until the bridge has said hello. */
  timeout: number;
  /** Milliseconds between pings; a connection on which nothing comes between two of them is lost. 0: no pings. */
  pingInterval: number;
}

/** One WebSocket that speaks `rpmsg.v1.json`, from the first byte to its end. */
export class Connection {
  readonly #socket: WebSocketLike;
  readonly #events: ConnectionEvents;
  #up = false;
  #ended = false;
  /** Something came since the last ping. */
  #heard = true;
  #timer: ReturnType<typeof setTimeout>;

  constructor(socket: WebSocketLike, events: ConnectionEvents, { timeout, pingInterval }: ConnectionTimes) {
    this.#socket = socket;
    this.#events = events;
    let failure = "";
    socket.addEventListener("message", ({ data }) => this.#receive(data, pingInterval));
    socket.addEventListener("error", (event) => {
      failure = (event as { message?: string }).message ?? "";
    });
    socket.addEventListener("close", ({ code, reason }) => {
      const error =
        failure === "" || this.#up
          ? undefined
          : new RpmsgError("unreachable", `cannot reach the bridge: ${failure}`);
      this.#end({ code, reason, error });
    });
    onRefusal(socket, (error) => this.#drop(error));
    this.#timer = setTimeout(() => {
      this.#drop(new RpmsgError("unreachable", `the bridge did not answer within ${timeout} ms`));
    }, timeout);
  }

  /** @returns false where the connection is about to end: nothing was written */
  write(frame: string): boolean {
    if (this.#ended || this.#socket.readyState !== OPEN) return false;
    this.#socket.send(frame);
    return true;
  }

  /** Closes it without a further event. */
  close(): void {
    this.#ended = true;
    clearTimeout(this.#timer);
    clearInterval(this.#timer);
    this.#socket.close(1000);
  }

  #receive(data: unknown, pingInterval: number): void {
    if (this.#ended) return;
    this.#heard = true;
    const frame = parseFrame(data);
    if (!this.#up) {
      if (frame?.type === "hello") this.#hello(frame, pingInterval);
      else this.#drop(new RpmsgError("unreachable", "what answers does not speak rpmsg.v1.json"));
    } else if (frame === undefined || frame.type === "hello") {
      this.#events.onBadFrame(
        new RpmsgError("bad-frame", "the bridge sent what is no frame of rpmsg.v1.json"),
      );
    } else if (frame.type !== "pong") {
      this.#events.onFrame(frame);
    }
  }

  #hello(frame: Frame<"hello">, pingInterval: number): void {
    this.#up = true;
    clearTimeout(this.#timer);
    if (pingInterval > 0) this.#timer = setInterval(() => this.#ping(), pingInterval);
    this.#events.onHello(frame);
  }

  /** A connection may be gone without a word, as when a network changes. */
  #ping(): void {
    if (!this.#heard) {
      // Where this program was busy, or asleep, the answer may be there and not be read yet.
      setTimeout(() => this.#heard || this.#silent(), 0);
      return;
    }
    this.#heard = false;
    this.write(JSON.stringify({ type: "ping" } satisfies ClientFrameInput));
  }

  /** No close frame: one that came through would end the session. */
  #silent(): void {
    const error = new RpmsgError("connection-lost", "the bridge has not answered a ping");
    this.#end({ code: ABNORMAL, reason: "", error });
  }

  /** The attempt failed. */
  #drop(error: RpmsgError): void {
    this.#end({ code: ABNORMAL, reason: "", error });
    this.#socket.close();
  }

  #end(end: ConnectionEnd): void {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#timer);
    clearInterval(this.#timer);
    this.#events.onEnd(end);
  }
}

/** What `ws` emits, and nobody else: browsers do not show the answer to a refused upgrade. */
interface RefusalSource {
  on?(
    type: "unexpected-response",
    listener: (
      request: unknown,
      response: { statusCode: number; on(type: string, listener: (part: unknown) => void): void },
    ) => void,
  ): void;
}

function onRefusal(socket: WebSocketLike & RefusalSource, callback: (error: RpmsgError) => void): void {
  socket.on?.("unexpected-response", (_request, response) => {
    let body = "";
    response.on("data", (part) => {
      if (body.length < LONGEST_REFUSAL) body += String(part);
    });
    response.on("end", () => callback(problemError(response.statusCode, body)));
  });
}
