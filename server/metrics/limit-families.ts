import type { Bridge } from "../bridge.ts";
import type { Family } from "./family.ts";
import { counter, gauge } from "./family.ts";

/** What is there of that which has a limit, and how often each limit was reached. */
export function limitFamilies({ admission, channels, captures, guestBudget, counts }: Bridge): Family[] {
  return [
    gauge("rpmsg_bridge_connections", "Connections of all kinds.", admission.connections),
    gauge("rpmsg_bridge_event_streams", "Streams of events.", admission.eventStreams),
    gauge("rpmsg_bridge_captures", "Captures.", captures.size),
    gauge("rpmsg_bridge_waiting_sessions", "Sessions whose clients are away.", channels.waitingSessions),
    gauge(
      "rpmsg_bridge_waiting_bytes",
      "Bytes that wait for all clients, with what is kept for their return, and for all guests.",
      [
        { labels: { for: "clients" }, value: channels.budget.bytes },
        { labels: { for: "guests" }, value: guestBudget.bytes },
      ],
    ),
    counter(
      "rpmsg_bridge_limit_reached_total",
      "How often something was refused, closed, held up or left out for a limit.",
      [...counts.limits.entries()].map(([limit, value]) => ({ labels: { limit }, value })),
    ),
  ];
}
