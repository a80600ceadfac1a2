import type { Endpoint } from "../../schemas/index.ts";
import { Endpoint as EndpointSchema, Guest } from "../../schemas/index.ts";
import type { Bridge } from "../bridge.ts";
import { fieldText, fieldTexts } from "../documents/field-texts.ts";
import type { Family, Sample } from "./family.ts";
import { counter, gauge, histogram } from "./family.ts";

/** Counters of a guest that count messages which no endpoint got, with the code under which they are rejected input. */
const messageCodes = {
  malformed: "malformed",
  unknownAddress: "unknown-address",
  nameServiceOff: "name-service-off",
  nameServiceMalformed: "name-service-malformed",
  nameServiceLimit: "name-service-limit",
  nameServiceIgnored: "name-service-ignored",
} as const;

export function guestFamilies(bridge: Bridge): Family[] {
  const guests = bridge.guests();
  const each = (value: (guest: Guest) => number): Sample[] =>
    guests.map((guest) => ({ labels: { guest: guest.name }, value: value(guest) }));
  const states = guests.flatMap(({ name, state }) =>
    Guest.shape.state.options.map((other) => ({
      labels: { guest: name, state: other },
      value: +(other === state),
    })),
  );
  const waiting = guests.flatMap(({ name, waiting: queues }) =>
    Object.entries(queues ?? {}).map(([queue, value]) => ({ labels: { guest: name, queue }, value })),
  );
  return [
    gauge("rpmsg_guests", "Guests of the configuration.", guests.length),
    gauge(
      "rpmsg_guest_up",
      "1 while the guest is attached.",
      each(({ state }) => +(state === "attached")),
    ),
    gauge("rpmsg_guest_state", "1 for the state that the guest is in.", states),
    gauge(
      "rpmsg_guest_generation",
      fieldTexts.generation,
      each(({ generation }) => generation),
    ),
    gauge(
      "rpmsg_guest_queue_waiting",
      "Free buffers of the guest (response), messages of it that the bridge has not taken (request).",
      waiting,
    ),
    ...counterFamilies(
      "guest",
      Object.keys(Guest.shape.counters.shape),
      guests.map(({ name, counters }) => ({ labels: { guest: name }, counters })),
    ),
    ...causeFamilies(bridge, guests),
  ];
}

/** What went wrong with guests, by cause and code. */
function causeFamilies(bridge: Bridge, guests: readonly Guest[]): Family[] {
  const all = bridge.guestCounts();
  const rejected: Sample[] = guests.flatMap(({ name: guest, counters }) =>
    Object.entries(messageCodes).map(([field, code]) => ({
      labels: { guest, where: "message", code },
      value: counters[field as keyof typeof messageCodes],
    })),
  );
  for (const { guest, counts } of all) {
    for (const [where, tally] of Object.entries(counts.rejected)) {
      for (const [code, value] of tally.entries()) rejected.push({ labels: { guest, where, code }, value });
    }
  }
  const byCause = (field: "dropped" | "undelivered"): Sample[] =>
    all.flatMap(({ guest, counts }) =>
      [...counts[field].entries()].map(([cause, value]) => ({ labels: { guest, cause }, value })),
    );
  const waiting = (field: "messages" | "bytes"): Sample[] =>
    all.map(({ guest, waiting: amounts }) => ({ labels: { guest }, value: amounts[field] }));
  return [
    gauge("rpmsg_guest_waiting_messages", "Messages that wait for the guest.", waiting("messages")),
    gauge(
      "rpmsg_guest_waiting_bytes",
      "Bytes that wait for the guest, 16 for each message included.",
      waiting("bytes"),
    ),
    histogram(
      "rpmsg_guest_send_wait_seconds",
      "How long messages to the guest waited that found no buffer, or no peer, at once.",
      all.map(({ guest, counts }) => ({ labels: { guest }, histogram: counts.waits })),
    ),
    counter(
      "rpmsg_guest_rejected_total",
      "What of a guest or its frontend was refused or ignored, by where (message, queue, frontend) and code.",
      rejected,
    ),
    counter(
      "rpmsg_guest_dropped_total",
      "Messages of the guest that did not come to a client, by cause.",
      byCause("dropped"),
    ),
    counter(
      "rpmsg_guest_undelivered_total",
      "Messages of clients that did not come to the guest, by cause.",
      byCause("undelivered"),
    ),
  ];
}

/** @param most endpoints that have metrics of their own: the first ones. A guest may announce very many. */
export function endpointFamilies(all: readonly Endpoint[], most: number): Family[] {
  const endpoints = all.slice(0, most).map(({ guest, name, origin, path, clients, counters }) => ({
    // Names may be the same; the path tells endpoints apart, and is the same again after a reset.
    labels: { guest, endpoint: name, origin, path },
    clients,
    counters,
  }));
  return [
    gauge("rpmsg_endpoints", "Endpoints that are listed.", all.length),
    gauge(
      "rpmsg_endpoints_without_metrics",
      `Endpoints that have no metrics: those behind the first ${most}.`,
      all.length - endpoints.length,
    ),
    gauge(
      "rpmsg_endpoint_clients",
      fieldTexts["Endpoint.clients"],
      endpoints.map(({ labels, clients }) => ({ labels, value: clients })),
    ),
    ...counterFamilies("endpoint", Object.keys(EndpointSchema.shape.counters.shape), endpoints),
  ];
}

/** A metric for each counter of the REST interface, of the same name. */
function counterFamilies(
  what: "guest" | "endpoint",
  names: readonly string[],
  owners: readonly { labels: Sample["labels"]; counters: Readonly<Record<string, number>> }[],
): Family[] {
  const schema = what === "guest" ? "GuestCounters" : "EndpointCounters";
  return names.map((name) =>
    counter(
      `rpmsg_${what}_${name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}_total`,
      fieldText(schema, name) ?? name,
      owners.map(({ labels, counters }) => ({ labels, value: counters[name] ?? 0 })),
    ),
  );
}
