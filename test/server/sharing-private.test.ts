import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { Permit } from "../../server/access/permit.ts";
import type { ChannelEvents, ChannelPort, EndpointPort } from "../../server/endpoint-port.ts";
import { JsonClient } from "./json-client.ts";
import type { RunningBridge } from "./support.ts";
import { testBridge } from "./support.ts";

/** Dynamic addresses are 1024 to 65535. */
const ADDRESSES = 65_536 - 1024;

/** What a client does on its channel, without a connection: it counts the messages. */
class Listener implements ChannelEvents {
  messages = 0;
  onMessage(): void {
    this.messages++;
  }
  onWritable(): void {}
  onSent(): void {}
  onUndelivered(): void {}
  onUnconfirmed(): void {}
  onChanged(): void {}
  onEnd(): void {}
}

async function portOf(running: RunningBridge, name: string): Promise<EndpointPort> {
  const { id } = await running.endpoint(name);
  return running.bridge.directory.find("demo", { id }) as EndpointPort;
}

describe("a private client", () => {
  test("gets the replies that name it, and of others' none", async () => {
    const running = await testBridge();
    await running.endpoint("echo");
    const clients: JsonClient[] = [];
    for (let i = 0; i < 5; i++) clients.push(await JsonClient.open(running, "/ws/v1/demo/echo"));
    expect(new Set(clients.map((each) => each.hello.local)).size).toBe(5);
    for (let round = 0; round < 20; round++) {
      for (const [i, client] of clients.entries()) client.send(`${i}: ${round}`);
    }
    for (const [i, client] of clients.entries()) {
      const texts = await client.texts(20);
      expect(texts).toEqual(Array.from({ length: 20 }, (_, round) => `${i}: ${round}`));
      expect(await client.all()).toEqual([]);
    }
  });

  test("never gets the readings that one before it has started, however many have come in between", async () => {
    const running = await testBridge();
    const sensor = await portOf(running, "sensor");
    const first = await JsonClient.open(running, "/ws/v1/demo/sensor");
    first.send("start 1000");
    await first.texts(3);
    await first.close();
    const { local } = first.hello;
    const late = async () => (await running.guest("demo")).counters.unknownAddress;
    const before = await late();
    const listeners: Listener[] = [];
    const open: ChannelPort[] = [];
    // While its readings go on.
    while ((await late()) < before + 100) {
      for (let i = 0; i < 50; i++) {
        const listener = new Listener();
        const port = running.bridge.channels.open(sensor, {}, Permit.ofAll(false), listener);
        expect(port.local).not.toBe(local);
        listeners.push(listener);
        open.push(port);
      }
      await nextTurn();
      for (const port of open.splice(0, 25)) port.close();
    }
    expect(listeners.length).toBeGreaterThan(1000);
    expect(listeners.findIndex((each) => each.messages > 0)).toBe(-1);
    const next = await JsonClient.open(running, "/ws/v1/demo/sensor");
    next.send("what?");
    expect((await next.next("message")).data).toContain("error");
    expect(await next.all()).toEqual([]);
  });

  test("has an address that nobody had before, until all had their turn; then the one that is free for longest", async () => {
    const running = await testBridge();
    const echo = await portOf(running, "echo");
    const open = () => running.bridge.channels.open(echo, {}, Permit.ofAll(false), new Listener());
    const held = open();
    const seen = new Set([held.local]);
    const [first, second] = [open(), open()];
    for (const port of [first, second]) seen.add(port.local);
    second.close();
    first.close();
    while (seen.size < ADDRESSES) {
      const port = open();
      if (seen.has(port.local)) expect.unreachable(`${port.local} is used again`);
      seen.add(port.local);
      port.close();
    }
    // The space is used up: again, in the order in which they became free.
    const [next, after] = [open(), open()];
    expect([next.local, after.local]).toEqual([second.local, first.local]);
    expect(seen.has(held.local)).toBe(true);
    for (let i = 0; i < 1000; i++) expect(open().local).not.toBe(held.local);
  });
});

test("shared clients of an endpoint of the guest see every reply in the same order; private ones do not", async () => {
  const running = await testBridge();
  await running.endpoint("echo");
  const shared = [
    await JsonClient.open(running, "/ws/v1/demo/echo?share=shared"),
    await JsonClient.open(running, "/ws/v1/demo/echo?share=shared&encoding=hex"),
  ];
  const raw = await running.connect("/ws/v1/demo/echo?share=shared");
  const own = await JsonClient.open(running, "/ws/v1/demo/echo");
  expect(new Set(shared.map((each) => each.hello.local)).size).toBe(1);
  expect(own.hello.local).not.toBe(shared[0]?.hello.local);
  for (let i = 0; i < 30; i++) shared[i % 2]?.send(`${i}`);
  const heard = (await raw.take(30)).map(String);
  expect(heard.toSorted((a, b) => Number(a) - Number(b))).toEqual(
    Array.from({ length: 30 }, (_, i) => `${i}`),
  );
  expect(await shared[0]?.texts(30)).toEqual(heard);
  expect((await shared[1]?.texts(30))?.map((each) => Buffer.from(each, "hex").toString())).toEqual(heard);
  expect(await own.all()).toEqual([]);
});

test("clients of a service of the host see what the guest sends to it; each counts for itself", async () => {
  const endpoints = [{ name: "raw", address: 1040 }];
  const running = await testBridge({ guests: { demo: { kind: "emulated", endpoints } } });
  await running.endpoint("raw", (each) => each.state === "connected");
  const first = await JsonClient.open(running, "/ws/v1/demo/raw");
  first.send("one");
  expect(await first.next("message")).toMatchObject({ seq: 1, data: "one" });
  expect(first.hello.local).toBe(1040);
  const second = await JsonClient.open(running, "/ws/v1/demo/raw?share=shared");
  const own = await JsonClient.open(running, "/ws/v1/demo/raw?share=private");
  second.send("two");
  expect(await second.next("message")).toMatchObject({ seq: 1, data: "two" });
  expect(await first.next("message")).toMatchObject({ seq: 2, data: "two" });
  own.send("mine");
  expect(await own.next("message")).toMatchObject({ seq: 1, data: "mine" });
  expect([await first.all(), await second.all()]).toEqual([[], []]);
  expect((await running.endpoint("raw")).counters).toMatchObject({
    accepted: 3,
    messagesToGuest: 3,
    // The first one, with which the guest introduced itself, found nobody; "two" went to two.
    messagesFromGuest: 4,
    noClient: 1,
    messagesToClients: 4,
  });
  for (const client of [first, second, own]) await client.close();
  // What comes when they have left is for nobody.
  const { id } = await running.endpoint("raw", (each) => each.clients === 0);
  const response = await fetch(`${running.url}/api/v1/guests/demo/endpoints/${id}/messages`, {
    method: "POST",
    headers: { "content-type": "application/octet-stream" },
    body: "echo this",
  });
  expect(response.status).toBe(202);
  const { counters } = await running.endpoint("raw", (each) => each.counters.messagesFromGuest === 5);
  expect(counters).toMatchObject({ noClient: 2, messagesToClients: 4 });
});
