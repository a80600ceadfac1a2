import { once } from "node:events";
import { connect } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import type { Endpoint } from "../../schemas/index.ts";
import { titled, unsupported } from "../rpmsg/posix/support.ts";
import { Watcher } from "./events-watcher.ts";
import { Answering, guestBridge, HOST } from "./name-service-guest.ts";
import type { RunningBridge } from "./support.ts";
import { eventually, testBridge } from "./support.ts";

/** How many watch the bridge. */
function countWatchers({ bridge }: RunningBridge): () => number {
  const { events } = bridge;
  const subscribe = events.subscribe.bind(events);
  let count = 0;
  events.subscribe = (listener) => {
    count++;
    const leave = subscribe(listener);
    return () => {
      count--;
      leave();
    };
  };
  return () => count;
}

/** Connects, asks for the events, and reads nothing. */
async function watchWithoutReading(url: string): Promise<void> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  onTestFinished(() => {
    socket.destroy();
  });
  await once(socket, "connect");
  socket.pause();
  socket.write(`GET /api/v1/events HTTP/1.1\r\nHost: ${hostname}\r\n\r\n`);
}

describe("a watcher that does not read", () => {
  test("is ended when too much waits, and holds up nobody else", async () => {
    const running = await testBridge();
    const watchers = countWatchers(running);
    await watchWithoutReading(running.url);
    await eventually("it is there", () => (watchers() === 1 ? true : undefined));
    const reader = await Watcher.ready(running.url);
    expect(watchers()).toBe(2);
    const { bridge } = running;
    let bytes = 0;
    let told = 0;
    await eventually("it is ended", async () => {
      for (let i = 0; i < 100; i++) {
        const guest = bridge.guest("demo");
        bridge.events.publish("guest", guest, { guest: "demo" });
        bytes += JSON.stringify(guest).length;
        told++;
      }
      await reader.until("the reader has them", () => reader.lastId === bridge.events.latest);
      return watchers() === 1 ? true : undefined;
    });
    // Not at once, and before much more than 4 MiB and what the kernel takes were told.
    expect(bytes).toBeGreaterThan(2 ** 22 / 2);
    expect(bytes).toBeLessThan(2 ** 26);
    expect(reader.changes).toHaveLength(told);
    reader.close();
    await eventually("nobody watches", () => (watchers() === 0 ? true : undefined));
  });

  test("and one that leaves is not told any more", async () => {
    const running = await testBridge();
    const watchers = countWatchers(running);
    const all = await Promise.all(Array.from({ length: 20 }, () => Watcher.ready(running.url)));
    expect(watchers()).toBe(20);
    for (const each of all.slice(1)) each.close();
    await eventually("one is left", () => (watchers() === 1 ? true : undefined));
    await running.connect("/ws/v1/demo/echo");
    await all[0]?.change(({ data }) => (data as Endpoint).clients === 1);
  });
});

describe("more than may wait for a watcher", () => {
  // More than 4 MiB of them.
  const COUNT = 12_000;

  test("as the current state comes whole", async () => {
    const endpoints = Array.from({ length: COUNT }, (_, i) => ({ name: `endpoint-${i}`, ns: "up" as const }));
    const running = await testBridge({
      guests: { big: { kind: "emulated", endpoints } },
      limits: { declaredEndpoints: COUNT },
    });
    const { bridge } = running;
    const subscribe = bridge.events.subscribe.bind(bridge.events);
    // Something happens before any of it was read.
    bridge.events.subscribe = (listener) => {
      const leave = subscribe(listener);
      bridge.events.publish("guest", bridge.guest("big"), { guest: "big" });
      return leave;
    };
    const watcher = await Watcher.ready(running.url);
    expect(watcher.endpoints.size).toBe(COUNT + 5);
    const client = await running.connect("/ws/v1/big/endpoint-7");
    const event = await watcher.change(({ data }) => (data as Endpoint).clients === 1);
    expect(event.data).toMatchObject({ name: "endpoint-7" });
    await client.close();
  });

  test("as what was missed does, too", async () => {
    const running = await testBridge();
    const watcher = await Watcher.ready(running.url);
    watcher.close();
    const { bridge } = running;
    const [endpoint] = await running.endpoints();
    if (endpoint === undefined) throw new Error("no endpoint");
    let bytes = 0;
    // As many as are kept.
    for (let i = 0; i < 4096; i++) {
      const event = { ...endpoint, id: `e${i}`, name: "\u0001".repeat(31), path: "/".repeat(700) };
      bytes += JSON.stringify(event).length;
      bridge.events.publish("endpoint", event, event);
    }
    expect(bytes).toBeGreaterThan(2 ** 22);
    const resumed = await Watcher.ready(running.url, watcher.lastId, watcher);
    expect(resumed.seen).toHaveLength(4097);
  });
});

describe.skipIf(unsupported !== undefined)(titled("a guest whose address changes with every message"), () => {
  test("is told now and then, and at the end as it is", async () => {
    const answering = new Answering();
    const { running, attach } = await guestBridge([{ name: "svc", ns: "none", address: HOST }], {
      services: Object.fromEntries(
        Array.from({ length: 8 }, (_, i) => [
          `s${i}`,
          { service: answering.factory, ns: "none" as const, address: 100 + i },
        ]),
      ),
    });
    await attach();
    const { id } = await running.endpoint("svc");
    const watcher = await Watcher.ready(running.url);
    const begun = performance.now();
    let sent = 0;
    while (sent < 2000) {
      for (const context of answering.contexts) {
        if (context.send(HOST, Buffer.from("x"))) sent++;
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
    const last = await running.endpoint("svc", (each) => each.counters.messagesFromGuest >= sent);
    await watcher.until("the last", () => watcher.endpoints.get(id)?.peer === last.peer);
    const events = watcher.changes.length;
    expect(events).toBeGreaterThan(0);
    expect(events).toBeLessThanOrEqual((performance.now() - begun) / 20 + 3);
    expect(events).toBeLessThan(sent / 2);
  });
});
