/** The contract with the outside. */
export { ChannelQuery, closeCode, subprotocols } from "./channel.ts";
export { type Announcement, Config, type ConfigInput, type GuestConfig, type Limits } from "./config.ts";
export { GuestName, Origin, parseAddress } from "./identity.ts";
export {
  type Endpoint,
  type EndpointCounters,
  EndpointFilter,
  EndpointList,
  type EndpointState,
  type Guest,
  GuestList,
  type GuestState,
  Problem,
} from "./resources.ts";
