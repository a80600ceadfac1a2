import { randomBytes } from "node:crypto";
import { realpathSync } from "node:fs";
import type { Socket } from "node:net";
import { connect } from "node:net";
import { setTimeout as elapsed } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { processCpuSeconds } from "../harness.ts";

const loadOptions = z.strictObject({
  host: z.string().default("127.0.0.1"),
  port: z.int().min(1).max(65_535),
  path: z.string().startsWith("/").default("/"),
  /** Offered in the handshake; the server has to accept it. */
  subprotocol: z.string().optional(),
  /** Connections. */
  clients: z.int().min(1).max(10_000),
  /** Bytes of a message. Its first four carry the sequence number. */
  size: z
    .int()
    .min(8)
    .max(1 << 20),
  /** Messages that a connection has outstanding. */
  inFlight: z
    .int()
    .min(1)
    .max(1 << 16),
  warmupMs: z.number().min(0).default(500),
  measureMs: z.number().positive().default(2000),
  /** How long to wait for the last answers, once nothing more is sent. */
  drainMs: z.number().min(0).default(2000),
  /** Processes whose CPU use to report over exactly the measured time, usually the server's. */
  watchPids: z.array(z.int().positive()).default([]),
});

/** What to send where: the one argument of the process, as JSON. */
export type LoadOptions = z.input<typeof loadOptions>;

/** What was wrong with the answers, in messages, from the first one of the warm-up to the last one of the drain. */
export interface LoadFaults {
  /** Of another length or content than what was sent. Content: first and last byte of each, all of one in 64. */
  corrupted: number;
  /** Overtaken by a later answer or never answered. One that was overtaken counts here and, once it comes, below. */
  missing: number;
  /** Answered after a later message, or twice. */
  reordered: number;
  /** Connections that the server ended, and frames that no server may send. */
  protocol: number;
}

/** What came of it: the last line that the process prints, as JSON. */
export interface LoadResult {
  /** Good answers in the measured time. */
  messages: number;
  seconds: number;
  perSecond: number;
  /** Microseconds from handing a message to the kernel to reading its answer; 0.8 % resolution. */
  p50us: number;
  p99us: number;
  /** Sum of `faults`. */
  errors: number;
  faults: LoadFaults;
  /** What the first fault was. */
  firstFault: string | null;
  /** Frames that are no answers: text, empty ones, and a greeting of another length before the first answer. */
  unexpected: number;
  /** Good answers in one read of a socket: how much the server batches. */
  messagesPerRead: number;
  /** Cores that the generator used while measuring. Near 1 it is the generator that was measured. */
  cpu: number;
  /** Cores that each of `watchPids` used meanwhile. */
  watchedCpu: number[];
}

/** Printed in place of a result when there is none. */
export interface LoadFailure {
  error: string;
}

const CONNECT_TIMEOUT_MS = 10_000;
const CLOSE_TIMEOUT_MS = 1000;
const MAX_HEAD = 16_384;
const MAX_FOREIGN_FRAME = 16 << 20;
/** One answer in so many is compared whole. */
const COMPARE_EVERY = 64;

// RFC 6455, 5.2: FIN and the opcode.
const FIN_TEXT = 0x81;
const FIN_BINARY = 0x82;
const FIN_CLOSE = 0x88;
const FIN_PING = 0x89;
const FIN_PONG = 0x8a;
const MASKED = 0x80;
/** A constant key is as much work for the server as a random one. A zero key is not: ws does not unmask then. */
const KEY = Buffer.from([0x12, 0x34, 0x56, 0x78]);
const KEY_WORD = KEY.readInt32LE();

/** Counts of latencies, in tenths of a microsecond: exact below 256, then 128 steps for each doubling. */
class Histogram {
  readonly #counts = new Uint32Array(128 * 26);
  #total = 0;

  add(ms: number): void {
    const value = Math.min(ms * 10_000, 0x7fff_ffff) | 0;
    const shift = value < 256 ? 0 : 24 - Math.clz32(value);
    const index = shift * 128 + (value >>> shift);
    this.#counts[index] = (this.#counts[index] as number) + 1;
    this.#total++;
  }

  clear(): void {
    this.#counts.fill(0);
    this.#total = 0;
  }

