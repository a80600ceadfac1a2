import { describe, expect, test } from "vitest";
import type { ServiceContext } from "../../guest/service.ts";
import { fullValve, JsonClient, jsonValve } from "./json-client.ts";
import { eventually, testBridge } from "./support.ts";
import { Valve, vhostBridge } from "./vhost-guest.ts";

/** The guest's memory is in a process of its own. */
const isIsolated = process.env["RPMSG_TEST_ISOLATION"] === "process";

/** A guest that does not care for the host's service `raw`, at 1040, and says nothing before it is told to. */
async function silentGuest() {
  const running = await vhostBridge({}, { endpoints: [{ name: "raw", address: 1040 }] });
  const valve = new Valve(true);
  await running.attach({ services: { speaker: valve.factory }, otherService: () => undefined });
  const { address } = await running.endpoint("speaker");
  await running.endpoint("raw", (each) => each.state === "announced");
  const open = (query = "") => JsonClient.open(running, `/ws/v1/vm/raw${query}`);
  return { ...running, open, valve, address, speaker: valve.context as ServiceContext };
}

const fillers = (count: number) => Array.from({ length: count }, (_, i) => `filler ${i}`);

describe("sent", () => {
  test("is answered for a message with an id, whatever the id, and only for one", async () => {
    const running = await testBridge();
    await running.endpoint("sink");
    const client = await JsonClient.open(running, "/ws/v1/demo/sink");
    const ids = [0, "", "0", -1, Number.MAX_SAFE_INTEGER, "x".repeat(64), "\u{1f4a1}", 0];
    for (const id of ids) {
      client.send("without");
      client.send("with", { id });
    }
    expect(await client.all()).toEqual(ids.map((id) => ({ type: "sent", id })));
  });

  test("means that the message is in the guest's response queue; what waits is told when it is", async () => {
    const { client, valve, release, emulated, counters } = await fullValve();
    for (let i = 8; i < 12; i++) client.send(`filler ${i}`, { id: i });
    expect(await client.all()).toEqual([]);
    expect(await counters()).toMatchObject({ accepted: 12, messagesToGuest: 8, undelivered: 0 });
    release();
    for (let i = 8; i < 12; i++) {
      expect(await client.next("sent")).toEqual({ type: "sent", id: i });
      // The guest finds it at once, without anything more of the bridge; of an isolated one the relay has it then.
      if (isIsolated) {
        await eventually(`message ${i}`, () => (valve.taken.length > i ? true : undefined));
      } else {
        emulated.called();
        expect(valve.taken.length).toBeGreaterThan(i);
      }
    }
    expect(valve.taken.map(String)).toEqual(fillers(12));
    expect(await counters()).toMatchObject({ accepted: 12, messagesToGuest: 12, undelivered: 0 });
  });

  test("is not answered while the guest is paused, however long, and is after it", async () => {
    const { open, valve, vm } = await jsonValve({ sendTimeout: 30 });
    valve.open = true;
    const client = await open();
    await vm.pause();
    expect((await client.next("state")).guestState).toBe("suspended");
    client.send("while paused", { id: "a" });
    client.send("too", { id: "b", timeout: 1 });
    const until = performance.now() + 100;
    await eventually("time", () => (performance.now() > until ? true : undefined));
    expect(await client.all()).toEqual([]);
    await vm.resume();
    expect((await client.next("state")).guestState).toBe("attached");
    expect(await client.take(2)).toEqual([
      { type: "sent", id: "a" },
      { type: "sent", id: "b" },
    ]);
    await eventually("both", () => valve.taken[1]);
    expect(valve.taken.map(String)).toEqual(["while paused", "too"]);
  });
});

describe("no-buffer: a guest that posts no buffers", () => {
  test("each message has its own time: the later one with the shorter one fails first, the rest arrives in order", async () => {
    const { client, valve, release, counters } = await fullValve();
    client.send("long", { id: "long", timeout: 60_000 });
    client.send("short", { id: "short", timeout: 30 });
    client.send("usual", { id: "usual" });
    client.send("middle", { id: "middle", timeout: 60 });
    client.send("nameless", { timeout: 90 });
    expect(await client.next("error")).toMatchObject({ id: "short", code: "no-buffer" });
    expect(await client.next("error")).toMatchObject({ id: "middle", code: "no-buffer" });
    const nameless = await client.next("error");
    expect(nameless.code).toBe("no-buffer");
    expect(nameless).not.toHaveProperty("id");
    expect(await client.all()).toEqual([]);
    release();
    expect(await client.take(2)).toEqual([
      { type: "sent", id: "long" },
      { type: "sent", id: "usual" },
    ]);
    await eventually("all", () => valve.taken[9]);
    expect(valve.taken.map(String)).toEqual([...fillers(8), "long", "usual"]);
    client.send("afterwards", { id: "afterwards" });
    expect(await client.next("sent")).toEqual({ type: "sent", id: "afterwards" });
    expect(await counters()).toMatchObject({ accepted: 14, messagesToGuest: 11, undelivered: 3 });
  });

  test("a message that says no time has that of the configuration", async () => {
    const { client } = await fullValve({ sendTimeout: 40 });
    client.send("longer", { id: "longer", timeout: 60_000 });
    client.send("usual", { id: "usual" });
    expect(await client.next("error")).toMatchObject({ id: "usual", code: "no-buffer" });
    expect(await client.all()).toEqual([]);
  });
});

