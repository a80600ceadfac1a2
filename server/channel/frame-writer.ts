import type { Duplex } from "node:stream";
import { LatencyProbe } from "./latency-probe.ts";

/** Holds what a turn brings for most clients. */
const SLAB = 16_384;
/** Slabs that are kept for the next turn. */
const MOST_SPARE = 256;
/** Up to this many bytes a loop over words is faster than the two objects that `set(subarray())` makes. */
const WORDS_LIMIT = 192;
const FIN_TEXT = 0x81;
const FIN_BINARY = 0x82;
/** Most bytes of a frame's header: with the length in 64 bits. */
const MOST_HEADER = 10;

/** Where frames are put together. */
interface Slab {
  readonly bytes: Buffer;
  readonly view: DataView;
}

function newSlab(size: number): Slab {
  const bytes = Buffer.allocUnsafeSlow(size);
  return { bytes, view: new DataView(bytes.buffer) };
}

/**
 * Writes the frames of all channels once a turn: of the event loop, so that what a turn brings for a client costs one
 * write.
 */
export class FlushTurn {
  readonly probe = new LatencyProbe();
  readonly #dirty: FrameWriter[] = [];
  /** Slabs that nobody uses at the moment: idle connections hold none. */
  readonly #spare: Slab[] = [];
  /** What was copied from last: for the messages of a turn nearly always the memory of one guest. */
  #source: Uint8Array | undefined;
  #sourceView: DataView | undefined;
  #scheduled = false;

  add(writer: FrameWriter): void {
    this.#dirty.push(writer);
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.probe.begin();
    setImmediate(() => this.#flush());
  }

  takeSlab(): Slab {
    return this.#spare.pop() ?? newSlab(SLAB);
  }

  giveSlab(slab: Slab): void {
    if (this.#spare.length < MOST_SPARE) this.#spare.push(slab);
  }

  /** A view of what is to be copied from, for as long as the turn. */
  viewOf(bytes: Uint8Array): DataView {
    if (bytes !== this.#source || this.#sourceView === undefined) {
      this.#source = bytes;
      this.#sourceView = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    }
    return this.#sourceView;
  }

  #flush(): void {
    this.#scheduled = false;
    // Memory of a guest that goes is not kept.
    this.#source = undefined;
    this.#sourceView = undefined;
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
  #slab: Slab | undefined;
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
    const { view } = this.#slab as Slab;
    view.setUint32(at, first, true);
    view.setUint32(at + 4, second, true);
    view.setUint32(at + 8, third, true);
    this.#copy(at + 12, bytes, offset, length);
  }

  /** Adds one text message: ASCII text, then the bytes of text in UTF-8. A message of the guest has such a head. */
  text(head: string, tail: Uint8Array): void {
    if (head !== "") this.#turn.probe.carries = true;
    const at = this.#begin(FIN_TEXT, head.length + tail.length);
    (this.#slab as Slab).bytes.write(head, at, "latin1");
    (this.#slab as Slab).bytes.set(tail, at + head.length);
  }

  /** Writes what is there to the socket. */
  flush(): void {
    this.#dirty = false;
    const slab = this.#slab;
    if (slab === undefined) return;
    this.#write();
    // The kernel has taken everything: nobody else looks at the slab.
    if (this.#socket.writableLength === 0 && slab.bytes.length === SLAB) {
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
    if (slab === undefined || this.#end + most > slab.bytes.length) {
      // What is written may still be on its way: a full slab is left to the socket.
      this.#write();
      slab = most > SLAB ? newSlab(most) : this.#turn.takeSlab();
      this.#slab = slab;
      this.#start = 0;
      this.#end = 0;
    }
    const { bytes, view } = slab;
    let at = this.#end;
    bytes[at++] = opcode;
    if (length < 126) {
      bytes[at++] = length;
    } else if (length < 65_536) {
      bytes[at++] = 126;
      bytes[at++] = length >>> 8;
      bytes[at++] = length;
    } else {
      bytes[at++] = 127;
      view.setUint32(at, 0);
      view.setUint32(at + 4, length);
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
    const { bytes: slab, view } = this.#slab as Slab;
    if (length > WORDS_LIMIT) {
      slab.set(bytes.subarray(offset, offset + length), at);
      return;
    }
    let i = 0;
    if (length >= 16) {
      // Views are as fast where words do not begin at multiples of 4 (see `npm run bench`).
      const source = this.#turn.viewOf(bytes);
      for (; i + 4 <= length; i += 4) view.setInt32(at + i, source.getInt32(offset + i, true), true);
    }
    for (; i < length; i++) slab[at + i] = bytes[offset + i] as number;
  }

  #write(): void {
    const slab = this.#slab;
    if (slab === undefined || this.#start === this.#end) return;
    const part = slab.bytes.subarray(this.#start, this.#end);
    this.#start = this.#end;
    if (!this.#isOpen() || !this.#socket.writable) return;
    this.#socket.write(part);
    if (this.#socket.writableLength > 0) this.#onHeld(part.length);
  }
}
