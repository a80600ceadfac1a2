import { deserialize, serialize } from "node:v8";
import type { BridgeState } from "./bridge-state.ts";

/**
 * Version of what two bridges say to each other, of the state, and of what a bridge and the process of an isolated guest
 * say: another one is refused. It changes with every change of a snapshot.
 */
export const HAND_OVER_VERSION = 1;

/** From the successor, first. */
export interface Hello {
  readonly type: "hello";
  readonly protocol: "rpmsg-bridge-hand-over";
  readonly version: number;
}

/** From the predecessor, at any time before `yours`: it goes on by itself. */
export interface Refused {
  readonly type: "refused";
  readonly reason: string;
}

/** Everything, with the descriptors that it names. */
export interface State {
  readonly type: "state";
  readonly bridge: BridgeState;
  /** `listen` of the predecessor's configuration, and its descriptor. */
  readonly listen: { readonly text: string; readonly fd: number };
  /** The descriptors' numbers where the state was made, in the order in which they are sent. */
  readonly descriptors: readonly number[];
  /** When the predecessor goes on by itself, in milliseconds of the system's monotonic clock. */
  readonly deadline: number;
}

/** The successor could go on. */
export interface Ready {
  readonly type: "ready";
}

/** From the predecessor, last: it touches nothing any more. */
export interface Yours {
  readonly type: "yours";
}

export type Message = Hello | Refused | State | Ready | Yours;

/** V8's format, which later versions read too: the state has bytes, big integers and undefined. */
export function encode(message: Message): Uint8Array {
  return serialize(message);
}

/** @throws Error what came is no message */
export function decode(bytes: Uint8Array): Message {
  const message = deserialize(bytes) as Message | undefined;
  if (typeof message?.type !== "string") throw new Error("a record is no message of a hand-over");
  return message;
}

/** Milliseconds of the clock that all processes of the system share. */
export function monotonic(): number {
  return Number(process.hrtime.bigint() / 1_000_000n);
}
