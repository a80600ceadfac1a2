import supertest from "supertest";
import { describe, expect, onTestFinished, test } from "vitest";
import type { ServiceFactory } from "../../guest/index.ts";
import { EmulatedGuest, echo, sink } from "../../guest/index.ts";
import { encodeNameService, NAME_SERVICE_ADDRESS } from "../../rpmsg/index.ts";
import type { Endpoint, Guest } from "../../schemas/index.ts";
import { startBridge } from "../../server/index.ts";
import type { Series } from "./exposition.ts";
import { readExposition } from "./exposition.ts";
import { eventually, testBridge } from "./support.ts";
import { Valve, vhostBridge } from "./vhost-guest.ts";

/** What has to be there once. */
function idOf({ name, labels }: Pick<Series, "name" | "labels">): string {
  const pairs = Object.entries(labels).map(([label, value]) => `${label}=${JSON.stringify(value)}`);
  return `${name} ${pairs.toSorted().join(",")}`;
}

async function scrape(url: string): Promise<Series[]> {
  const response = await fetch(`${url}/metrics`);
  expect([response.status, response.headers.get("content-type")]).toEqual([
    200,
    "text/plain; version=0.0.4; charset=utf-8",
  ]);
  return [...readExposition(await response.text()).values()].flatMap(({ series }) => series);
}

/** What the metrics have to be, from what REST has. */
function expected(guests: readonly Guest[], endpoints: readonly Endpoint[]): Series[] {
  const total = (prefix: string, labels: Series["labels"], counters: Readonly<Record<string, number>>) =>
    Object.entries(counters).map(([counter, value]) => ({
      name: `${prefix}_${counter.replaceAll(/([A-Z])/g, "_$1").toLowerCase()}_total`,
      labels,
      value,
    }));
  return [
    ...guests.flatMap(({ name: guest, state, generation, counters }) => [
      { name: "rpmsg_guest_up", labels: { guest }, value: state === "attached" ? 1 : 0 },
      ...["waiting", "detached", "suspended", "attached"].map((each) => ({
        name: "rpmsg_guest_state",
        labels: { guest, state: each },
        value: each === state ? 1 : 0,
      })),
      { name: "rpmsg_guest_generation", labels: { guest }, value: generation },
      ...total("rpmsg_guest", { guest }, counters),
    ]),
    ...endpoints.flatMap(({ guest, name: endpoint, origin, path, clients, counters }) => {
      const labels = { guest, endpoint, origin, path };
      return [
        { name: "rpmsg_endpoint_clients", labels, value: clients },
        ...total("rpmsg_endpoint", labels, counters),
      ];
    }),
    { name: "rpmsg_endpoints", labels: {}, value: endpoints.length },
    { name: "rpmsg_endpoints_without_metrics", labels: {}, value: 0 },
    { name: "rpmsg_bridge_ready", labels: {}, value: 1 },
  ];
}

function sorted(samples: readonly Series[]): string[] {
  return samples.map((sample) => `${idOf(sample)} ${sample.value}`).toSorted();
}

/** Compares metrics with REST, at a time when nothing changes; gives the endpoints. */
async function expectSame(url: string): Promise<Endpoint[]> {
  const get = async <T>(path: string): Promise<T> =>
    (await (await fetch(`${url}/api/v1${path}`)).json()) as T;
  const rest = async () => ({
    guests: (await get<{ guests: Guest[] }>("/guests")).guests,
    endpoints: (await get<{ endpoints: Endpoint[] }>("/endpoints?limit=10000")).endpoints,
  });
  return eventually("a time without traffic", async () => {
    const before = await rest();
    const samples = await scrape(url);
    if (JSON.stringify(before) !== JSON.stringify(await rest())) return undefined;
    const wanted = expected(before.guests, before.endpoints);
    const names = new Set(wanted.map(({ name }) => name));
    // An endpoint that is gone has no series in any of them.
    const ours = samples.filter(({ name }) => names.has(name) || name.startsWith("rpmsg_endpoint"));
    expect(sorted(ours)).toEqual(sorted(wanted));
    return before.endpoints;
  });
}

