import { describe, expect, test } from "vitest";
import type { EmulatedGuestOptions } from "../../guest/index.ts";
import { EmulatedGuest, echo } from "../../guest/index.ts";
import type { Endpoint, EventData, Guest } from "../../schemas/index.ts";
import { titled, unsupported } from "../rpmsg/posix/support.ts";
import type { SeenEvent } from "./events-watcher.ts";
import { listedView, Watcher } from "./events-watcher.ts";
import { emulatedBridge } from "./mux-client.ts";
import type { Declaration } from "./name-service-guest.ts";
import { Answering, call, DEAF, guestBridge, HOST } from "./name-service-guest.ts";
import { eventually, testBridge } from "./support.ts";

/** An event in few words. */
function short({ name, data }: SeenEvent): string {
  if (name === "guest") {
    const { name: guest, state, generation } = data as Guest;
    return `${guest} ${state} ${generation}`;
  }
  if (name === "endpoint") {
    const { name: endpoint, origin, state, generation, clients } = data as Endpoint;
    return `${endpoint} of the ${origin} ${state} ${generation}${clients > 0 ? `, ${clients} clients` : ""}`;
  }
  if (name === "endpoint-removed") return `no ${(data as EventData<"endpoint-removed">).name}`;
  return name;
}

/** Waits until the watcher has seen as much as the lists show, and gives what came since. */
async function settled(running: { url: string }, watcher: Watcher, since = 0): Promise<string[]> {
  await eventually("the watcher knows all", async () => {
    const expected = await listedView(running.url);
    return JSON.stringify(watcher.view) === JSON.stringify(expected) ? true : undefined;
  });
  return watcher.changes.slice(since).map(short);
}

describe("the stream of events", () => {
  test("is text/event-stream, and never from a cache", async () => {
    const { url } = await testBridge();
    const { headers } = await Watcher.ready(url);
    expect(headers).toMatchObject({ "content-type": "text/event-stream", "cache-control": "no-store" });
  });

  test("begins with all guests, then all endpoints, without ids, then ready with the bridge and the id", async () => {
    const running = await testBridge({
      guests: {
        a: {
          kind: "emulated",
          endpoints: [
            { name: "raw", address: HOST },
            { name: "up", ns: "up" },
          ],
        },
        b: { kind: "emulated", profile: "openamp" },
      },
    });
    await running.endpoint("raw", (each) => each.state === "connected");
    const { seen } = await Watcher.ready(running.url);
    const at = seen.findIndex(({ name }) => name === "ready");
    const state = seen.slice(0, at);
    expect(state.map(({ name }) => name)).toEqual([...Array(2).fill("guest"), ...Array(12).fill("endpoint")]);
    const data = state.map((each) => each.data);
    expect(data.slice(0, 2)).toEqual([await running.guest("a"), await running.guest("b")]);
    expect(data.slice(2)).toEqual(await running.endpoints());
    expect(new Set(state.map(({ id }) => id))).toEqual(new Set([undefined]));
    const { instance } = running.bridge;
    expect(seen[at]?.data).toEqual({ instance });
    expect(seen[at]?.id).toMatch(new RegExp(`^${instance}:\\d+$`));
  });

  test("goes on with what changes, each with the next id", async () => {
    const running = await testBridge();
    const watcher = await Watcher.ready(running.url);
    const body = JSON.stringify({ name: "x", ns: "none", address: HOST });
    const headers = { "content-type": "application/json" };
    const base = `${running.url}/api/v1/guests/demo/endpoints`;
    const { id } = (await (await fetch(base, { method: "POST", headers, body })).json()) as Endpoint;
    const client = await running.connect("/ws/v1/demo/x");
    await watcher.change(({ data }) => (data as Endpoint).id === id && (data as Endpoint).clients === 1);
    await client.close();
    await watcher.until("nobody is there", () => watcher.endpoints.get(id)?.clients === 0);
    await fetch(`${base}/${id}`, { method: "DELETE" });
    await watcher.until("it is gone", () => !watcher.endpoints.has(id));
    expect(watcher.changes.map(short)).toEqual([
      "x of the host declared 1",
      "x of the host declared 1, 1 clients",
      "x of the host declared 1",
      "no x",
    ]);
    expect(watcher.changes.at(-1)?.data).toEqual({ id, guest: "demo", name: "x", generation: 1 });
    const numbers = watcher.seen
      .slice(watcher.seen.findIndex(({ name }) => name === "ready"))
      .map((each) => Number(each.id?.split(":")[1]));
    expect(numbers).toEqual(numbers.map((_, i) => (numbers[0] ?? 0) + i));
  });

  test("counters alone are no event", async () => {
    const running = await testBridge();
    const client = await running.connect("/ws/v1/demo/echo");
    await running.endpoint("echo", (each) => each.clients === 1);
    const watcher = await Watcher.ready(running.url);
    await settled(running, watcher);
    const before = watcher.changes.length;
    for (let i = 0; i < 50; i++) client.send("x");
    await client.take(50);
    // What comes next is of something else.
    const other = await running.connect("/ws/v1/demo/tty");
    const next = await watcher.change(
      ({ name, data }) => name === "endpoint" && (data as Endpoint).name === "tty",
    );
    expect(watcher.changes.slice(before)).toEqual([next]);
    await other.close();
  });

  test("several watchers see the same events with the same ids", async () => {
    const running = await testBridge();
    const watchers = [await Watcher.ready(running.url), await Watcher.ready(running.url)];
    for (let i = 0; i < 5; i++) {
      const client = await running.connect("/ws/v1/demo/echo");
      if (i === 2) watchers.push(await Watcher.ready(running.url));
      await client.close();
    }
    const last = await running.connect("/ws/v1/demo/tty");
    for (const watcher of watchers) {
      await watcher.change(({ data }) => (data as Endpoint).name === "tty");
    }
    const [first, second, late] = watchers.map((each) => each.changes);
    expect(second).toEqual(first);
    expect(late).toEqual(first?.slice(-(late?.length ?? 0)));
    expect(late?.length).toBeGreaterThan(0);
    await last.close();
  });

  test("HEAD has the head, and an end", async () => {
    const { url } = await testBridge();
    const response = await fetch(`${url}/api/v1/events`, { method: "HEAD" });
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("text/event-stream");
    expect(await response.text()).toBe("");
  });

  test("ends with the bridge", async () => {
    const running = await testBridge();
    const watcher = await Watcher.ready(running.url);
    await running.close();
    await expect(watcher.ended).resolves.toBeUndefined();
  });
});

