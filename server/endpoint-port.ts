import type { EndpointCounters, EndpointState, Origin } from "../schemas/index.ts";

/**
 * What became of a message to the guest:
 *  - `sent`: in the response queue; `queued`: it waits, `onUndelivered` tells if in vain
 *  - `too-large`: longer than the guest's buffers; `queue-full`: too much waits already; `endpoint-gone`: closed
 * Nothing was taken in the last three cases.
 */
export type SendCode = "sent" | "queued" | "too-large" | "queue-full" | "address-invalid" | "endpoint-gone";

export type UndeliveredCode = "no-peer" | "no-buffer" | "too-large";

/** What an open channel is told. */
export interface ChannelEvents {
  /** `length` bytes at `offset`, valid during the call only. */
  onMessage(src: number, bytes: Uint8Array, offset: number, length: number): void;
  /** Little enough waits now that more may be sent. */
  onWritable(): void;
  /** A queued message was given up. */
  onUndelivered(code: UndeliveredCode): void;
  /** The guest was reset, or the endpoint withdrawn: the channel is of no use any more. */
  onState(state: "reset" | "withdrawn"): void;
}

/** One user's way to an endpoint and back. */
export interface ChannelPort {
  /** The channel's own address. */
  readonly local: number;
  /** Longest message, in bytes. */
  readonly mtu: number;
  /** Bytes that wait to be sent. */
  readonly pendingBytes: number;
  /** @param dst undefined for the endpoint's peer */
  send(dst: number | undefined, bytes: Uint8Array, offset: number, length: number): SendCode;
  /** Leaves the guest's messages with the guest until `release`. */
  hold(): void;
  release(): void;
  /** Takes and gives no more messages; what was taken is still sent. */
  close(): void;
  /** As `close`, but what waits is dropped, and counted as undelivered. */
  abort(): void;
}

export interface OpenOptions {
  share: "private" | "shared";
  /** The channel's own address; undefined for one that the endpoint chooses. */
  local: number | undefined;
  /** Bytes that may wait to be sent, a few for each message included. */
  queueBytes: number;
  /** Bytes that are left of them when `onWritable` is called. */
  lowBytes: number;
  /** Milliseconds that a message may wait. */
  timeout: number;
}

/** A source of messages that can be connected to, whatever is behind it. */
export interface EndpointPort {
  readonly guest: string;
  /** One character a byte. */
  readonly name: string;
  readonly address: number;
  readonly origin: Origin;
  readonly state: EndpointState;
  readonly generation: number;
  readonly mtu: number;
  readonly clients: number;
  readonly counters: EndpointCounters;
  /** @returns a code where it cannot be opened */
  open(options: OpenOptions, events: ChannelEvents): ChannelPort | "local-in-use" | "no-address";
}
