import type { Duplex } from "node:stream";

const FIN = 0x80;
const OPCODE = 0x0f;
const MASKED = 0x80;
const FIN_BINARY = 0x82;
const CLOSE = 0x8;
/** Opcodes from here on are of control frames, which may come between the fragments of a message. */
const CONTROL = 0x8;
/** A header with its mask: the shortest one, and the longest. */
const LEAST_HEADER = 6;
const MOST_HEADER = 14;

type DataListener = (this: Duplex, chunk: Buffer) => void;

/**
 * Reads a client's frames (RFC 6455, 5.2) beside `ws`: a binary message in one frame that is here as a whole, as nearly
 * all are, goes to its handler at once, out of the bytes that were read. Everything else is left to ws, byte by byte
 * as it came: other frames, pieces of one, and all that is against the rules, so that there is one judge of those.
 *
 * Messages stay in order: where ws gets something, it gets what came with it too, and the next message is taken past ws
 * only when ws has nothing unfinished. It then stands between two messages, as this reader does. Of what is read it gets
 * no more than the end of a message that has begun before, where ws hands that out at once.
 */
export class FrameReader {
  readonly #stream: Duplex;
  readonly #most: number;
  readonly #onBinary: (bytes: Buffer, offset: number, length: number) => void;
  readonly #toWs: DataListener;
  /** Of the frame that ws is in the middle of: its header, as far as it is here, and payload bytes that are to come. */
  readonly #header = new Uint8Array(MOST_HEADER);
  #headerLength = 0;
  #left = 0;
  /** Of the message that ws is in the middle of, fragments are to come. */
  #fragmented = false;
  /** The frame that ws is in the middle of is the client's good-bye: what comes behind it is of no interest. */
  #closing = false;
  #ended = false;
  /** Of what ws got last it has handed out a message. */
  #handedOut = false;
  /** Whether ws has refused what it got last is told a tick later. */
  #unsure = false;
  #sureSoon = false;