/** A bridge with the guest `demo` of this process, and a watcher that knows all there is. */
async function watched(options: EmulatedGuestOptions = {}, endpoints: Declaration[] = []) {
  const demo = new EmulatedGuest(options);
  const running = await emulatedBridge({ demo }, { guests: { demo: { kind: "emulated", endpoints } } });
  const watcher = await Watcher.ready(running.url);
  await settled(running, watcher);
  const before = watcher.changes.length;
  return { demo, running, watcher, since: () => settled(running, watcher, before) };
}

describe("what happens to a guest of this process", () => {
  test("a reboot is down, then up with the next generation; endpoints of the guest go and come anew", async () => {
    const { demo, watcher, since } = await watched({}, [{ name: "raw", ns: "none", address: HOST }]);
    const ids = new Set(watcher.endpoints.keys());
    await demo.reboot();
    const events = await since();
    const at = (text: string) => events.indexOf(text);
    expect(events.filter((each) => each.startsWith("demo "))).toEqual([
      ...["demo suspended 1", "demo detached 2", "demo attached 2"],
    ]);
    for (const name of ["echo", "tty", "sensor", "source", "sink"]) {
      expect(at(`no ${name}`)).toBeGreaterThan(at("demo suspended 1"));
      expect(at(`no ${name}`)).toBeLessThan(at("demo attached 2"));
      expect(at(`${name} of the guest connected 2`)).toBeGreaterThan(at("demo attached 2"));
    }
    // Of what stays there is the new generation, before the guest is up again.
    expect(events.filter((each) => each.startsWith("raw "))).toEqual(["raw of the host declared 2"]);
    expect(at("raw of the host declared 2")).toBeLessThan(at("demo attached 2"));
    const raw = [...watcher.endpoints.values()].find(({ name }) => name === "raw");
    expect([...watcher.endpoints.keys()].filter((id) => ids.has(id))).toEqual([raw?.id]);
  });

  test("clients that a reset ends are counted out", async () => {
    const { demo, running, watcher } = await watched({}, [
      { name: "raw", ns: "none", address: HOST, peer: 7 },
    ]);
    const client = await running.connect("/ws/v1/demo/raw");
    const raw = () => [...watcher.endpoints.values()].find(({ name }) => name === "raw");
    await watcher.until("one client", () => raw()?.clients === 1);
    await demo.reboot();
    expect((await client.closed).code).toBe(4001);
    await watcher.until("none", () => raw()?.clients === 0 && raw()?.generation === 2);
    expect(raw()?.state).toBe("connected");
  });

  test("a pause is suspended and attached again, and nothing besides", async () => {
    const { demo, since } = await watched();
    await demo.pause();
    await demo.resume();
    expect(await since()).toEqual(["demo suspended 1", "demo attached 1"]);
  });

  test("announcements and withdrawals of the guest", async () => {
    const { demo, since, watcher } = await watched({ services: {} });
    demo.announce("a", echo, 2000);
    await watcher.change(({ data }) => (data as Endpoint).name === "a");
    demo.announce("b", echo);
    await watcher.change(({ data }) => (data as Endpoint).name === "b");
    demo.withdraw("a");
    await watcher.change(({ name }) => name === "endpoint-removed");
    demo.announce("a", echo, 2000);
    expect(await since()).toEqual([
      "a of the guest connected 1",
      "b of the guest connected 1",
      "no a",
      "a of the guest connected 1",
    ]);
    const ids = watcher.changes.map(({ data }) => (data as Endpoint).id);
    // What is gone is the one that was there; what comes again is another one.
    expect(ids[2]).toBe(ids[0]);
    expect(new Set(ids).size).toBe(3);
  });

  test("what the host declares is told as it goes on: told to the guest, its peer known, withdrawn", async () => {
    const { demo, running, watcher, since } = await watched({ services: {}, otherService: () => echo });
    demo.faults.delay = DEAF;
    const base = `${running.url}/api/v1/guests/demo/endpoints`;
    const { id } = (await (
      await fetch(base, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ name: "x" }),
      })
    ).json()) as Endpoint;
    await watcher.until("announced", () => watcher.endpoints.get(id)?.state === "announced");
    demo.faults.delay = 0;
    await watcher.until("connected", () => watcher.endpoints.get(id)?.state === "connected");
    expect(watcher.endpoints.get(id)?.peer).toBe(1024);
    await fetch(`${base}/${id}`, { method: "DELETE" });
    await watcher.until("gone", () => !watcher.endpoints.has(id));
    const events = await since();
    expect(events.at(-1)).toBe("no x");
    expect(events).toContain("x of the host connected 1");
  });
});

