import type { BackendSnapshot } from "./backend.ts";
import type { LogSnapshot } from "./migration-log.ts";
import type { VringSnapshot } from "./vring.ts";

/** A log's snapshot with other numbers for its descriptors. */
export function mapLog({ file, notify }: LogSnapshot, map: (fd: number) => number): LogSnapshot {
  return {
    file: file && { ...file, fd: map(file.fd) },
    notify: notify === undefined ? undefined : map(notify),
  };
}

/** A vring's snapshot with other numbers for its descriptors. */
export function mapVring(vring: VringSnapshot, map: (fd: number) => number): VringSnapshot {
  const optional = (fd: number | undefined) => (fd === undefined ? undefined : map(fd));
  return {
    ...vring,
    kick: optional(vring.kick),
    call: optional(vring.call),
    error: optional(vring.error),
  };
}

/** The snapshot with another number for each descriptor: those of the process that goes on with it. */
export function mapDescriptors(snapshot: BackendSnapshot, map: (fd: number) => number): BackendSnapshot {
  const optional = (fd: number | undefined) => (fd === undefined ? undefined : map(fd));
  const { connection, vrings } = snapshot;
  const { inflight, log } = vrings;
  const [response, request] = vrings.vrings;
  return {
    ...snapshot,
    connection: { ...connection, fd: map(connection.fd), fds: connection.fds.map(map) },
    backendRequestFd: optional(snapshot.backendRequestFd),
    vrings: {
      ...vrings,
      memory: vrings.memory.map((region) => ({ ...region, fd: map(region.fd) })),
      vrings: [mapVring(response, map), mapVring(request, map)],
      inflight: inflight && { ...inflight, fd: map(inflight.fd) },
      log: mapLog(log, map),
    },
  };
}
