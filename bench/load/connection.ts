import type { Socket } from "node:net";
import { connect } from "node:net";
import { deferred } from "./deferred.ts";
import {
  binaryHeader,
  clientFrame,
  controlFrame,
  FIN_BINARY,
  FIN_CLOSE,
  FIN_PING,
  FIN_PONG,
  FIN_TEXT,
  frameBytes,
  KEY_WORD,
  MASKED,
} from "./frames.ts";
import { upgradeRequest } from "./handshake.ts";
import type { CheckedLoadOptions } from "./load-options.ts";
import type { Run } from "./run.ts";

const CLOSE_TIMEOUT_MS = 1000;
const MAX_HEAD = 16_384;
const MAX_FOREIGN_FRAME = 16 << 20;
/** One answer in so many is compared whole. */
const COMPARE_EVERY = 64;

/** One client: a handshake by hand, then messages by the sequence number in their first four bytes. */
export class Connection {
  readonly #run: Run;
  readonly #options: CheckedLoadOptions;
  readonly #index: number;
  readonly #socket: Socket;
  /** Settles with the handshake. */
  readonly #opened = deferred();
  readonly #closed = deferred();
  #state: "handshake" | "open" | "closing" | "closed" = "handshake";
  #head = "";

  /** A frame that came in pieces, as far as it is here. */
  #stash = Buffer.allocUnsafeSlow(1024);
  #stashed = 0;

  /** Of a byte stream: an answer that came in pieces, as far as it is here. */
  readonly #piece: Buffer;
  #pieced = 0;

  /** Header and payload of an answer, but for the sequence number. */
  readonly #header: Buffer;
  readonly #payload: Buffer;
  readonly #lastByte: number;

  /** `inFlight` masked frames in a row: a write sends the first so many of them. */
  readonly #block: Buffer;
  readonly #blockView: DataView;
  readonly #frameLength: number;
  /** Where a frame carries its sequence number. */
  readonly #sequenceAt: number;
  /** The first frames of the block, by how many, made when first needed. */
  readonly #batches: Buffer[] = [];

  // Sequence numbers are 32-bit and may wrap: only their differences count.
  #next = 0;
  #expected = 0;
  #answered = false;
  /** When a message was sent, by sequence number. */
  readonly #sentAt: Float64Array;
  readonly #sentMask: number;

  constructor(run: Run, options: CheckedLoadOptions, index: number) {
    const { size, inFlight } = options;
    this.#run = run;
    this.#options = options;
    this.#index = index;

    // Each connection has its own content, so that an answer to another one is noticed.
    this.#payload = Buffer.alloc(size);
    for (let at = 4; at < size; at++) this.#payload[at] = at * 7 + index * 31;
    this.#piece = Buffer.allocUnsafeSlow(size);
    this.#lastByte = this.#payload.readUInt8(size - 1);
    this.#header = binaryHeader(size);
    const frame = clientFrame(this.#header, this.#payload);
    this.#frameLength = frame.length;
    this.#sequenceAt = frame.length - size;
    this.#block = Buffer.allocUnsafeSlow(frame.length * inFlight).fill(frame);
    this.#blockView = new DataView(this.#block.buffer);
    const ring = 2 ** Math.ceil(Math.log2(inFlight));
    this.#sentAt = new Float64Array(ring);
    this.#sentMask = ring - 1;

    this.#socket = connect({
      host: options.host,
      port: options.port,
      noDelay: true,
      onread: { buffer: run.input, callback: this.#onRead },
    });
    this.#socket.on("connect", () => this.#upgrade());
    this.#socket.on("error", (error) => this.#opened.reject(error));
    this.#socket.on("close", () => this.#onClose());
  }

  get opened(): Promise<void> {
    return this.#opened.promise;
  }

  /** No answer is to be expected. */
  get idle(): boolean {
    return this.#next === this.#expected || this.#state === "closed";
  }

  get #outstanding(): number {
    return (this.#next - this.#expected) | 0;
  }

  /** Sends as many messages as may be outstanding. Their answers send the next ones. */
  start(): void {
    this.#send(performance.now());
  }

  /** Closes in order, without waiting for messages that are still outstanding, which count as missing. */
  async close(): Promise<void> {
    const lost = this.#outstanding;
    if (lost > 0) this.#run.fault("missing", `${lost} messages without an answer at the end`, lost);
    this.#expected = this.#next;
    const timeout = setTimeout(() => this.destroy(), CLOSE_TIMEOUT_MS);
    this.#endInOrder();
    await this.#closed.promise;
    clearTimeout(timeout);
  }