describe.skipIf(unsupported !== undefined)(titled("what happens to a guest behind a socket"), () => {
  test("it comes, is paused, reboots and leaves: every state, in order", async () => {
    const { running, attach } = await guestBridge(
      [
        { name: "raw", ns: "none", address: HOST },
        { name: "svc", ns: "up" },
      ],
      { services: { svc: { service: new Answering().factory, ns: "up" } } },
    );
    const watcher = await Watcher.ready(running.url);
    expect(watcher.view.guests).toMatchObject([{ state: "waiting", features: null, queues: null }]);
    const states = (): string[] => watcher.changes.filter(({ name }) => name === "guest").map(short);
    const svc = () => [...watcher.endpoints.values()].find(({ name }) => name === "svc");
    const { vm, closed } = await attach();
    await watcher.until("svc", () => svc()?.state === "connected");
    expect(states()).toEqual(["vm detached 1", "vm attached 1"]);
    expect(watcher.guests.get("vm")?.features).toContain("RPMSG_F_NS");
    expect(watcher.guests.get("vm")?.queues).toEqual({ response: 256, request: 256 });
    await vm.pause();
    await watcher.until("suspended", () => watcher.guests.get("vm")?.state === "suspended");
    await vm.resume();
    await watcher.until("attached", () => watcher.guests.get("vm")?.state === "attached");
    expect(states().slice(2)).toEqual(["vm suspended 1", "vm attached 1"]);
    expect(svc()).toMatchObject({ state: "connected", generation: 1 });
    await vm.reboot();
    await watcher.until("svc again", () => svc()?.state === "connected" && svc()?.generation === 2);
    expect(states().slice(4)).toEqual(["vm suspended 1", "vm detached 2", "vm attached 2"]);
    vm.close();
    await closed;
    await watcher.until("waiting", () => watcher.guests.get("vm")?.state === "waiting");
    expect(states().at(-1)).toBe("vm waiting 3");
    expect(svc()).toMatchObject({ state: "declared", peer: null, generation: 3 });
    await settled(running, watcher);
    await attach();
    await watcher.until("svc once more", () => svc()?.state === "connected");
    expect(states().slice(-2)).toEqual(["vm detached 3", "vm attached 3"]);
    // It was declared: one endpoint for all the time.
    expect(watcher.changes.filter(({ name }) => name === "endpoint-removed")).toEqual([]);
    expect((await call(running, "DELETE", `/${svc()?.id}`)).status).toBe(204);
    await settled(running, watcher);
  });

  test("that the guest was told of a service is an event, though it does not answer", async () => {
    const { running, attach } = await guestBridge([{ name: "svc", address: HOST }], { services: {} });
    const watcher = await Watcher.ready(running.url);
    const { vm } = await attach();
    for (const generation of [1, 2]) {
      const announced = await watcher.change(
        ({ name, data }) =>
          name === "endpoint" &&
          (data as Endpoint).state === "announced" &&
          (data as Endpoint).generation === generation,
      );
      expect(announced.data).toMatchObject({ name: "svc", peer: null });
      await vm.reboot();
    }
  });

  test("the features and queues of a frontend are told as they are agreed on", async () => {
    const { running, attach } = await guestBridge([], { profile: "openamp" });
    const watcher = await Watcher.ready(running.url);
    const { vm } = await attach();
    await settled(running, watcher);
    await vm.reboot();
    await settled(running, watcher);
    vm.close();
    await watcher.until("waiting", () => watcher.guests.get("vm")?.state === "waiting");
    await settled(running, watcher);
  });
});