  /** Microseconds that a share of the latencies stays within; 0 when there are none. */
  quantile(share: number): number {
    let left = Math.max(1, Math.ceil(share * this.#total));
    for (let index = 0; index < this.#counts.length; index++) {
      left -= this.#counts[index] as number;
      if (left > 0) continue;
      const shift = Math.max(0, (index >>> 7) - 1);
      return ((index - shift * 128) * 2 ** shift) / 10;
    }
    return 0;
  }
}

/** What the connections of a run have in common. */
class Run {
  readonly latencies = new Histogram();
  readonly faults: LoadFaults = { corrupted: 0, missing: 0, reordered: 0, protocol: 0 };
  /** One for all sockets: libuv reads only when the bytes are handled at once, so it is always free, and in the cache. */
  readonly input = Buffer.allocUnsafeSlow(128 << 10);
  messages = 0;
  reads = 0;
  unexpected = 0;
  sending = false;
  firstFault: string | null = null;
  /** Called when a connection has no more answers to expect. */
  onIdle: (() => void) | undefined;

  fault(kind: keyof LoadFaults, text: string, count = 1): void {
    this.faults[kind] += count;
    this.firstFault ??= text;
  }
}

interface Deferred {
  promise: Promise<void>;
  resolve: () => void;
  reject: (error: Error) => void;
}

function deferred(): Deferred {
  let resolve!: () => void;
  let reject!: (error: Error) => void;
  const promise = new Promise<void>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  return { promise, resolve, reject };
}

/** Header of a server's binary frame of a length: what an answer begins with. */
function binaryHeader(length: number): Buffer {
  if (length < 126) return Buffer.from([FIN_BINARY, length]);
  if (length < 65_536) return Buffer.from([FIN_BINARY, 126, length >>> 8, length]);
  const header = Buffer.alloc(10);
  header[0] = FIN_BINARY;
  header[1] = 127;
  header.writeUIntBE(length, 4, 6);
  return header;
}

/** A client's frame: a server's with the mask bit, the key and the masked payload. */
function clientFrame(header: Buffer, payload: Buffer): Buffer {
  const masked = payload.map((byte, index) => byte ^ KEY.readUInt8(index & 3));
  const frame = Buffer.concat([header, KEY, masked]);
  frame.writeUInt8(MASKED | header.readUInt8(1), 1);
  return frame;
}

function controlFrame(firstByte: number, payload: Buffer): Buffer {
  return clientFrame(Buffer.from([firstByte, payload.length]), payload);
}

/** Least bytes that a frame takes, as far as its header is here: with `available` at least that, the frame is whole. */
function frameBytes(buffer: Buffer, at: number, available: number): number {
  if (available < 2) return 2;
  const length = buffer.readUInt8(at + 1) & 0x7f;
  if (length < 126) return 2 + length;
  if (length === 126) return available < 4 ? 4 : 4 + buffer.readUInt16BE(at + 2);
  return available < 10 ? 10 : 10 + Number(buffer.readBigUInt64BE(at + 2));
}

class Connection {
  readonly #run: Run;
  readonly #options: z.output<typeof loadOptions>;
  readonly #socket: Socket;
  /** Settles with the handshake. */
  readonly #opened = deferred();
  readonly #closed = deferred();
  #state: "handshake" | "open" | "closing" | "closed" = "handshake";
  #head = "";

  /** A frame that came in pieces, as far as it is here. */
  #stash = Buffer.allocUnsafeSlow(1024);
  #stashed = 0;

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

  constructor(run: Run, options: z.output<typeof loadOptions>, index: number) {
    const { size, inFlight } = options;
    this.#run = run;
    this.#options = options;

    // Each connection has its own content, so that an answer to another one is noticed.
    this.#payload = Buffer.alloc(size);
    for (let at = 4; at < size; at++) this.#payload[at] = at * 7 + index * 31;
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
    const { host, port, path, subprotocol } = this.#options;
    const lines = [
      `GET ${path} HTTP/1.1`,
      `Host: ${host}:${port}`,
      "Upgrade: websocket",
      "Connection: Upgrade",
      `Sec-WebSocket-Key: ${randomBytes(16).toString("base64")}`,
      "Sec-WebSocket-Version: 13",
    ];
    if (subprotocol !== undefined) lines.push(`Sec-WebSocket-Protocol: ${subprotocol}`);
    this.#socket.write(`${lines.join("\r\n")}\r\n\r\n`);
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
        if (same && this.#next !== this.#expected) {
          this.#takeAnswer(buffer, at + payloadAt, at + answerLength, now);
          at += answerLength;
          continue;
        }
      }
      const length = frameBytes(buffer, at, end - at);
      if (at + length > end) break;
      this.#takeOther(buffer, at, at + length);
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

  /** Handles a whole frame that has not the form of an answer. */
  #takeOther(buffer: Buffer, start: number, end: number): void {
    const run = this.#run;
    const short = buffer.readUInt8(start + 1);
    // A server must not mask (RFC 6455, 5.1).
    const opcode = short < MASKED ? buffer.readUInt8(start) : 0;
    if (opcode === FIN_PING && short < 126) {
      this.#socket.write(controlFrame(FIN_PONG, buffer.subarray(start + 2, end)));
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

async function openAll(connections: readonly Connection[]): Promise<void> {
  const late = deferred();
  const timeout = setTimeout(
    () => late.reject(new Error("the server answers no handshake")),
    CONNECT_TIMEOUT_MS,
  );
  try {
    await Promise.race([late.promise, Promise.all(connections.map(({ opened }) => opened))]);
  } finally {
    clearTimeout(timeout);
  }
}

/** Resolves when no answer is to be expected any more, or after a time. */
async function drain(run: Run, connections: readonly Connection[], ms: number): Promise<void> {
  const drained = deferred();
  const timeout = setTimeout(drained.resolve, ms);
  run.onIdle = () => {
    if (connections.every(({ idle }) => idle)) drained.resolve();
  };
  run.onIdle();
  await drained.promise;
  clearTimeout(timeout);
  run.onIdle = undefined;
}

/**
 * Puts a WebSocket server that echoes under load and measures it.
 *
 * Each answer sends the next message at once, as busy clients would: the generator does not wait for more answers to
 * come, even though it would use less CPU then. Nearly all of that CPU is the kernel's, for the reads and writes.
 *
 * For figures, start this file as a process of its own, see `runLoad` in harness.ts.
 *
 * @throws {Error} when a connection cannot be opened. What goes wrong later is counted.
 */
export async function generateLoad(input: LoadOptions): Promise<LoadResult> {
  const options = loadOptions.parse(input);
  const { clients, warmupMs, measureMs, drainMs, watchPids } = options;
  const run = new Run();
  const connections = Array.from({ length: clients }, (_, index) => new Connection(run, options, index));
  try {
    await openAll(connections);

    run.sending = true;
    for (const connection of connections) connection.start();
    if (warmupMs > 0) await elapsed(warmupMs);

    run.messages = 0;
    run.reads = 0;
    run.latencies.clear();
    const watched = watchPids.map((pid) => ({ pid, before: processCpuSeconds(pid) }));
    const cpuBefore = process.cpuUsage();
    const start = performance.now();
    await elapsed(measureMs);
    const seconds = (performance.now() - start) / 1000;
    const { user, system } = process.cpuUsage(cpuBefore);
    const watchedCpu = watched.map(({ pid, before }) => (processCpuSeconds(pid) - before) / seconds);
    const { messages, reads } = run;
    const p50us = run.latencies.quantile(0.5);
    const p99us = run.latencies.quantile(0.99);

    run.sending = false;
    await drain(run, connections, drainMs);
    await Promise.all(connections.map((connection) => connection.close()));

    const { corrupted, missing, reordered, protocol } = run.faults;
    return {
      messages,
      seconds,
      perSecond: messages / seconds,
      p50us,
      p99us,
      errors: corrupted + missing + reordered + protocol,
      faults: run.faults,
      firstFault: run.firstFault,
      unexpected: run.unexpected,
      messagesPerRead: reads === 0 ? 0 : messages / reads,
      cpu: (user + system) / 1e6 / seconds,
      watchedCpu,
    };
  } finally {
    for (const connection of connections) connection.destroy();
  }
}

async function main(argument: string | undefined): Promise<void> {
  let line: LoadResult | LoadFailure;
  try {
    line = await generateLoad(JSON.parse(argument ?? "{}"));
  } catch (error) {
    line = { error: error instanceof Error ? error.message : String(error) };
    process.exitCode = 1;
  }
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  await main(process.argv[2]);
}