  #endInOrder(): void {
    if (this.#state !== "open") return;
    this.#state = "closing";
    this.#socket.end(controlFrame(FIN_CLOSE, Buffer.from([0x03, 0xe8])));
  }

  destroy(): void {
    this.#state = "closed";
    this.#socket.destroy();
  }

  #upgrade(): void {
    const { path, ...target } = this.#options;
    this.#socket.write(upgradeRequest({ ...target, path: path.replaceAll("{n}", String(this.#index)) }));
  }

  /** Takes the bytes of the answer to the handshake and returns how many they were. */
  #takeHead(length: number): number {
    const before = this.#head.length;
    this.#head += this.#run.input.toString("latin1", 0, length);
    const end = this.#head.indexOf("\r\n\r\n");
    if (end < 0) {
      if (this.#head.length > MAX_HEAD) this.#refuse("the answer to the handshake does not end");
      return length;
    }
    const head = this.#head.slice(0, end);
    this.#head = "";
    const { subprotocol } = this.#options;
    const accepted = /^sec-websocket-protocol:[ \t]*(.*?)[ \t]*$/im.exec(head)?.[1];
    if (!/^HTTP\/1\.1 101\b/.test(head)) this.#refuse(`handshake refused: ${head.split("\r\n", 1)[0]}`);
    else if (accepted !== subprotocol)
      this.#refuse(`subprotocol ${subprotocol} asked for, ${accepted} accepted`);
    else {
      this.#state = "open";
      this.#opened.resolve();
    }
    return end + 4 - before;
  }

  #refuse(reason: string): void {
    this.#opened.reject(new Error(reason));
    this.destroy();
  }

  readonly #onRead = (length: number): boolean => {
    const run = this.#run;
    const now = performance.now();
    let at = 0;
    if (this.#state === "handshake") at = this.#takeHead(length);
    if (this.#state !== "open") return true;
    run.reads++;
    if (this.#stashed > 0) at = this.#unstash(at, length, now);
    at = this.#takeFrames(run.input, at, length, now);
    if (at < length) this.#keep(run.input, at, length);
    if (run.sending) this.#send(now);
    else if (run.onIdle !== undefined && this.idle) run.onIdle();
    return true;
  };

  /** Handles whole frames and returns where the first that is not begins. */
  #takeFrames(buffer: Buffer, start: number, end: number, now: number): number {
    const header = this.#header;
    const payloadAt = header.length;
    const answerLength = payloadAt + this.#payload.length;
    let at = start;
    while (at < end && this.#state === "open") {
      if (at + answerLength <= end && buffer[at] === FIN_BINARY && buffer[at + 1] === header[1]) {
        let same = true;
        for (let index = 2; index < payloadAt; index++) same &&= buffer[at + index] === header[index];
        if (same && this.#pieced === 0 && this.#next !== this.#expected) {
          this.#takeAnswer(buffer, at + payloadAt, at + answerLength, now);
          at += answerLength;
          continue;
        }
      }
      const length = frameBytes(buffer, at, end - at);
      if (at + length > end) break;
      this.#takeOther(buffer, at, at + length, now);
      at += length;
    }
    return at;
  }

  #takeAnswer(buffer: Buffer, start: number, end: number, now: number): void {
    const run = this.#run;
    const sequence = buffer.readInt32LE(start);
    const ahead = (sequence - this.#expected) | 0;
    if (ahead < 0 && -ahead <= 2 * this.#options.inFlight) {
      run.fault("reordered", `answer ${sequence} after ${this.#expected - 1}`);
      return;
    }
    const bad =
      ahead < 0 ||
      ahead >= this.#outstanding ||
      buffer[end - 1] !== this.#lastByte ||
      (sequence % COMPARE_EVERY === 0 &&
        buffer.compare(this.#payload, 4, this.#payload.length, start + 4, end) !== 0);
    if (bad) {
      run.fault("corrupted", `wrong content instead of answer ${this.#expected}`);
      this.#expected = (this.#expected + 1) | 0;
      return;
    }
    if (ahead > 0) run.fault("missing", `answer ${sequence} instead of ${this.#expected}`, ahead);
    this.#expected = (sequence + 1) | 0;
    this.#answered = true;
    run.messages++;
    run.latencies.add(now - (this.#sentAt[sequence & this.#sentMask] as number));
  }

  /** Handles bytes of a stream, whose frames say nothing of where a message ends. */
  #takeStream(buffer: Buffer, start: number, end: number, now: number): void {
    const { size } = this.#options;
    for (let at = start; at < end; ) {
      const taken = Math.min(size - this.#pieced, end - at);
      buffer.copy(this.#piece, this.#pieced, at, at + taken);
      this.#pieced += taken;
      at += taken;
      if (this.#pieced < size) return;
      this.#pieced = 0;
      this.#takeAnswer(this.#piece, 0, size, now);
    }
  }

  /** Handles a whole frame that has not the form of an answer. */
  #takeOther(buffer: Buffer, start: number, end: number, now: number): void {
    const run = this.#run;
    const short = buffer.readUInt8(start + 1);
    // A server must not mask (RFC 6455, 5.1).
    const opcode = short < MASKED ? buffer.readUInt8(start) : 0;
    if (opcode === FIN_PING && short < 126) {
      this.#socket.write(controlFrame(FIN_PONG, buffer.subarray(start + 2, end)));
    } else if (opcode === FIN_BINARY && this.#options.stream) {
      const payloadAt = short < 126 ? 2 : short === 126 ? 4 : 10;
      this.#takeStream(buffer, start + payloadAt, end, now);
    } else if (opcode === FIN_TEXT || (opcode === FIN_BINARY && (short === 0 || !this.#answered))) {
      run.unexpected++;
    } else if (opcode === FIN_BINARY) {
      run.fault("corrupted", `frame of ${end - start} bytes instead of answer ${this.#expected}`);
      this.#expected = (this.#expected + 1) | 0;
    } else if (opcode === FIN_CLOSE) {
      const code = short < 2 ? 1005 : buffer.readUInt16BE(start + 2);
      run.fault("protocol", `closed by the server with ${code} ${buffer.toString("utf8", start + 4, end)}`);
      this.#endInOrder();
    } else if (opcode !== FIN_PONG) {
      run.fault("protocol", `frame that begins with ${buffer.toString("hex", start, start + 2)}`);
      this.destroy();
    }
  }

  /** Completes the frame that came in pieces with bytes of the input; returns where what follows it begins. */
  #unstash(start: number, end: number, now: number): number {
    let at = start;
    for (;;) {
      const needed = frameBytes(this.#stash, 0, this.#stashed);
      if (this.#stashed >= needed) {
        this.#takeFrames(this.#stash, 0, this.#stashed, now);
        this.#stashed = 0;
        return at;
      }
      if (at === end) return at;
      const taken = Math.min(needed - this.#stashed, end - at);
      this.#keep(this.#run.input, at, at + taken);
      at += taken;
    }
  }

  #keep(buffer: Buffer, start: number, end: number): void {
    const length = this.#stashed + end - start;
    if (length > MAX_FOREIGN_FRAME) {
      this.#run.fault("protocol", `frame of more than ${MAX_FOREIGN_FRAME} bytes`);
      this.destroy();
      return;
    }
    if (length > this.#stash.length) {
      const larger = Buffer.allocUnsafeSlow(2 ** Math.ceil(Math.log2(length)));
      this.#stash.copy(larger, 0, 0, this.#stashed);
      this.#stash = larger;
    }
    buffer.copy(this.#stash, this.#stashed, start, end);
    this.#stashed = length;
  }

  #send(now: number): void {
    const count = this.#options.inFlight - this.#outstanding;
    // The kernel may still be owed bytes of the block: `#onWritten` comes back here then.
    if (count <= 0 || this.#socket.writableLength > 0 || this.#state !== "open") return;
    let sequence = this.#next;
    let at = this.#sequenceAt;
    for (let index = 0; index < count; index++) {
      this.#blockView.setInt32(at, sequence ^ KEY_WORD, true);
      this.#sentAt[sequence & this.#sentMask] = now;
      sequence = (sequence + 1) | 0;
      at += this.#frameLength;
    }
    this.#next = sequence;
    let batch = this.#batches[count];
    if (batch === undefined) {
      batch = this.#block.subarray(0, count * this.#frameLength);
      this.#batches[count] = batch;
    }
    this.#socket.write(batch, this.#onWritten);
  }

  readonly #onWritten = (): void => {
    if (this.#run.sending) this.#send(performance.now());
  };

  #onClose(): void {
    if (this.#state === "open") this.#run.fault("protocol", "connection ended without a close frame");
    this.#state = "closed";
    this.#opened.reject(new Error("the server ended the connection during the handshake"));
    this.#closed.resolve();
    this.#run.onIdle?.();
  }
}
