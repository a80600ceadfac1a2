/** The vhost RPMsg core: the device side of virtio-rpmsg, and what an emulated guest needs of the driver side. */
export {
  type DeviceSnapshot,
  type DeviceState,
  REQUEST_QUEUE,
  RESPONSE_QUEUE,
  RPMSG_F_NS,
  RpmsgDevice,
} from "./device.ts";
export type { Endpoint } from "./endpoint.ts";
export { CodedError, GuestError, RpmsgError, SystemError } from "./errors.ts";
export { copyBytes } from "./memory/copy-bytes.ts";
export { GuestMemory, type MemoryWindow } from "./memory/guest-memory.ts";
export { heapRegion } from "./memory/heap-memory.ts";
export { mappedRegion } from "./memory/mapped-memory.ts";
export type { GuestAnnouncement, HostAnnouncement } from "./name-service.ts";
export { sendDatagram } from "./posix/datagram.ts";
export { errnoName } from "./posix/errno.ts";
export { createEventfd } from "./posix/eventfd.ts";
export { trimMalloc } from "./posix/malloc.ts";
export { Poller } from "./posix/poller.ts";
export { RecordSocket } from "./posix/record-socket.ts";
export { createMemory } from "./posix/shared-memory.ts";
export {
  accept,
  closeFd,
  connectUnix,
  duplicateFd,
  listenUnix,
  socketPair,
} from "./posix/unix-socket.ts";
export { relayConnection } from "./relay/relay-connection.ts";
export type { TappedMessage } from "./ring-tap.ts";
export type { SendQueue, Target } from "./send-queue.ts";
export { type BackendSnapshot, VhostUserBackend } from "./vhost-user/backend.ts";
export {
  type ConnectionSnapshot,
  VhostUserConnection,
  type VhostUserMessage,
} from "./vhost-user/connection.ts";
export { VhostUserFrontend } from "./vhost-user/frontend.ts";
export { bits, feature, featureNames, hasBit } from "./vhost-user/messages.ts";
export { mapDescriptors } from "./vhost-user/snapshot-descriptors.ts";
export { openTransport, type Serve, type TransportSnapshot } from "./vhost-user/transport.ts";
export { DeviceQueue } from "./virtqueue/device-queue.ts";
export { DriverQueue } from "./virtqueue/driver-queue.ts";
export { type RingAddresses, ringSizes } from "./virtqueue/layout.ts";
export type { DeviceConfig } from "./wire/device-config.ts";
export { ADDRESS_ANY, HEADER_SIZE, NAME_SERVICE_ADDRESS } from "./wire/header.ts";
export {
  decodeNameService,
  encodeNameService,
  NAME_SERVICE_SIZE,
} from "./wire/name-service.ts";
