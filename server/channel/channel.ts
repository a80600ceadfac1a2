import type { Duplex } from "node:stream";
import type { WebSocket } from "ws";
import type { Limits } from "../../schemas/index.ts";
import { closeCode } from "../../schemas/index.ts";
import type { ChannelEvents, ChannelPort, UndeliveredCode } from "../endpoint-port.ts";
import type { Marks } from "./back-pressure.ts";
import { marksOf } from "./back-pressure.ts";
import type { FlushTurn } from "./frame-writer.ts";
import { FrameWriter } from "./frame-writer.ts";

/** `readyState` of a WebSocket on which no close frame was sent. */
const OPEN = 1;

/**
 * One raw WebSocket and one endpoint: a binary message is an RPMsg payload, both ways, boundaries kept. A text
 * message is sent as its UTF-8 bytes.
 */
export class RawChannel implements ChannelEvents {
  readonly #stream: Duplex;
  readonly #writer: FrameWriter;
  readonly #limits: Limits;
  readonly #marks: Marks;
  #socket: WebSocket | undefined;
  #port: ChannelPort | undefined;
  #paused = false;
  /** A close frame is on its way: messages of the guest would come after it. */
  #closing = false;
  #awaitingPong = false;
  /** When the client was pinged: whether the ping had to wait behind other bytes, and how many were taken. */
  #backlogAtPing = false;
  #takenAtPing = 0;

  /** @param stream the connection, on which the handshake is still to be done */
  constructor(stream: Duplex, turn: FlushTurn, limits: Limits) {
    this.#stream = stream;
    this.#writer = new FrameWriter(stream, turn, () => this.#open);
    this.#limits = limits;
    this.#marks = marksOf(limits);
  }

  /**
   * Connects the two, after the handshake.
   * @param onEnd called when the socket is closed
   */
  serve(socket: WebSocket, port: ChannelPort, onEnd: () => void): void {
    this.#socket = socket;
    this.#port = port;
    socket.on("message", (data: Buffer) => this.#send(data));
    socket.on("pong", () => {
      this.#awaitingPong = false;
    });
    // ws answers a broken frame with its close code by itself.
    socket.on("error", () => {});
    socket.on("close", () => {
      this.#closing = true;
      port.close();
      onEnd();
    });
  }

  // ---- guest to client ----

  onMessage(_src: number, bytes: Uint8Array, offset: number, length: number): void {
    if (!this.#open) return;
    this.#writer.binary(bytes, offset, length);
    if (this.#writer.pendingBytes > this.#limits.slowReaderBytes) {
      this.close(closeCode.slowReader, `slow reader: more than ${this.#limits.slowReaderBytes} bytes wait`);
    }
  }

  // ---- client to guest ----

  #send(data: Buffer): void {
    const port = this.#port;
    if (port === undefined) return;
    if (data.length > port.mtu) {
      this.close(closeCode.tooBig, `message of ${data.length} bytes, the most is ${port.mtu}`);
      return;
    }
    const code = port.send(undefined, data, 0, data.length);
    if (code === "sent") return;
    if (code === "queued") {
      if (port.pendingBytes >= this.#marks.pause && !this.#paused) {
        this.#paused = true;
        this.#socket?.pause();
      }
    } else if (code === "too-large") {
      this.close(closeCode.tooBig, `message of ${data.length} bytes, the most is ${port.mtu}`);
    } else if (code === "queue-full") {
      this.close(closeCode.slowReader, "too much waits for the guest");
    }
  }

  onWritable(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#awaitingPong = false;
    this.#socket?.resume();
  }

  onUndelivered(code: UndeliveredCode): void {
    // What waits behind it would come after a gap.
    this.#port?.abort();
    if (code === "too-large") this.close(closeCode.tooBig, code);
    else this.close(closeCode.notDelivered, code);
  }

  onState(state: "reset" | "withdrawn"): void {
    if (state === "reset") this.close(closeCode.guestReset, "guest detached or reset");
    else this.close(closeCode.endpointWithdrawn, "endpoint withdrawn");
  }

  // ---- liveness and end ----

  /** No close frame was sent, by us or by ws as its answer: nothing may follow one (RFC 6455, 5.5.1). */
  get #open(): boolean {
    return !this.#closing && this.#socket?.readyState === OPEN;
  }

  /** Asks whether the client is there. */
  ping(): void {
    if (!this.#open) return;
    this.#awaitingPong = true;
    this.#backlogAtPing = this.#stream.writableLength > 0;
    this.#socket?.ping();
    this.#takenAtPing = this.#taken();
  }

  /**
   * Ends the connection of a client that did not answer. Not judged is one whose socket the bridge itself does not
   * read, and one that is still on its way through what was written before the ping.
   */
  checkPong(): void {
    if (this.#paused || !this.#awaitingPong) return;
    if (this.#backlogAtPing && this.#taken() > this.#takenAtPing) return;
    this.#socket?.terminate();
  }

  /** Says good-bye after what was written so far. On a drain, messages that the client has sent are still taken. */
  close(code: number, reason: string): void {
    if (this.#closing) return;
    this.#writer.flush();
    this.#closing = true;
    if (code !== closeCode.drain) {
      this.#port?.close();
      this.onWritable();
    }
    this.#socket?.close(code, reason);
  }

  terminate(): void {
    this.#socket?.terminate();
  }

  #taken(): number {
    const { bytesWritten = 0, writableLength } = this.#stream as Duplex & { bytesWritten?: number };
    return bytesWritten - writableLength;
  }
}
