import type { Socket } from "node:net";
import { connect } from "node:net";
import { deferred } from "./deferred.ts";
import { binaryHeader, clientFrame, FIN_PING } from "./frames.ts";
import { upgradeRequest } from "./handshake.ts";

/** What is read, by all readers in turn: buffers of their own would have their process collect garbage all the time. */
const input = Buffer.allocUnsafeSlow(256 << 10);

export interface StreamReaderOptions {
  port: number;
  path: string;
  /** Bytes of a message. */
  size: number;
  /** Takes each frame: where it begins, valid during the call only. Whether it is one of such a message is for it to see. */
  onFrame: (bytes: Buffer, at: number) => void;
}

/**
 * A client that reads a stream of messages of one size, and does little more: with a WebSocket object for each of them,
 * their process would be the one that is measured.
 */
export class StreamReader {
  /** Settles with the handshake. */
  readonly opened = deferred();
  readonly socket: Socket;
  readonly #onFrame: StreamReaderOptions["onFrame"];
  readonly #frameLength: number;
  #head = "";
  #open = false;
  /** A frame that came in pieces, as far as it is here. */
  readonly #stash: Buffer;
  #stashed = 0;

  constructor({ port, path, size, onFrame }: StreamReaderOptions) {
    this.#onFrame = onFrame;
    this.#frameLength = binaryHeader(size).length + size;
    this.#stash = Buffer.allocUnsafeSlow(this.#frameLength);
    const onread = { buffer: input, callback: (length: number) => this.#onRead(length) };
    this.socket = connect({ host: "127.0.0.1", port, noDelay: true, onread });
    this.socket.write(upgradeRequest({ host: "127.0.0.1", port, path }));
    this.socket.on("error", (error) => this.opened.reject(error));
    this.socket.on("close", () =>
      this.opened.reject(new Error(`refused: ${this.#head.split("\r\n", 1)[0]}`)),
    );
  }

  send(text: string): void {
    this.socket.write(clientFrame(binaryHeader(text.length), Buffer.from(text)));
  }

  #onRead(length: number): boolean {
    let at = 0;
    if (!this.#open) {
      const before = this.#head.length;
      this.#head += input.toString("latin1", 0, length);
      const end = this.#head.indexOf("\r\n\r\n");
      if (end < 0) return true;
      if (!this.#head.startsWith("HTTP/1.1 101 ")) {
        this.socket.destroy();
        return true;
      }
      this.#open = true;
      this.opened.resolve();
      at = end + 4 - before;
    }
    const frameLength = this.#frameLength;
    while (at < length) {
      if (this.#stashed === 0 && input[at] === FIN_PING && at + 1 < length) {
        at += 2 + (input[at + 1] as number);
      } else if (this.#stashed > 0 || length - at < frameLength) {
        const taken = Math.min(frameLength - this.#stashed, length - at);
        input.copy(this.#stash, this.#stashed, at, at + taken);
        this.#stashed += taken;
        at += taken;
        if (this.#stashed < frameLength) return true;
        this.#stashed = 0;
        this.#onFrame(this.#stash, 0);
      } else {
        this.#onFrame(input, at);
        at += frameLength;
      }
    }
    return true;
  }
}
