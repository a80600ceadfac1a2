import type { Socket } from "node:net";
import { connect } from "node:net";
import { setTimeout as elapsed } from "node:timers/promises";
import { processCpuSeconds } from "../harness.ts";
import { deferred } from "./deferred.ts";
import { binaryHeader, clientFrame, FIN_BINARY, FIN_PING } from "./frames.ts";
import { upgradeRequest } from "./handshake.ts";

const QUIET_MS = 200;

export interface FanOutOptions {
  port: number;
  path: string;
  clients: number;
  /** Bytes of a message: its first four number it. */
  size: number;
  measureMs: number;
  watchPids: number[];
}

export interface FanOutResult {
  /** Messages that arrived, at all clients together. */
  perSecond: number;
  /** Numbers that did not follow on the one before, and frames of another form. */
  errors: number;
  cpu: number;
  watchedCpu: number[];
}

const options = JSON.parse(process.argv[2] ?? "{}") as FanOutOptions;
const input = Buffer.allocUnsafeSlow(256 << 10);
const header = binaryHeader(options.size);
const frameLength = header.length + options.size;
let messages = 0;
let errors = 0;

/** A client that reads a stream of numbered messages of one size. */
class StreamReader {
  readonly opened = deferred();
  readonly socket: Socket;
  #head = "";
  #open = false;
  #stash = Buffer.allocUnsafeSlow(frameLength);
  #stashed = 0;
  #last = -1;

  constructor() {
    const { port, path } = options;
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
        this.#take(this.#stash, 0);
      } else {
        this.#take(input, at);
        at += frameLength;
      }
    }
    return true;
  }

  #take(bytes: Buffer, at: number): void {
    const number = bytes.readUInt32LE(at + header.length);
    const follows = this.#last < 0 || number === this.#last + 1;
    if (bytes[at] === FIN_BINARY && bytes[at + 1] === header[1] && follows) messages++;
    else errors++;
    this.#last = number;
  }
}

const readers = Array.from({ length: options.clients }, () => new StreamReader());
await Promise.all(readers.map((reader) => reader.opened.promise));
const [first] = readers as [StreamReader];
first.send(String(options.size));
await elapsed(Math.round(options.measureMs / 3));
messages = 0;
const watched = options.watchPids.map((pid) => ({ pid, before: processCpuSeconds(pid) }));
const cpuBefore = process.cpuUsage();
const start = performance.now();
await elapsed(options.measureMs);
const seconds = (performance.now() - start) / 1000;
const perSecond = messages / seconds;
const { user, system } = process.cpuUsage(cpuBefore);
const watchedCpu = watched.map(({ pid, before }) => (processCpuSeconds(pid) - before) / seconds);
first.send("stop");
// Until the stream has ended: a connection that is cut off takes what was sent on it with it.
for (let before = -1; before < messages; await elapsed(QUIET_MS)) before = messages;
for (const { socket } of readers) socket.destroy();
const result: FanOutResult = { perSecond, errors, cpu: (user + system) / 1e6 / seconds, watchedCpu };
process.stdout.write(`${JSON.stringify(result)}\n`);
