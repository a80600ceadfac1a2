/** Emulated guests, for tests of software that talks to real ones through the bridge. */
export {
  type MessageAction,
  type ServiceAction,
  type ServiceEndpoint,
  type ServiceMessage,
  service,
} from "./define-service.ts";
export { EmulatedGuest, type EmulatedGuestOptions } from "./emulated-guest.ts";
export type { Faults } from "./faults.ts";
export type { GuestConnection, SocketEvents } from "./guest-socket.ts";
export type { ProfileName } from "./profiles.ts";
export {
  type Service,
  type ServiceContext,
  ServiceError,
  type ServiceErrorCode,
  type ServiceFactory,
  type ServiceNs,
  type ServiceOptions,
} from "./service.ts";
export { echo } from "./services/echo.ts";
export { sensor } from "./services/sensor.ts";
export { sink } from "./services/sink.ts";
export { source } from "./services/source.ts";
export { tty } from "./services/tty.ts";
