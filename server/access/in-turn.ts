import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";

/**
 * One request of a connection at a time. HTTP/1.1 lets a client send the next one before it has the answer (RFC 9112,
 * 9.3.2), but no browser and no `fetch` does, and here such a connection ends: Node tells an answer that waits behind
 * another nothing of the end of its connection, so that whatever it holds would stay for good; and a WebSocket would
 * share its socket with an answer that is not over. What a client sends as soon as it has an answer may come before
 * Node says that this one is written, which over TLS it does later: such a request waits for that.
 */
export class InTurn {
  readonly #onPipelined: () => void;
  /** The newest answer of a connection that is not over. */
  readonly #answering = new WeakMap<Duplex, ServerResponse>();

  /** @param onPipelined a connection ends for it */
  constructor(onPipelined: () => void) {
    this.#onPipelined = onPipelined;
  }

  /**
   * A request has come. A connection that ends for it ends at once, not only when the promise says so.
   * @param response its answer; undefined for an upgrade
   * @returns whether it is its turn, as soon as it is; otherwise its connection has ended, and nothing is to be done
   * for it
   */
  async takes({ socket }: IncomingMessage, response?: ServerResponse): Promise<boolean> {
    const before = this.#answering.get(socket);
    if (before?.writableEnded === false) {
      // What came in one piece with it comes here, too.
      if (!socket.destroyed) this.#onPipelined();
      socket.destroy();
      return false;
    }
    if (response !== undefined) {
      this.#answering.set(socket, response);
      response.once("close", () => {
        if (this.#answering.get(socket) === response) this.#answering.delete(socket);
      });
    }
    // What comes next is looked at after what came in one piece with it, and after an answer that may be the last one.
    await (before && new Promise<void>((resolve) => before.once("close", resolve)));
    if (before === undefined ? !socket.destroyed : socket.writable) return true;
    // Its own end it would never hear of: it never got the socket.
    if (response?.socket === null) response.emit("close");
    return false;
  }

  /** Whether an answer on this connection would be the first of its request, and not come within another one. */
  awaits(socket: Duplex): boolean {
    return this.#answering.get(socket)?.headersSent !== true;
  }
}
