import type {
  DownReason,
  EndpointCounters,
  EndpointState,
  GuestState,
  NameServiceMode,
  Origin,
  Share,
} from "../schemas/index.ts";

/**
 * What became of a message to the guest:
 *  - `sent`: in the response queue; `queued`: it waits, what becomes of it is told
 *  - `too-large`: longer than the guest's buffers; `queue-full`: too much waits already; `endpoint-gone`: closed
 *  - `forbidden`, `read-only`: the client may not send
 * Nothing was taken but in the first two cases.
 */
export type SendCode =
  | "sent"
  | "queued"
  | "too-large"
  | "queue-full"
  | "address-invalid"
  | "endpoint-gone"
  | "forbidden"
  | "read-only";

export const undeliveredCodes = ["no-peer", "no-buffer", "too-large", "guest-gone", "endpoint-gone"] as const;
export type UndeliveredCode = (typeof undeliveredCodes)[number];

/**
 * Why a message of the guest did not come to a client: a policy for slow readers, the client's connection or
 * subscription was over, its session was, or nobody was there.
 */
export const dropCauses = ["drop-oldest", "drop-newest", "closed", "session", "no-client"] as const;
export type DropCause = (typeof dropCauses)[number];

/**
 * Why a channel is over: its endpoint is down, another client has taken its place, or too much waits for all guests and
 * most of it is of this channel.
 */
export type EndReason = DownReason | "replaced" | "overloaded";

/** What an open channel is told. A ticket is what was given with a message that had to wait. */
export interface ChannelEvents<Ticket = unknown> {
  /**
   * `length` bytes at `offset`, valid during the call only.
   * @param serial the same for all channels that get this message of the guest, another for the next one
   */
  onMessage(src: number, bytes: Uint8Array, offset: number, length: number, serial: number): void;
  /** Little enough waits now that more may be sent. */
  onWritable(): void;
  /** A queued message is in the response queue. */
  onSent(ticket: Ticket | undefined): void;
  /** A queued message was given up. */
  onUndelivered(code: UndeliveredCode, ticket: Ticket | undefined): void;
  /** A message that was sent may not have been read before a reset. */
  onUnconfirmed(ticket: Ticket | undefined): void;
  /** The state of the endpoint or its guest may be another one. */
  onChanged(): void;
  /** The channel is of no use any more. */
  onEnd(reason: EndReason): void;
}

/** A message that waits for the guest, as it is handed over. */
export interface WaitingMessage<Ticket = unknown> {
  readonly dst: number | undefined;
  readonly bytes: Uint8Array;
  /** Milliseconds that it may still wait. */
  readonly left: number;
  readonly ticket: Ticket | undefined;
}

/** A channel that stands still, to be handed over to another process: plain data. */
export interface ChannelSnapshot<Ticket = unknown> {
  readonly local: number;
  readonly exclusive: boolean;
  readonly replaceable: boolean;
  readonly listens: boolean;
  readonly waiting: readonly WaitingMessage<Ticket>[];
  /** What was sent and the guest may not have read, by the first descriptor of its buffer. */
  readonly unread: readonly { readonly head: number; readonly ticket: unknown }[];
}

/** One user's way to an endpoint and back. */
export interface ChannelPort<Ticket = unknown> {
  readonly endpoint: EndpointPort;
  /** The channel's own address. */
  readonly local: number;
  /** Where messages without a destination go. */
  readonly peer: number | undefined;
  /** Longest message, in bytes. */
  readonly mtu: number;
  /** Bytes that wait to be sent, 16 for each message included. */
  readonly pendingBytes: number;
  /**
   * @param dst undefined for the endpoint's peer
   * @param timeout milliseconds that it may wait
   */
  send(
    dst: number | undefined,
    bytes: Uint8Array,
    offset: number,
    length: number,
    ticket?: Ticket,
    timeout?: number,
  ): SendCode;
  /** Leaves the guest's messages with the guest until `release`. */
  hold(): void;
  release(): void;
  /** So many messages of the guest were dropped. */
  dropped(count: number, cause: DropCause): void;
  /** What another process needs to go on with it; the guest stands still. */
  snapshot(): ChannelSnapshot<Ticket>;
  /** Takes and gives no more messages; what was taken is still sent. */
  close(): void;
  /** As `close`, but what waits is dropped, and counted as undelivered. */
  abort(): void;
}

/** Bounds of what a channel sends. */
export interface SendBounds {
  /** Bytes that may wait to be sent, 16 for each message included. */
  readonly queueBytes: number;
  /** Bytes that are left of them when `onWritable` is called. */
  readonly lowBytes: number;
  /** Milliseconds that a message may wait. */
  readonly timeout: number;
}

export interface OpenOptions extends SendBounds {
  /** undefined: as is usual for the endpoint's origin. */
  share: Share | undefined;
  /** Ends the other channels of the endpoint. */
  takeover: boolean;
  /** Another exclusive channel may take its place. */
  replaceable: boolean;
  /** The guest's messages are wanted. */
  listens: boolean;
  /** The channel's own address; undefined for one that the endpoint chooses. */
  local: number | undefined;
}

/** Why an endpoint cannot be opened. */
export type OpenRefusal = "local-in-use" | "no-address" | "endpoint-in-use";

/** A source of messages that can be connected to, whatever is behind it. */
export interface EndpointPort {
  readonly guest: string;
  readonly guestState: GuestState;
  /** One character a byte. */
  readonly name: string;
  readonly address: number | undefined;
  readonly origin: Origin;
  readonly ns: NameServiceMode;
  readonly peer: number | undefined;
  readonly state: EndpointState;
  readonly generation: number;
  readonly mtu: number;
  readonly clients: number;
  readonly counters: EndpointCounters;
  open<Ticket>(options: OpenOptions, events: ChannelEvents<Ticket>): ChannelPort<Ticket> | OpenRefusal;
  /** A channel of another process goes on here. */
  restore<Ticket>(
    snapshot: ChannelSnapshot<Ticket>,
    bounds: SendBounds,
    events: ChannelEvents<Ticket>,
  ): ChannelPort<Ticket>;
}

/**
 * A message that went through a ring of a guest, as a capture sees it; valid during the call only. `malformed` and
 * `unknown-address` are what the guest's counters call so.
 */
export interface TappedMessage {
  readonly toGuest: boolean;
  readonly outcome: "passed" | "malformed" | "unknown-address";
  /** RPMsg header and payload: `length` bytes from the start, of `originalLength` that there were. */
  readonly packet: Uint8Array;
  readonly length: number;
  readonly originalLength: number;
  readonly dst: number;
}

/** What the guest knows of a tapped message besides. */
export interface TapFacts {
  readonly generation: number;
  /**
   * The endpoint with the message's address on the side of the host, of several the one that its other address is the
   * peer of; undefined where there is none, or more than one.
   */
  readonly endpoint: EndpointPort | undefined;
  /** The name in a message of name service, one character a byte. */
  readonly announced: string | undefined;
}

/** Sees every message of both rings of a guest. It must not throw, and it must not send. */
export type GuestTap = (message: TappedMessage, facts: TapFacts) => void;
