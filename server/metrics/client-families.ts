import type { Bridge } from "../bridge.ts";
import type { Tally } from "../tally.ts";
import type { Family, Sample } from "./family.ts";
import { counter, gauge, histogram } from "./family.ts";

/** Connections of clients, and what of theirs was refused. */
export function clientFamilies({ counts, channels }: Bridge): Family[] {
  const rejected = Object.entries(counts.rejected).flatMap(([where, tally]) =>
    [...tally.entries()].map(([code, value]) => ({ labels: { where, code }, value })),
  );
  return [
    gauge(
      "rpmsg_connections",
      "WebSocket connections that are open, by subprotocol.",
      Object.entries(channels.openCounts).map(([protocol, value]) => ({ labels: { protocol }, value })),
    ),
    counter(
      "rpmsg_connections_opened_total",
      "WebSocket connections, by subprotocol.",
      by("protocol", counts.opened),
    ),
    counter(
      "rpmsg_connections_closed_total",
      "WebSocket connections that ended, by cause.",
      by("cause", counts.closed),
    ),
    histogram(
      "rpmsg_guest_to_socket_seconds",
      "From the guest's ring to the client's socket, of the first frame of each turn of the event loop.",
      [{ labels: {}, histogram: channels.latency }],
    ),
    counter(
      "rpmsg_client_rejected_total",
      "What of clients was refused, by where (head, http, upgrade, frame, subscription) and code.",
      rejected,
    ),
  ];
}

function by(label: string, tally: Tally<string>): Sample[] {
  return [...tally.entries()].map(([key, value]) => ({ labels: { [label]: key }, value }));
}
