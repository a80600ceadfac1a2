import type { FrontendError, GuestError } from "../errors.ts";
import type { Poller } from "../posix/poller.ts";
import type { BackendOptions } from "../vhost-user/backend.ts";
import { VhostUserBackend } from "../vhost-user/backend.ts";
import { GuestRelay } from "./guest-relay.ts";
import { RelayLink } from "./relay-link.ts";

export interface RelayEvents {
  /** A request of the frontend was refused, and the frontend told so. */
  onRefused(error: FrontendError): void;
  /** Memory came that the frontend can truncate, which would kill this process: once a connection. */
  onUnsealed(): void;
  /** The guest's queues run, with these sizes. */
  onRings(sizes: { response: number; request: number }): void;
  /** The guest broke a queue. */
  onBroken(queue: number, error: GuestError): void;
  /** Once: both connections are over. */
  onClose(error: Error | undefined): void;
}

/**
 * Relays one guest: a backend for its frontend on one side, a frontend for the bridge on the other. Takes the
 * descriptors of both connected sockets. When one ends, so does the other.
 */
export function relayConnection(
  guest: number,
  bridge: number,
  poller: Poller,
  events: RelayEvents,
  options: BackendOptions,
): { close(): void } {
  let over = false;
  let linkError: Error | undefined;
  const link = new RelayLink(bridge, poller, {
    // What the frontend says next waits until the bridge has followed: nothing of a driver that comes and goes at once
    // is lost, and where the frontend is told that its queues have stopped, they have for the bridge.
    onBusy: () => backend.pause(),
    onSettled(running) {
      backend.resume();
      relay.settled(running);
    },
    onCall: (queue) => relay.called(queue),
    onClose(error) {
      linkError = error;
      backend.close();
    },
  });
  const relay = new GuestRelay({
    link,
    features: () => backend.features,
    onRings: (sizes) => events.onRings(sizes),
    onBroken: (queue, error) => events.onBroken(queue, error),
  });
  const backend = new VhostUserBackend(
    guest,
    poller,
    relay,
    {
      onRefused: (error) => events.onRefused(error),
      onUnsealed: () => events.onUnsealed(),
      onClose(error) {
        if (over) return;
        over = true;
        link.close();
        events.onClose(error ?? linkError);
      },
    },
    options,
  );
  link.open();
  return { close: () => backend.close() };
}