  /**
   * @param stream a connection that ws reads already, with a listener of its data
   * @param most bytes of a message that is taken past ws, at most what ws itself would take
   * @param onBinary `bytes` is valid during the call only
   */
  constructor(
    stream: Duplex,
    most: number,
    onBinary: (bytes: Buffer, offset: number, length: number) => void,
  ) {
    this.#stream = stream;
    this.#most = most;
    this.#onBinary = onBinary;
    const [listener, ...others] = stream.listeners("data");
    if (listener === undefined || others.length > 0)
      throw new Error("ws reads the connection in another way");
    this.#toWs = listener as DataListener;
    stream.removeListener("data", this.#toWs);
    stream.on("data", (chunk: Buffer) => this.#take(chunk));
  }

  /** Ws has handed out a message. */
  handedOut(): void {
    this.#handedOut = true;
  }

  /** Nothing more is read, as ws reads no more. */
  end(): void {
    this.#ended = true;
  }

  #take(chunk: Buffer): void {
    if (this.#ended) return;
    let at = 0;
    if (!this.#isBetween) {
      at = this.#follow(chunk, 0, true);
      this.#handedOut = false;
      this.#give(chunk, 0, at);
      if (this.#ended) return;
      // It was a message, and as such in order.
      if (this.#handedOut && this.#isBetween) this.#unsure = false;
    }
    if (this.#isBetween && !this.#unsure) at = this.#takeMessages(chunk, at);
    if (at === chunk.length) return;
    this.#follow(chunk, at, false);
    this.#give(chunk, at, chunk.length);
  }

  #give(chunk: Buffer, start: number, end: number): void {
    this.#toWs.call(this.#stream, end - start === chunk.length ? chunk : chunk.subarray(start, end));
    this.#unsure = true;
    if (this.#sureSoon) return;
    this.#sureSoon = true;
    process.nextTick(() => {
      this.#sureSoon = false;
      this.#unsure = false;
    });
  }

  get #isBetween(): boolean {
    return this.#headerLength === 0 && this.#left === 0 && !this.#fragmented;
  }

  /** @returns where the messages end that could be taken */
  #takeMessages(chunk: Buffer, start: number): number {
    const end = chunk.length;
    let words: Int32Array | undefined;
    let at = start;
    while (end - at >= LEAST_HEADER && chunk[at] === FIN_BINARY) {
      const second = chunk[at + 1] as number;
      let mask = at + 2;
      let length = second - MASKED;
      if (length === 126) {
        length = ((chunk[at + 2] as number) << 8) | (chunk[at + 3] as number);
        mask = at + 4;
      }
      // Unmasked, or with its length in 64 bits.
      if (length < 0 || second === 0xff || length > this.#most) break;
      const payload = mask + 4;
      if (payload + length > end) break;
      words ??= new Int32Array(chunk.buffer, 0, chunk.buffer.byteLength >> 2);
      unmask(chunk, words, mask, length);
      at = payload + length;
      this.#onBinary(chunk, payload, length);
    }
    return at;
  }

  /**
   * Learns where what ws gets ends: between two messages, or within one.
   * @param once only until the end of a frame
   * @returns up to where
   */
  #follow(bytes: Buffer, start: number, once: boolean): number {
    let at = start;
    while (at < bytes.length) {
      let isWhole = false;
      if (this.#left > 0) {
        const part = Math.min(this.#left, bytes.length - at);
        this.#left -= part;
        at += part;
        isWhole = this.#left === 0;
      } else {
        this.#header[this.#headerLength++] = bytes[at++] as number;
        isWhole = this.#readHeader() && this.#left === 0;
      }
      if (this.#closing && this.#left === 0) this.#ended = true;
      if (once && isWhole) break;
    }
    return at;
  }

  /**
   * Where the header is here as a whole, goes on to its payload.
   * @returns whether it is
   */
  #readHeader(): boolean {
    const header = this.#header;
    const second = header[1] as number;
    const short = second & ~MASKED;
    const extra = short === 126 ? 2 : short === 127 ? 8 : 0;
    // A client's frame without a mask is one that ws refuses: it need not be understood.
    if (this.#headerLength < 2 || this.#headerLength < 2 + extra + 4) return false;
    this.#headerLength = 0;
    let length = extra === 0 ? short : 0;
    for (let i = 2; i < 2 + extra; i++) length = length * 256 + (header[i] as number);
    this.#left = length;
    const first = header[0] as number;
    if ((first & OPCODE) < CONTROL) this.#fragmented = (first & FIN) === 0;
    this.#closing = (first & OPCODE) === CLOSE;
    return true;
  }
}

/**
 * Unmasks the `length` bytes behind the mask in place (RFC 6455, 5.3).
 * @param words all whole words of the memory of `bytes`
 */
function unmask(bytes: Buffer, words: Int32Array, mask: number, length: number): void {
  const start = mask + 4;
  const end = start + length;
  let at = start;
  const { byteOffset } = bytes;
  for (; at < end && ((byteOffset + at) & 3) !== 0; at++) {
    bytes[at] = (bytes[at] as number) ^ (bytes[mask + ((at - start) & 3)] as number);
  }
  const turned = at - start;
  // Little endian, as both architectures are.
  const key =
    (bytes[mask + (turned & 3)] as number) |
    ((bytes[mask + ((turned + 1) & 3)] as number) << 8) |
    ((bytes[mask + ((turned + 2) & 3)] as number) << 16) |
    ((bytes[mask + ((turned + 3) & 3)] as number) << 24);
  let word = (byteOffset + at) >> 2;
  for (; at + 4 <= end; at += 4, word++) words[word] = (words[word] as number) ^ key;
  for (; at < end; at++) {
    bytes[at] = (bytes[at] as number) ^ (bytes[mask + ((at - start) & 3)] as number);
  }
}
