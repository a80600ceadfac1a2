import type { WebSocket } from "ws";
import type { ClientFrameInput, Encoding, MessageId } from "../../schemas/index.ts";
import { ServerFrame } from "../../schemas/index.ts";
import { explain, explainClose } from "./advice.ts";
import { incomprehensible } from "./client.ts";
import { CommandError } from "./command-error.ts";
import type { ChannelFlags } from "./dial.ts";
import { dial } from "./dial.ts";
import { beforeSignals } from "./signals.ts";

/** Milliseconds that the bridge has for its greeting. */
const GREETING_TIMEOUT = 10_000;
/** Milliseconds that it has to answer a good-bye. */
const GOODBYE_TIMEOUT = 1000;
/** The close code where there was no close frame. */
const ABNORMAL = 1006;
/** Bytes that may wait for the bridge to read them before `room` waits. */
const HIGH_WATER = 65_536;

type Hello = Extract<ServerFrame, { type: "hello" }>;

interface SendOptions {
  dst?: number | undefined;
  /** Milliseconds. */
  timeout?: number | undefined;
}

interface Waiting {
  resolve(failure: string | undefined): void;
  reject(error: CommandError): void;
}

/** Is given each frame, from the greeting on, and its text. A frame of a newer bridge may be one that we do not know. */
type FrameHandler = (frame: ServerFrame | undefined, text: string) => void;

/** A connection to an endpoint, by the subprotocol rpmsg.v1.json. */
export class Channel {
  /** Resolves at the normal end, rejects with a CommandError at any other. */
  readonly closed: Promise<void>;
  readonly #socket: WebSocket;
  /** Who waits for the results of messages, by their ids. */
  readonly #results = new Map<MessageId, Waiting>();
  /** What came before anybody listened. */
  readonly #early: string[] = [];
  #onFrame: FrameHandler = (_frame, text) => this.#early.push(text);
  #hello: Hello | undefined;
  #nextId = 1;
  #written: Promise<void> = Promise.resolve();

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    this.closed = new Promise((resolve, reject) => {
      socket.once("error", (error: Error & { code?: string }) => {
        // Mistakes of whoever answers are told; errors of the system are ends without a good-bye.
        const mistake = error.code?.startsWith("WS_ERR") === true;
        reject(new CommandError(mistake ? error.message : explainClose(ABNORMAL, "")));
      });
      socket.once("close", (code, reason) => {
        const error = new CommandError(explainClose(code, reason.toString()));
        if (code === 1000 || code === 1005) resolve();
        else reject(error);
        for (const waiting of this.#results.values()) waiting.reject(error);
        this.#results.clear();
      });
    });
    // Those who wait for it are told; at first nobody does.
    this.closed.catch(() => {});
  }

  /**
   * Connects to GUEST/ENDPOINT, and reads the greeting.
   * @param encoding of the messages that come; undefined: utf8 where they are text, else base64
   * @throws CommandError
   */
  static async open(reference: string, flags: ChannelFlags, encoding?: Encoding): Promise<Channel> {
    const socket = await dial(reference, flags, encoding);
    const channel = new Channel(socket);
    beforeSignals(channel.closed, () => channel.end());
    let timer: NodeJS.Timeout | undefined;
    const greeted = new Promise<void>((resolve, reject) => {
      timer = setTimeout(() => reject(incomprehensible(flags, "no greeting")), GREETING_TIMEOUT);
      socket.once("message", (data: Buffer) => {
        const text = data.toString();
        const frame = parseFrame(text);
        if (frame?.type !== "hello") return reject(incomprehensible(flags, "another greeting"));
        channel.#hello = frame;
        channel.#early.push(text);
        socket.on("message", (more: Buffer) => channel.#take(more.toString()));
        resolve();
      });
    });
    socket.resume();
    try {
      await Promise.race([greeted, channel.closed]);
    } catch (error) {
      socket.terminate();
      throw error;
    } finally {
      clearTimeout(timer);
    }
    return channel;
  }

  /** The greeting: what the endpoint is called, its guest's generation, the longest message. */
  get hello(): Hello {
    if (this.#hello === undefined) throw new Error("not open");
    return this.#hello;
  }

  get open(): boolean {
    return this.#socket.readyState === this.#socket.OPEN;
  }

  /** Passes on what came and comes. */
  listen(onFrame: FrameHandler): void {
    this.#onFrame = onFrame;
    for (const text of this.#early.splice(0)) onFrame(parseFrame(text), text);
  }

  /**
   * Sends a message.
   * @returns why it was not delivered; undefined when it is in the guest's response queue
   * @throws CommandError where the connection ends before that is known
   */
  send(data: Buffer, { dst, timeout }: SendOptions = {}): Promise<string | undefined> {
    const id = this.#nextId++;
    const frame: ClientFrameInput = {
      ...{ type: "send", id, data: data.toString("base64"), encoding: "base64" },
      ...(dst !== undefined && { dst }),
      ...(timeout !== undefined && { timeout }),
    };
    return new Promise((resolve, reject) => {
      this.#results.set(id, { resolve, reject });
      this.sendText(JSON.stringify(frame));
    });
  }

  /** Sends a frame as it is. */
  sendText(text: string): void {
    this.#written = new Promise((resolve) => this.#socket.send(text, () => resolve()));
  }

  /** Waits while the bridge does not read what was sent. */
  async room(): Promise<void> {
    if (this.#socket.bufferedAmount > HIGH_WATER) await this.#written;
  }

  /** Messages of which it is not known yet what became of them. */
  get unsettled(): number {
    return this.#results.size;
  }

  /** Leaves what comes with the bridge, until `resume`. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Says good-bye: without it the bridge would keep the session for a while, and the endpoint with it. */
  close(): void {
    this.#socket.close(1000);
  }

  /** Ends the connection whatever its state. */
  async end(): Promise<void> {
    this.close();
    let timer: NodeJS.Timeout | undefined;
    const patience = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, GOODBYE_TIMEOUT);
    });
    await Promise.race([this.closed.catch(() => {}), patience]);
    clearTimeout(timer);
    this.#socket.terminate();
  }

  #take(text: string): void {
    const frame = parseFrame(text);
    const id = frame?.type === "sent" || frame?.type === "error" ? frame.id : undefined;
    const waiting = id === undefined ? undefined : this.#results.get(id);
    if (id === undefined || waiting === undefined) {
      this.#onFrame(frame, text);
    } else {
      this.#results.delete(id);
      waiting.resolve(frame?.type === "error" ? explain(frame.message, frame.code) : undefined);
    }
  }
}

function parseFrame(text: string): ServerFrame | undefined {
  try {
    return ServerFrame.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}
