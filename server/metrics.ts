import { setImmediate as nextTurn } from "node:timers/promises";
import { Counter, Gauge, Registry } from "prom-client";
import { Endpoint, Guest } from "../schemas/index.ts";
import type { Bridge } from "./bridge.ts";
import { fieldText, fieldTexts } from "./documents/field-texts.ts";

export const METRICS_TYPE = Registry.PROMETHEUS_CONTENT_TYPE;

/** Endpoints that have metrics of their own: the first ones. A guest may announce very many. */
const MOST_ENDPOINTS = 1000;

interface Sample {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** All values of one metric. */
interface Family {
  readonly name: string;
  readonly type: "counter" | "gauge";
  readonly help: string;
  readonly samples: readonly Sample[];
}

/** The metrics of a bridge as they are now, as Prometheus reads them. What is gone has none. */
export async function scrape(bridge: Bridge): Promise<string> {
  const families = [
    ...guestFamilies(bridge.guests()),
    ...endpointFamilies(bridge.list({}).endpoints),
    gauge("rpmsg_bridge_ready", "1 while the bridge takes clients.", [{ labels: {}, value: +bridge.ready }]),
    ...processFamilies(),
  ];
  const texts: string[] = [];
  for (const family of families) {
    if (family.samples.length === 0) continue;
    texts.push(await render(family));
    // With many endpoints all of it takes tens of milliseconds: messages come in between.
    await nextTurn();
  }
  return `${texts.join("\n")}\n`;
}

function guestFamilies(guests: readonly Guest[]): Family[] {
  const each = (value: (guest: Guest) => number): Sample[] =>
    guests.map((guest) => ({ labels: { guest: guest.name }, value: value(guest) }));
  const states = guests.flatMap(({ name, state }) =>
    Guest.shape.state.options.map((other) => ({
      labels: { guest: name, state: other },
      value: +(other === state),
    })),
  );
  return [
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
    ...counterFamilies(
      "guest",
      Object.keys(Guest.shape.counters.shape),
      guests.map(({ name, counters }) => ({ labels: { guest: name }, counters })),
    ),
  ];
}

function endpointFamilies(all: readonly Endpoint[]): Family[] {
  const endpoints = all.slice(0, MOST_ENDPOINTS).map(({ guest, name, origin, path, clients, counters }) => ({
    // Names may be the same; the path tells endpoints apart, and is the same again after a reset.
    labels: { guest, endpoint: name, origin, path },
    clients,
    counters,
  }));
  const left = all.length - endpoints.length;
  return [
    gauge("rpmsg_endpoints", "Endpoints that are listed.", [{ labels: {}, value: all.length }]),
    gauge(
      "rpmsg_endpoints_without_metrics",
      `Endpoints that have no metrics: those behind the first ${MOST_ENDPOINTS}.`,
      [{ labels: {}, value: left }],
    ),
    gauge(
      "rpmsg_endpoint_clients",
      fieldTexts["Endpoint.clients"],
      endpoints.map(({ labels, clients }) => ({ labels, value: clients })),
    ),
    ...counterFamilies("endpoint", Object.keys(Endpoint.shape.counters.shape), endpoints),
  ];
}

/** A metric for each counter of the REST interface, of the same name. */
function counterFamilies(
  what: "guest" | "endpoint",
  names: readonly string[],
  owners: readonly { labels: Sample["labels"]; counters: Readonly<Record<string, number>> }[],
): Family[] {
  const schema = what === "guest" ? "GuestCounters" : "EndpointCounters";
  return names.map((name) => ({
    name: `rpmsg_${what}_${name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}_total`,
    type: "counter",
    help: fieldText(schema, name) ?? name,
    samples: owners.map(({ labels, counters }) => ({ labels, value: counters[name] ?? 0 })),
  }));
}

function processFamilies(): Family[] {
  const start = performance.timeOrigin / 1000;
  return [
    gauge("process_resident_memory_bytes", "Resident memory.", [
      { labels: {}, value: process.memoryUsage.rss() },
    ]),
    gauge("process_start_time_seconds", "When the process started, since 1970.", [
      { labels: {}, value: start },
    ]),
  ];
}

function gauge(name: string, help: string, samples: readonly Sample[]): Family {
  return { name, type: "gauge", help, samples };
}

function render({ name, type, help, samples }: Family): Promise<string> {
  const registry = new Registry();
  const labelNames = Object.keys(samples[0]?.labels ?? {});
  const options = { name, help, labelNames, registers: [registry] };
  if (type === "gauge") {
    const metric = new Gauge(options);
    for (const { labels, value } of samples) metric.set(labels, value);
  } else {
    const metric = new Counter(options);
    for (const { labels, value } of samples) metric.inc(labels, value);
  }
  return registry.metrics();
}
