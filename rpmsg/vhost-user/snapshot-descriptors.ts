import type { BackendSnapshot } from "./backend.ts";
import type { VringSnapshot } from "./vring.ts";

/** The snapshot with another number for each descriptor: those of the process that goes on with it. */
export function mapDescriptors(snapshot: BackendSnapshot, map: (fd: number) => number): BackendSnapshot {
  const optional = (fd: number | undefined) => (fd === undefined ? undefined : map(fd));
  const vring = (each: VringSnapshot): VringSnapshot => ({
    ...each,
    kick: optional(each.kick),
    call: optional(each.call),
    error: optional(each.error),
  });
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
      vrings: [vring(response), vring(request)],
      inflight: inflight && { ...inflight, fd: map(inflight.fd) },
      log: { file: log.file && { ...log.file, fd: map(log.file.fd) }, notify: optional(log.notify) },
    },
  };
}
