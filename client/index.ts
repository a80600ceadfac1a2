/** The client of rpmsg-bridge, for browsers and Node. */
export type { ReconnectOptions } from "./backoff.ts";
export type { Bound } from "./bound.ts";
export type { Channel } from "./channel.ts";
export type {
  ChannelEnd,
  ChannelEvents,
  ChannelState,
  Dropped,
  GenerationChange,
} from "./channel-events.ts";
export type { ConnectOptions } from "./connect.ts";
export { connect } from "./connect.ts";
export { openSession } from "./credentials.ts";
export type { ClientErrorCode } from "./errors.ts";
export { RpmsgError } from "./errors.ts";
export type { RequestOptions } from "./http.ts";
export type { ListOptions } from "./list.ts";
export { guests, list } from "./list.ts";
export type { Message } from "./message.ts";
export type { SendOptions } from "./outbox.ts";
export type { Place } from "./target.ts";
export type { Change, Watch, WatchOptions } from "./watch.ts";
export { watch } from "./watch.ts";
export type { WebSocketConstructor, WebSocketLike } from "./web-socket.ts";
