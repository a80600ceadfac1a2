import type { Duplex } from "node:stream";
import { LatencyProbe } from "./latency-probe.ts";

/** Holds what a turn brings for most clients. */
const SLAB = 16_384;
/** Slabs that are kept for the next turn. */
const MOST_SPARE = 256;
const LOOP_LIMIT = 32;
const FIN_TEXT = 0x81;
const FIN_BINARY = 0x82;
/** Most bytes of a frame's header: with the length in 64 bits. */
const MOST_HEADER = 10;

/**
 * Writes the frames of all channels once a turn: of the event loop, so that what a turn brings for a client costs one
 * write.
 */
export class FlushTurn {
  readonly probe = new LatencyProbe();
  readonly #dirty: FrameWriter[] = [];
  /** Slabs that nobody uses at the moment: idle connections hold none. */
  readonly #spare: Buffer[] = [];
  #scheduled = false;

  add(writer: FrameWriter): void {
    this.#dirty.push(writer);
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.probe.begin();
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
    this.probe.end();
  }
}

/**
 * Writes unmasked WebSocket messages (RFC 6455, 5.2) straight from guest memory into a slab, and the slab to
 * the socket once a turn. Only whole frames are written, so that those of `ws` (pings, closes) may come in between;
 * compression must be off.
 */
export class FrameWriter {
  readonly #socket: Duplex;
  readonly #turn: FlushTurn;
  readonly #isOpen: () => boolean;
  readonly #onHeld: (bytes: number) => void;
  #slab: Buffer | undefined;
  /** What of the slab is written to the socket, and what is filled. */
  #start = 0;
  #end = 0;
  #dirty = false;

  /**
   * @param isOpen whether frames may still be written
   * @param onHeld called when so many bytes were written that the kernel did not take at once
   */
  constructor(
    socket: Duplex,
    turn: FlushTurn,
    isOpen: () => boolean = () => true,
    onHeld: (bytes: number) => void = () => {},
  ) {
    this.#onHeld = onHeld;
    this.#socket = socket;
    this.#turn = turn;
    this.#isOpen = isOpen;
  }

  /** Bytes that the client has not taken. */
  get pendingBytes(): number {
    return this.#socket.writableLength + this.#end - this.#start;
  }

  /** Adds one binary message: `length` bytes, which are copied. */
  binary(bytes: Uint8Array, offset: number, length: number): void {
    this.#turn.probe.carries = true;
    this.#copy(this.#begin(FIN_BINARY, length), bytes, offset, length);
  }

  /** Adds one binary message: three 32-bit words, little endian, and `length` bytes, which are copied. */
  words(
    first: number,
    second: number,
    third: number,
    bytes: Uint8Array,
    offset: number,
    length: number,
  ): void {
    this.#turn.probe.carries = true;
    const at = this.#begin(FIN_BINARY, 12 + length);
    const slab = this.#slab as Buffer;
    slab.writeUInt32LE(first, at);
    slab.writeUInt32LE(second, at + 4);
    slab.writeUInt32LE(third, at + 8);
    this.#copy(at + 12, bytes, offset, length);
  }

  /** Adds one text message: ASCII text, then the bytes of text in UTF-8. A message of the guest has such a head. */
  text(head: string, tail: Uint8Array): void {
    if (head !== "") this.#turn.probe.carries = true;
    const at = this.#begin(FIN_TEXT, head.length + tail.length);
    (this.#slab as Buffer).write(head, at, "latin1");
    this.#copy(at + head.length, tail, 0, tail.length);
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

  /** @returns where in the slab the payload of a new frame begins */
  #begin(opcode: number, length: number): number {
    let slab = this.#slab;
    const most = length + MOST_HEADER;
    if (slab === undefined || this.#end + most > slab.length) {
      // What is written may still be on its way: a full slab is left to the socket.
      this.#write();
      slab = most > SLAB ? Buffer.allocUnsafeSlow(most) : this.#turn.takeSlab();
      this.#slab = slab;
      this.#start = 0;
      this.#end = 0;
    }
    let at = this.#end;
    slab[at++] = opcode;
    if (length < 126) {
      slab[at++] = length;
    } else if (length < 65_536) {
      slab[at++] = 126;
      slab[at++] = length >>> 8;
      slab[at++] = length;
    } else {
      slab[at++] = 127;
      slab.writeUInt32BE(0, at);
      slab.writeUInt32BE(length, at + 4);
      at += 8;
    }
    this.#end = at + length;
    if (!this.#dirty) {
      this.#dirty = true;
      this.#turn.add(this);
    }
    return at;
  }

  #copy(at: number, bytes: Uint8Array, offset: number, length: number): void {
    const slab = this.#slab as Buffer;
    if (length <= LOOP_LIMIT) {
      for (let i = 0; i < length; i++) slab[at + i] = bytes[offset + i] as number;
    } else {
      slab.set(bytes.subarray(offset, offset + length), at);
    }
  }

  #write(): void {
    const slab = this.#slab;
    if (slab === undefined || this.#start === this.#end) return;
    const part = slab.subarray(this.#start, this.#end);
    this.#start = this.#end;
    if (!this.#isOpen() || !this.#socket.writable) return;
    this.#socket.write(part);
    if (this.#socket.writableLength > 0) this.#onHeld(part.length);
  }
}
