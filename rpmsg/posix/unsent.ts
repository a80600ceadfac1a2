import { sendmsg } from "./unix-socket.ts";

interface Piece {
  readonly bytes: Uint8Array;
  /** Go with the first byte. */
  readonly fds: readonly number[];
}

/** What a full stream socket has not taken yet, in order. */
export class Unsent {
  #pieces: Piece[] = [];
  #bytes = 0;

  /** How many bytes wait. */
  get bytes(): number {
    return this.#bytes;
  }

  /** The bytes that wait, where no descriptors go with them. */
  get pieces(): Uint8Array[] {
    return this.#pieces.map(({ bytes }) => bytes);
  }

  /** @param fds stay the caller's, and open until they have gone */
  add(bytes: Uint8Array, fds: readonly number[] = []): void {
    this.#pieces.push({ bytes, fds });
    this.#bytes += bytes.length;
  }

  /** Gives the socket what it takes. @returns 0 when all has gone, or -errno: -EAGAIN where the rest has to wait */
  flush(fd: number): number {
    for (;;) {
      const [piece] = this.#pieces;
      if (piece === undefined) return 0;
      const { bytes, fds } = piece;
      const sent = sendmsg(fd, bytes, 0, bytes.length, fds);
      if (sent < 0) return sent;
      this.#bytes -= sent;
      if (sent < bytes.length) this.#pieces[0] = { bytes: bytes.subarray(sent), fds: [] };
      else this.#pieces.shift();
    }
  }
}