describe("/metrics", () => {
  test("has the figures of REST after traffic in both directions, and no others", async () => {
    const { url, connect, endpoint } = await testBridge({
      guests: {
        a: { kind: "emulated" },
        b: { kind: "emulated", endpoints: [{ name: "own", address: 1040 }] },
      },
    });
    const client = await connect("/ws/v1/a/echo");
    for (let i = 0; i < 10; i++) client.send("hello");
    await client.take(10);
    const burst = await connect("/ws/v1/b/source");
    burst.send("50 8");
    await burst.take(50);
    await endpoint("own", (each) => each.state === "connected");
    const endpoints = await expectSame(url);
    const by = (name: string, guest: string) =>
      endpoints.find((each) => each.name === name && each.guest === guest);
    expect(by("echo", "a")).toMatchObject({ clients: 1, counters: { accepted: 10, bytesFromGuest: 50 } });
    expect(by("source", "b")).toMatchObject({ clients: 1, counters: { accepted: 1, messagesToClients: 50 } });
    expect(by("own", "b")).toMatchObject({ origin: "host" });
  });

  test("has what waits in the guest's queues while they run", async () => {
    const { url, attach, connect, endpoint, guest } = await vhostBridge();
    const queues = async () => (await scrape(url)).filter(({ name }) => name === "rpmsg_guest_queue_waiting");
    expect(await queues()).toEqual([]);
    const valve = new Valve();
    const { vm } = await attach({ profile: "rpmsg-lite", services: { valve: valve.factory } });
    await endpoint("valve");
    const client = await connect("/ws/v1/vm/valve");
    for (let i = 0; i < 3; i++) client.send(`${i}`);
    await endpoint("valve", ({ counters }) => counters.messagesToGuest === 3);
    // It has 8 buffers, and gives none back.
    expect(await queues()).toEqual([
      { name: "rpmsg_guest_queue_waiting", labels: { guest: "vm", queue: "response" }, value: 5 },
      { name: "rpmsg_guest_queue_waiting", labels: { guest: "vm", queue: "request" }, value: 0 },
    ]);
    expect((await guest("vm")).waiting).toEqual({ response: 5, request: 0 });
    vm.close();
    await eventually("the guest is gone", async () =>
      (await guest("vm")).state === "waiting" ? true : undefined,
    );
    expect(await queues()).toEqual([]);
  });

  test("has what clients were too slow for", async () => {
    const { url, connect, endpoint } = await testBridge({ limits: { slowReaderBytes: 65_536 } });
    const slow = await connect("/ws/v1/demo/source?slow=drop-newest");
    slow.socket.pause();
    slow.send("100000 496");
    await endpoint("source", ({ counters }) => counters.messagesFromGuest === 100_000);
    const [source] = (await expectSame(url)).filter(({ name }) => name === "source");
    expect(source?.counters.dropped).toBeGreaterThan(1000);
    slow.socket.resume();
    // What was not dropped comes.
    const kept = 100_000 - (source?.counters.dropped ?? 0);
    await slow.take(kept);
    await expectSame(url);
  });

  test("what is gone has no metrics, and what comes again begins anew under the same path", async () => {
    const guest = new EmulatedGuest({ services: { echo, sink } });
    const { url } = await start({ board: guest });
    const metricsOf = async (path: string) =>
      (await scrape(url)).filter(
        ({ name, labels }) => name.startsWith("rpmsg_endpoint") && labels["path"] === path,
      );
    const { id } = (await expectSame(url)).find(({ name }) => name === "echo") ?? {};
    await supertest(url)
      .post(`/api/v1/guests/board/endpoints/${id}/messages`)
      .send({ data: "x" })
      .expect(202);
    const accepted = (samples: Series[]) =>
      samples.find(({ name }) => name === "rpmsg_endpoint_accepted_total");
    expect(accepted(await metricsOf("/ws/v1/board/echo"))?.value).toBe(1);
    guest.withdraw("sink");
    await guest.reboot();
    const endpoints = await expectSame(url);
    expect(endpoints.map(({ name, generation }) => [name, generation])).toEqual([
      ["echo", 2],
      ["sink", 2],
    ]);
    expect(accepted(await metricsOf("/ws/v1/board/echo"))?.value).toBe(0);
    guest.withdraw("sink");
    await eventually("sink is gone", async () => (await expectSame(url)).length === 1 || undefined);
    expect(await metricsOf("/ws/v1/board/sink")).toEqual([]);
  });

  test("says that a guest is not there yet", async () => {
    const { url, attach, guest } = await vhostBridge();
    await expectSame(url);
    expect((await guest("vm")).state).toBe("waiting");
    await attach();
    await expectSame(url);
  });

  test("names of any bytes do no harm", async () => {
    const names = [
      '"',
      "\\",
      "\n",
      '\\"',
      "\\n",
      '"} 1\n# ',
      "a,origin:host",
      "\r",
      "grüß",
      "\u202e",
      "\u0001",
      "{}",
    ];
    // Two more look alike: they are not UTF-8.
    const unspeakable: ServiceFactory = (context) => {
      for (const name of ["a\u00ff", "a\u00fe"]) {
        context.send(
          NAME_SERVICE_ADDRESS,
          encodeNameService({ name, address: context.address, created: true }),
        );
      }
      return echo(context);
    };
    const services = {
      ...Object.fromEntries(names.map((name) => [name, echo])),
      hidden: { service: unspeakable, ns: "none" as const, address: 2000 },
    };
    const guest = new EmulatedGuest({ services });
    const { url } = await start({ board: guest });
    const endpoints = await expectSame(url);
    expect(endpoints.map(({ name }) => name).toSorted()).toEqual([...names, "a\ufffd", "a\ufffd"].toSorted());
    const samples = await scrape(url);
    for (const name of names) {
      expect(samples.filter(({ labels }) => labels["endpoint"] === name).length).toBe(11);
    }
  });

  test("endpoints beyond the first 1000 have none, and how many is told", async () => {
    const { url, bridge, endpoint } = await testBridge({ limits: { declaredEndpoints: 2000 } });
    await endpoint("sink");
    for (let i = 0; i < 1200; i++) bridge.declare("demo", { name: `e${i}`, ns: "none", address: 5000 + i });
    const samples = await scrape(url);
    const value = (name: string) => samples.find((each) => each.name === name)?.value;
    expect([value("rpmsg_endpoints"), value("rpmsg_endpoints_without_metrics")]).toEqual([1205, 205]);
    for (const name of ["rpmsg_endpoint_clients", "rpmsg_endpoint_accepted_total"]) {
      expect(samples.filter((each) => each.name === name).length).toBe(1000);
    }
    // The oldest ones.
    expect(samples.some(({ labels }) => labels["endpoint"] === "e994")).toBe(true);
    expect(samples.some(({ labels }) => labels["endpoint"] === "e995")).toBe(false);
  });

  test("scrapes at the same time do not disturb each other", async () => {
    const { url, endpoint } = await testBridge();
    await endpoint("tty");
    const [first, ...others] = (await Promise.all(Array.from({ length: 8 }, () => scrape(url)))).map(
      (samples) =>
        sorted(
          // Each has a connection of its own.
          samples.filter(({ name }) => name.startsWith("rpmsg_") && name !== "rpmsg_bridge_connections"),
        ),
    );
    for (const other of others) expect(other).toEqual(first);
  });

  test("has the memory and the start of the process", async () => {
    const { url } = await testBridge();
    const samples = await scrape(url);
    const value = (name: string) => samples.find((each) => each.name === name)?.value ?? 0;
    expect(value("process_resident_memory_bytes")).toBeGreaterThan(10_000_000);
    expect(value("process_start_time_seconds")).toBeCloseTo(performance.timeOrigin / 1000, 3);
  });
});

async function start(guests: Record<string, EmulatedGuest>) {
  const bridge = await startBridge({ listen: "127.0.0.1:0", limits: { drainTimeout: 1000 } }, { guests });
  onTestFinished(() => bridge.close());
  return bridge;
}
