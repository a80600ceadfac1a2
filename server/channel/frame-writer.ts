import type { Duplex } from "node:stream";

/** Holds what a turn brings for most clients. */
const SLAB = 16_384;
/** Slabs that are kept for the next turn. */
const MOST_SPARE = 256;
const LOOP_LIMIT = 32;
const FIN_BINARY = 0x82;

/**
 * Writes the frames of all channels once a turn: of the event loop, so that what a turn brings for a client costs one
 * write.
 */
export class FlushTurn {
  readonly #dirty: FrameWriter[] = [];
  /** Slabs that nobody uses at the moment: idle connections hold none. */
  readonly #spare: Buffer[] = [];
  #scheduled = false;

  add(writer: FrameWriter): void {
    this.#dirty.push(writer);
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.#flush());
  }

  takeSlab(): Buffer {
    return this.#spare.pop() ?? Buffer.allocUnsafeSlow(SLAB);
  }

  giveSlab(slab: Buffer): void {
    if (this.#spare.length < MOST_SPARE) this.#spare.push(slab);
  }

  #flush(): void {
    this.#scheduled = false;
    for (const writer of this.#dirty.splice(0)) writer.flush();
  }
}

/**
 * Writes unmasked binary WebSocket messages (RFC 6455, 5.2) straight from guest memory into a slab, and the slab to
 * the socket once a turn. Only whole frames are written, so that those of `ws` (pings, closes) may come in between;
 * compression must be off.
 */
export class FrameWriter {
  readonly #socket: Duplex;
  readonly #turn: FlushTurn;
  readonly #isOpen: () => boolean;
  #slab: Buffer | undefined;
  /** What of the slab is written to the socket, and what is filled. */
  #start = 0;
  #end = 0;
  #dirty = false;

  /** @param isOpen whether frames may still be written */
  constructor(socket: Duplex, turn: FlushTurn, isOpen: () => boolean = () => true) {
    this.#socket = socket;
    this.#turn = turn;
    this.#isOpen = isOpen;
  }

  /** Bytes that the client has not taken. */
  get pendingBytes(): number {
    return this.#socket.writableLength + this.#end - this.#start;
  }

  /** Adds one message: `length` bytes, at most 65535, which are copied. */
  binary(bytes: Uint8Array, offset: number, length: number): void {
    let slab = this.#slab;
    if (slab === undefined || this.#end + length + 4 > slab.length) {
      // What is written may still be on its way: a full slab is left to the socket.
      this.#write();
      slab = length + 4 > SLAB ? Buffer.allocUnsafeSlow(length + 4) : this.#turn.takeSlab();
      this.#slab = slab;
      this.#start = 0;
      this.#end = 0;
    }
    let at = this.#end;
    slab[at++] = FIN_BINARY;
    if (length < 126) {
      slab[at++] = length;
    } else {
      slab[at++] = 126;
      slab[at++] = length >>> 8;
      slab[at++] = length;
    }
    if (length <= LOOP_LIMIT) {
      for (let i = 0; i < length; i++) slab[at + i] = bytes[offset + i] as number;
    } else {
      slab.set(bytes.subarray(offset, offset + length), at);
    }
    this.#end = at + length;
    if (this.#dirty) return;
    this.#dirty = true;
    this.#turn.add(this);
  }

  /** Writes what is there to the socket. */
  flush(): void {
    this.#dirty = false;
    const slab = this.#slab;
    if (slab === undefined) return;
    this.#write();
    // The kernel has taken everything: nobody else looks at the slab.
    if (this.#socket.writableLength === 0 && slab.length === SLAB) {
      this.#slab = undefined;
      this.#start = 0;
      this.#end = 0;
      this.#turn.giveSlab(slab);
    }
  }

  #write(): void {
    const slab = this.#slab;
    if (slab === undefined || this.#start === this.#end) return;
    const part = slab.subarray(this.#start, this.#end);
    this.#start = this.#end;
    if (this.#isOpen() && this.#socket.writable) this.#socket.write(part);
  }
}
