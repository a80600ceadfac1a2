import { describe, expect, test } from "vitest";
import type { Frame } from "./json-client.ts";
import { JsonClient, jsonValve } from "./json-client.ts";
import { eventually, testBridge } from "./support.ts";
import { Valve, vhostBridge } from "./vhost-guest.ts";

const RAW = { endpoints: [{ name: "raw", address: 1040 }] };

function statesOf({ state, guestState, endpointState, generation }: Frame<"state">): unknown[] {
  return [state, guestState, endpointState, generation];
}

test("a client of the host's service sees the guest come, and how far the announcement is", async () => {
  const running = await vhostBridge({}, RAW);
  const client = await JsonClient.open(running, "/ws/v1/vm/raw");
  expect(client.hello).toMatchObject({ guestState: "waiting", endpointState: "declared", generation: 1 });
  await running.attach();
  const states: unknown[] = [];
  for (let frame = await client.next("state"); ; frame = await client.next("state")) {
    states.push(statesOf(frame));
    if (frame.endpointState === "connected") break;
  }
  expect(states).toEqual([
    ["up", "detached", "declared", 1],
    ["up", "attached", "declared", 1],
    ["up", "attached", "announced", 1],
    ["up", "attached", "connected", 1],
  ]);
  // The guest's first message, which tells its address.
  expect(await client.next("message")).toMatchObject({ seq: 1, data: "" });
  client.send("hello");
  expect(await client.next("message")).toMatchObject({ seq: 2, data: "hello" });
});

test("state is told on change only: not for messages, other clients, another peer or another half", async () => {
  const running = await vhostBridge({}, { endpoints: [{ name: "raw", address: 1040, ns: "both" }] });
  const [one, other] = [new Valve(true), new Valve(true)];
  const services = { one: one.factory, other: other.factory };
  const { guest } = await running.attach({ services, otherService: () => undefined });
  await running.endpoint("raw", (each) => each.state === "announced");
  const client = await JsonClient.open(running, "/ws/v1/vm/raw");
  one.context?.send(1040, Buffer.from("hello"));
  expect(await client.next("state")).toMatchObject({ state: "up", endpointState: "connected" });
  expect(await client.texts(1)).toEqual(["hello"]);
  const second = await JsonClient.open(running, "/ws/v1/vm/raw");
  for (let i = 0; i < 5; i++) {
    for (const valve of [other, one]) valve.context?.send(1040, Buffer.from(`${i}`));
    client.send(`${i}`);
  }
  await running.endpoint("raw", (each) => each.counters.messagesFromGuest === 11);
  await second.close();
  guest.announce("raw", other.factory);
  guest.announce("later", other.factory);
  await running.endpoint("later");
  expect((await client.all()).map(({ type }) => type)).toEqual(Array.from({ length: 10 }, () => "message"));
});

test("a pause is told by state, nothing closes and nothing is lost in either direction", async () => {
  const { open, valve, vm, guest } = await jsonValve();
  valve.open = true;
  const client = await open("?local=2000");
  const heard: string[] = [];
  for (let round = 0; round < 3; round++) {
    await vm.pause();
    expect(statesOf(await client.next("state"))).toEqual(["up", "suspended", "connected", 1]);
    for (let i = 0; i < 20; i++) client.send(`${round}: ${i}`, { id: i });
    // The guest's own messages find their way when it runs again.
    for (let i = 0; i < 5; i++) valve.context?.send(2000, Buffer.from(`${round}: ${i}`));
    expect(await client.all()).toEqual([]);
    await vm.resume();
    expect(statesOf(await client.next("state"))).toEqual(["up", "attached", "connected", 1]);
    const frames = await client.take(25);
    expect(frames.filter((each) => each.type === "sent").map(({ id }) => id)).toEqual([...Array(20).keys()]);
    heard.push(...frames.filter((each) => each.type === "message").map(({ data }) => data));
  }
  await eventually("all", () => valve.taken[59]);
  const expected = (count: number) =>
    [0, 1, 2].flatMap((round) => [...Array(count).keys()].map((i) => `${round}: ${i}`));
  expect(valve.taken.map(String)).toEqual(expected(20));
  expect(heard).toEqual(expected(5));
  expect(await guest("vm")).toMatchObject({ generation: 1 });
});

describe("an endpoint that is withdrawn", () => {
  const WITHDRAWN = { code: 4002, reason: "endpoint withdrawn" };

  test("by the guest: state down, withdrawn, then 4002", async () => {
    const running = await vhostBridge();
    const { guest } = await running.attach();
    await running.endpoint("sink");
    const clients = [
      await JsonClient.open(running, "/ws/v1/vm/echo"),
      await JsonClient.open(running, "/ws/v1/vm/echo?share=shared"),
    ];
    const other = await JsonClient.open(running, "/ws/v1/vm/sink");
    guest.withdraw("echo");
    for (const client of clients) {
      expect(await client.closed).toEqual(WITHDRAWN);
      const [frame, ...more] = await client.take(client.received);
      expect(frame).toMatchObject({ type: "state", state: "down", reason: "withdrawn", generation: 1 });
      expect(more).toEqual([]);
    }
    expect(await other.all()).toEqual([]);
  });

  test("over HTTP: the same", async () => {
    const running = await testBridge({ guests: { demo: { kind: "emulated", ...RAW } } });
    const { id } = await running.endpoint("raw", (each) => each.state === "connected");
    const client = await JsonClient.open(running, "/ws/v1/demo/raw");
    const deleted = await fetch(`${running.url}/api/v1/guests/demo/endpoints/${id}`, { method: "DELETE" });
    expect(deleted.status).toBe(204);
    expect(await client.closed).toEqual(WITHDRAWN);
    const frames = await client.take(client.received);
    expect(frames).toEqual([expect.objectContaining({ type: "state", state: "down", reason: "withdrawn" })]);
  });

  test("answers what waited: each id has its result before state down", async () => {
    const running = await vhostBridge({}, RAW);
    const { id } = await running.endpoint("raw");
    const client = await JsonClient.open(running, "/ws/v1/vm/raw");
    client.send("one", { id: 1 });
    client.send("two", { id: 2 });
    expect(await client.all()).toEqual([]);
    await fetch(`${running.url}/api/v1/guests/vm/endpoints/${id}`, { method: "DELETE" });
    expect(await client.closed).toEqual(WITHDRAWN);
    expect(await client.take(client.received)).toEqual([
      expect.objectContaining({ type: "error", id: 1, code: "endpoint-gone" }),
      expect.objectContaining({ type: "error", id: 2, code: "endpoint-gone" }),
      expect.objectContaining({ type: "state", state: "down", reason: "withdrawn" }),
    ]);
  });
});
