import type { BackendSnapshot, TransportSnapshot } from "../../rpmsg/index.ts";
import { mapDescriptors } from "../../rpmsg/index.ts";

/** A vhost-user link that stands still, to be handed over: plain data, with descriptors of the process that gives it. */
export interface LinkSnapshot {
  readonly mode: "listen" | "connect";
  readonly path: string;
  readonly transport: TransportSnapshot;
  /** Undefined without a frontend. */
  readonly backend: BackendSnapshot | undefined;
}

/** The same with other numbers for its descriptors; a connection's is in two places. */
export function mapLink(link: LinkSnapshot, map: (fd: number) => number): LinkSnapshot {
  const { listener } = link.transport;
  const backend = link.backend && mapDescriptors(link.backend, map);
  return {
    ...link,
    transport: {
      listener: listener === undefined ? undefined : map(listener),
      connection: backend?.connection.fd,
    },
    backend,
  };
}
