import type { Limits } from "../../schemas/index.ts";

/** Most bytes of messages that still arrive after a socket is paused: a read of Node's sockets, twice. */
const READ_CHUNK = 128 * 1024;

/** When a client's socket is read and when not, in bytes that wait for the guest. */
export interface Marks {
  /** From here on the socket is not read. */
  readonly pause: number;
  /** Down here it is read again. */
  readonly resume: number;
  /** What is taken at most: the pause comes into effect late. */
  readonly most: number;
}

/** Longest frame of JSON text, and body of a request that sends a message: in base64, and what is around it. */
export function frameBytes({ payloadBytes }: Pick<Limits, "payloadBytes">): number {
  return 2 * payloadBytes + 2;
}

export function marksOf({ sendQueueBytes }: Pick<Limits, "sendQueueBytes">): Marks {
  return { pause: sendQueueBytes, resume: Math.floor(sendQueueBytes / 4), most: sendQueueBytes + READ_CHUNK };
}
