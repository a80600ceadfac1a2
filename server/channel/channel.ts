import type { Duplex } from "node:stream";
import type { WebSocket } from "ws";
import type { Limits } from "../../schemas/index.ts";
import { closeCode } from "../../schemas/index.ts";
import type {
  ChannelEvents,
  ChannelPort,
  EndpointPort,
  OpenOptions,
  UndeliveredCode,
} from "../endpoint-port.ts";
import type { FlushTurn } from "./frame-writer.ts";
import { FrameWriter } from "./frame-writer.ts";

/** What a request asked for, checked. */
export type ChannelOptions = Pick<OpenOptions, "share" | "local">;

/**
 * One raw WebSocket and one endpoint: a binary message is an RPMsg payload, both ways, boundaries kept. A text
 * message is sent as its UTF-8 bytes.
 */
export class RawChannel implements ChannelEvents {
  readonly #stream: Duplex;
  readonly #writer: FrameWriter;
  readonly #limits: Limits;
  #socket: WebSocket | undefined;
  #port: ChannelPort | undefined;
  #paused = false;
  /** A close frame is on its way: messages of the guest would come after it. */
  #closing = false;
  #awaitingPong = false;
  /** Bytes that the client had taken when it was pinged. */
  #takenAtPing = 0;

  /** @param stream the connection, on which the handshake is still to be done */
  constructor(stream: Duplex, turn: FlushTurn, limits: Limits) {
    this.#stream = stream;
    this.#writer = new FrameWriter(stream, turn);
    this.#limits = limits;
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
    if (this.#closing) return;
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
      if (port.pendingBytes >= this.#limits.sendQueueBytes && !this.#paused) {
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
    if (code === "too-large") this.close(closeCode.tooBig, "too-large");
    else this.close(closeCode.notDelivered, code);
  }

  onState(state: "reset" | "withdrawn"): void {
    if (state === "reset") this.close(closeCode.guestReset, "guest detached or reset");
    else this.close(closeCode.endpointWithdrawn, "endpoint withdrawn");
  }

  // ---- liveness and end ----

  /** Asks whether the client is there. While the bridge itself does not read, an answer could not be seen. */
  ping(): void {
    const socket = this.#socket;
    if (this.#paused || socket?.readyState !== socket?.OPEN) return;
    this.#awaitingPong = true;
    socket?.ping();
    this.#takenAtPing = this.#taken();
  }

  /** Ends the connection of a client that neither answered nor took any bytes. */
  checkPong(): void {
    if (this.#paused || !this.#awaitingPong || this.#taken() > this.#takenAtPing) return;
    this.#socket?.terminate();
  }

  /** Says good-bye after what was written so far. On a drain, messages that the client has sent are still taken. */
  close(code: number, reason: string): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#writer.flush();
    if (code !== closeCode.drain) this.#port?.close();
    if (this.#paused) {
      this.#paused = false;
      this.#socket?.resume();
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

/** Opens an endpoint for a channel. */
export function openChannel(
  endpoint: EndpointPort,
  options: ChannelOptions,
  limits: Limits,
  events: ChannelEvents,
): ReturnType<EndpointPort["open"]> {
  // After the socket is paused, a read chunk of messages still arrives: their place is kept.
  const queueBytes = limits.sendQueueBytes + READ_CHUNK;
  return endpoint.open({ ...options, queueBytes, timeout: limits.sendTimeout }, events);
}

/** Most bytes of messages that still arrive after a pause: a read of Node's sockets, twice. */
const READ_CHUNK = 128 * 1024;
