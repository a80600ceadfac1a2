import { z } from "zod";

export const loadOptions = z.strictObject({
  host: z.string().default("127.0.0.1"),
  port: z.int().min(1).max(65_535),
  /** `{n}` stands for the number of the connection, from 0 on. */
  path: z.string().startsWith("/").default("/"),
  /** Offered in the handshake; the server has to accept it. */
  subprotocol: z.string().optional(),
  /** The server knows no messages: answers are a stream of bytes, whatever frames they come in. */
  stream: z.boolean().default(false),
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

/** The same with defaults filled in. */
export type CheckedLoadOptions = z.output<typeof loadOptions>;

/** Printed in place of a result when there is none. */
export interface LoadFailure {
  error: string;
}
