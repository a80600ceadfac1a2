import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";

/**
 * One request of a connection at a time. HTTP/1.1 lets a client send the next one before it has the answer (RFC 9112,
 * 9.3.2), but no browser and no `fetch` does, and here such a connection ends: Node tells an answer that waits behind
 * another nothing of the end of its connection, so that whatever it holds would stay for good; and a WebSocket would
 * share its socket with an answer that is not over.
 */
export class InTurn {
  readonly #onPipelined: () => void;
  readonly #answering = new WeakMap<Duplex, ServerResponse>();

  /** @param onPipelined a connection ends for it */
  constructor(onPipelined: () => void) {
    this.#onPipelined = onPipelined;
  }

  /**
   * A request has come.
   * @param response its answer; undefined for an upgrade
   * @returns whether it is its turn; otherwise its connection has ended, and nothing is to be done for it
   */
  takes({ socket }: IncomingMessage, response?: ServerResponse): boolean {
    if (this.#answering.has(socket)) {
      // What came in one piece with it comes here, too.
      if (!socket.destroyed) this.#onPipelined();
      socket.destroy();
      return false;
    }
    if (response !== undefined) {
      this.#answering.set(socket, response);
      response.once("close", () => this.#answering.delete(socket));
    }
    return true;
  }

  /** Whether an answer on this connection would be the first of its request, and not come within another one. */
  awaits(socket: Duplex): boolean {
    return this.#answering.get(socket)?.headersSent !== true;
  }
}
