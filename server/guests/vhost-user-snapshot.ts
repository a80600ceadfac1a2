import type { BackendSnapshot, TransportSnapshot } from "../../rpmsg/index.ts";
import { mapDescriptors } from "../../rpmsg/index.ts";
import type { GuestConfig } from "../../schemas/index.ts";
import type { IsolatedSnapshot } from "./isolated-transport.ts";

/** A vhost-user link that stands still, to be handed over: plain data, with descriptors of the process that gives it. */
export interface LinkSnapshot {
  readonly mode: "listen" | "connect";
  readonly path: string;
  readonly transport: TransportSnapshot;
  /** Undefined without a frontend. */
  readonly backend: BackendSnapshot | undefined;
  /** Of an isolated guest. */
  readonly isolated: IsolatedSnapshot | undefined;
  /** What the guest's process has told of its queues. */
  readonly guestQueues: { readonly response: number; readonly request: number } | null;
}

/** What another process's link leaves to one of this configuration. */
export interface InheritedLink {
  readonly link: LinkSnapshot;
  /** The guest notices nothing; otherwise its frontend is gone, and only the listening socket is left. */
  readonly goesOn: boolean;
}

/**
 * @param take this process's descriptor for one of the link's
 * @returns undefined where nothing of it is of use
 */
export function inheritLink(
  link: LinkSnapshot | undefined,
  config: GuestConfig,
  take: (fd: number) => number,
): InheritedLink | undefined {
  if (link === undefined || config.kind !== "vhost-user") return undefined;
  if (link.path !== config.path || link.mode !== config.mode) return undefined;
  const goesOn = (link.isolated !== undefined) === (config.isolation === "process");
  return { link: goesOn ? mapLink(link, take) : mapSocket(link, take), goesOn };
}

/** The same with other numbers for its descriptors; a connection's is in two places. */
export function mapLink(link: LinkSnapshot, map: (fd: number) => number): LinkSnapshot {
  const { transport, isolated } = link;
  const backend = link.backend && mapDescriptors(link.backend, map);
  return {
    ...link,
    transport: { listener: mapListener(transport, map), connection: backend?.connection.fd },
    backend,
    isolated: isolated && mapIsolated(isolated, map),
  };
}

/** Of a guest that is to be isolated, or no more: whoever connects next finds the socket. */
function mapSocket(link: LinkSnapshot, map: (fd: number) => number): LinkSnapshot {
  const transport = { listener: mapListener(link.transport, map), connection: undefined };
  return { ...link, transport, backend: undefined, isolated: undefined, guestQueues: null };
}

function mapListener({ listener }: TransportSnapshot, map: (fd: number) => number): number | undefined {
  return listener === undefined ? undefined : map(listener);
}

function mapIsolated({ child, waiting }: IsolatedSnapshot, map: (fd: number) => number): IsolatedSnapshot {
  return {
    child: child && {
      ...child,
      control: { ...child.control, fd: map(child.control.fd), fds: child.control.fds.map(map) },
      output: map(child.output),
    },
    waiting: waiting.map(map),
  };
}
