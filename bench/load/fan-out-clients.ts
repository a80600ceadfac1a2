import { setTimeout as elapsed } from "node:timers/promises";
import { processCpuSeconds } from "../harness.ts";
import { binaryHeader, FIN_BINARY } from "./frames.ts";
import { StreamReader } from "./stream-reader.ts";

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
const header = binaryHeader(options.size);
let messages = 0;
let errors = 0;

/** Reads a stream of numbered messages. */
function numberedReader(): StreamReader {
  const { port, path, size } = options;
  let last = -1;
  const onFrame = (bytes: Buffer, at: number): void => {
    const number = bytes.readUInt32LE(at + header.length);
    const follows = last < 0 || number === last + 1;
    if (bytes[at] === FIN_BINARY && bytes[at + 1] === header[1] && follows) messages++;
    else errors++;
    last = number;
  };
  return new StreamReader({ port, path, size, onFrame });
}

const readers = Array.from({ length: options.clients }, numberedReader);
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
