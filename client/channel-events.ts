import type { DownReason, EndpointState, GuestState } from "../schemas/index.ts";
import type { RpmsgError } from "./errors.ts";
import type { Message } from "./message.ts";

export interface ChannelState {
  /** `open`; `reconnecting`: the connection is lost and made again, messages to send wait; `closed`: it is over. */
  connection: "open" | "reconnecting" | "closed";
  /** As the bridge said last. */
  guestState: GuestState;
  endpointState: EndpointState;
  /** Why the endpoint went, where it did. */
  reason?: DownReason;
}

export interface GenerationChange {
  /** The guest's generation before. It is the same as now where only the session was lost. */
  previous: number;
  current: number;
  /** The session went on: no message was lost. Otherwise those in between were, and the local address may be another. */
  resumed: boolean;
}

export interface Dropped {
  /** How many messages; undefined where nobody knows. */
  count: number | undefined;
  /** `bridge`: it could not write them as fast as they came; `client`: nobody took them here. */
  by: "bridge" | "client";
}

export interface ChannelEnd {
  /** The WebSocket's close code: 1000 after `close`. */
  code: number;
  reason: string;
  /** Undefined after `close`. */
  error: RpmsgError | undefined;
}

export interface ChannelEvents {
  /** A message of the guest. */
  message: Message;
  /** The connection, the endpoint or its guest changed. */
  state: ChannelState;
  /** Messages were lost for want of a reader. */
  dropped: Dropped;
  /** The channel goes on with another generation of the guest, or with another session. */
  generation: GenerationChange;
  /** It is over. */
  close: ChannelEnd;
  /**
   * Something was wrong, and no promise tells it. With `guest-gone`: a message was in the guest's queue, and the guest
   * may not have read it before a reset.
   */
  error: RpmsgError;
}
