/** The contract with the outside. */
export { Access, AccessQuery, type Right, rights, Session, Ticket, type TokenConfig } from "./access.ts";
export {
  type ChannelProtocol,
  channelProtocols,
  closeCode,
  JsonAnnounceQuery,
  JsonQuery,
  muxProtocol,
  RawAnnounceQuery,
  RawQuery,
  Share,
  SlowPolicy,
} from "./channel.ts";
export { Config, type ConfigInput, type GuestConfig, type Tls } from "./config.ts";
export { EndpointDeclaration, type NameServiceMode } from "./declaration.ts";
export { type ErrorCode, errorAdvice, errorCodes } from "./errors.ts";
export { type EventData, type EventName, events } from "./events.ts";
export {
  ClientFrame,
  type ClientFrameInput,
  type DownReason,
  Encoding,
  type MessageId,
  MUX_MESSAGE_COST,
  MuxClientFrame,
  MuxServerFrame,
  muxHeader,
  ServerFrame,
} from "./frames.ts";
export { type EndpointState, GuestName, type GuestState, Origin, parseAddress } from "./identity.ts";
export type { Limits, Rate } from "./limits.ts";
export {
  CaptureQuery,
  Endpoint,
  type EndpointCounters,
  EndpointCreate,
  EndpointFilter,
  EndpointList,
  EndpointPage,
  Guest,
  GuestList,
  MessageQuery,
  MessageReply,
  MessageSend,
  MessageSent,
  Problem,
} from "./resources.ts";