describe("no-peer: a service of the host to which the guest has not spoken", () => {
  test("a message without dst fails after its time", async () => {
    const { open, endpoint } = await silentGuest();
    const client = await open();
    expect(client.hello.endpointState).toBe("announced");
    client.send("hello?", { id: 1, timeout: 30 });
    expect(await client.next("error")).toMatchObject({ id: 1, code: "no-peer" });
    expect((await endpoint("raw")).counters).toMatchObject({ accepted: 1, undelivered: 1 });
  });

  test("it is delivered where the guest speaks in time", async () => {
    const { open, valve, speaker, address } = await silentGuest();
    const client = await open();
    client.send("early", { id: 1 });
    client.send("bird");
    expect(await client.all()).toEqual([]);
    speaker.send(1040, Buffer.from("here I am"));
    expect(await client.next("state")).toMatchObject({ state: "up", endpointState: "connected" });
    expect((await client.take(2)).map(({ type }) => type).toSorted()).toEqual(["message", "sent"]);
    await eventually("both", () => valve.taken[1]);
    expect(valve.taken.map(String)).toEqual(["early", "bird"]);
    expect(valve.sources).toEqual([1040, 1040]);
    client.send("now", { id: 2, dst: address as number });
    expect(await client.next("sent")).toEqual({ type: "sent", id: 2 });
  });

  test("it fails while no guest is there, too", async () => {
    const running = await vhostBridge({}, { endpoints: [{ name: "raw", address: 1040 }] });
    const client = await JsonClient.open(running, "/ws/v1/vm/raw");
    client.send("anybody?", { id: 1, timeout: 30 });
    expect(await client.next("error")).toMatchObject({ id: 1, code: "no-peer" });
  });

  test("what waits behind it for another address goes out when it has failed", async () => {
    const { open, valve, speaker, address } = await silentGuest();
    const client = await open("?share=private&local=2000");
    // The guest speaks to this client, and not to the service.
    speaker.send(2000, Buffer.from("psst"));
    await client.next("message");
    client.send("to the service's peer", { id: "a", timeout: 30 });
    client.send("to you", { id: "b", dst: address as number, timeout: 5000 });
    expect(await client.next("error")).toMatchObject({ id: "a", code: "no-peer" });
    expect(await client.next("sent")).toEqual({ type: "sent", id: "b" });
    await eventually("it", () => valve.taken[0]);
    expect(valve.taken.map(String)).toEqual(["to you"]);
  });
});

describe("too-large", () => {
  test("is answered at once with the id, the longest message is taken, and the socket stays", async () => {
    const { open, valve, counters } = await jsonValve();
    valve.open = true;
    const client = await open();
    expect(client.hello.mtu).toBe(496);
    client.send("x".repeat(497), { id: "over" });
    client.send("\u00fc".repeat(249), { id: "over in bytes" });
    client.send("00".repeat(497), { encoding: "hex" });
    client.send("x".repeat(496), { id: "longest" });
    for (const id of ["over", "over in bytes", undefined]) {
      const error = await client.next("error");
      expect(error.code).toBe("too-large");
      expect(error.id).toBe(id);
    }
    expect(await client.next("sent")).toEqual({ type: "sent", id: "longest" });
    await eventually("it", () => valve.taken[0]);
    expect(valve.taken.map(String)).toEqual(["x".repeat(496)]);
    expect(await counters()).toMatchObject({ accepted: 1, undelivered: 0 });
  });

  test("while the guest is paused, too", async () => {
    const { open, vm } = await jsonValve();
    const client = await open();
    await vm.pause();
    await client.next("state");
    client.send("x".repeat(497), { id: 1 });
    expect(await client.next("error")).toMatchObject({ id: 1, code: "too-large" });
  });
});

describe("a client that sends more than the guest takes", () => {
  test.each([
    [0, 20_000],
    [1, 20_000],
    [300, 5000],
  ])("is held up and loses nothing, and no queue is ever full: messages of %i bytes", async (size, count) => {
    const { open, valve, vm, release, counters } = await jsonValve();
    const client = await open();
    await vm.pause();
    await client.next("state");
    const textOf = (i: number) => `${i}`.padEnd(size, ".").slice(0, size);
    for (let i = 0; i < count; i++) client.send(textOf(i), { id: i });
    // The bridge stops reading: what it has taken grows no more.
    let last = -1;
    for (let now = 0, still = 0; still < 20; now = (await counters()).accepted) {
      still = now === last && now > 0 ? still + 1 : 0;
      last = now;
    }
    expect(last).toBeLessThan(count);
    expect(last * (16 + size)).toBeLessThanOrEqual(65_536 + 128 * 1024);
    expect(client.received).toBe(0);
    await vm.resume();
    release();
    await client.next("state");
    const results = await client.take(count);
    expect(results.findIndex((each, i) => each.type !== "sent" || each.id !== i)).toBe(-1);
    await eventually("all of them", () => (valve.taken.length === count ? true : undefined));
    expect(valve.taken.findIndex((each, i) => each.toString() !== textOf(i))).toBe(-1);
    expect(await counters()).toMatchObject({ accepted: count, messagesToGuest: count, undelivered: 0 });
  });

  test("and does not read the answers is closed with 1013", async () => {
    const { open, endpoint, counters } = await jsonValve({ slowReaderBytes: 4096 });
    const client = await open();
    client.socket.pause();
    for (let i = 0; i < 1000; i++) client.write({ type: "nonsense", id: i });
    await endpoint("valve", (each) => each.clients === 0);
    client.socket.resume();
    expect((await client.closed).code).toBe(1013);
    expect((await counters()).accepted).toBe(0);
  });
});
