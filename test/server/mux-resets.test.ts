import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { Service, ServiceContext } from "../../guest/index.ts";
import { EmulatedGuest, echo } from "../../guest/index.ts";
import type { MuxFrame } from "./mux-client.ts";
import { emulatedBridge, MuxClient, PEER } from "./mux-client.ts";
import { eventually, testDirectory } from "./support.ts";
import { Valve, vhostBridge } from "./vhost-guest.ts";

const downUp = { name: "service", address: 1040 };

/** A reset begins as a pause does: both rings stop. */
const suspended = { type: "state", state: "up", guestState: "suspended" };

function types(frames: readonly MuxFrame[]): string[] {
  return frames.map((frame) => {
    if (frame.type !== "state") return frame.type;
    return frame.guestState === "suspended" && frame.state === "up" ? "suspended" : frame.state;
  });
}

/** A guest with a closed valve and 8 buffers; its endpoint outlives resets, so that its counters do. */
async function valveBridge() {
  const valve = new Valve();
  const guest = new EmulatedGuest({ profile: "rpmsg-lite", services: { valve: valve.factory } });
  const demo = { kind: "emulated" as const, endpoints: [{ name: "valve", ns: "up" as const }] };
  const running = await emulatedBridge({ demo: guest }, { guests: { demo } });
  const client = await running.mux();
  await client.subscribed(1, "/ws/v1/demo/valve");
  return { ...running, valve, guest, client };
}

describe("a reset of the guest", () => {
  test("is told as down, then as up with all that is new; the subscription goes on", async () => {
    const guest = new EmulatedGuest();
    const { mux, endpoint, url } = await emulatedBridge({ demo: guest });
    const client = await mux();
    const first = await client.subscribed(1, "/ws/v1/demo/echo");
    client.send(1, "before");
    expect(await client.take("message", 1)).toMatchObject({ seq: 1 });
    await guest.reboot();
    expect(await client.next()).toMatchObject(suspended);
    expect(await client.next()).toMatchObject({ type: "state", sub: 1, state: "down", reason: "reset" });
    const up = await client.next();
    expect(up).toEqual({
      type: "state",
      sub: 1,
      state: "up",
      endpointState: "connected",
      guestState: "attached",
      generation: 2,
    });
    const { id } = await endpoint("echo");
    const second = await client.next();
    expect(second).toEqual({ ...first, id, local: expect.any(Number), generation: 2 });
    expect(id).not.toBe(first.id);
    client.send(1, "after");
    // Counted anew.
    expect(await client.take("message", 1)).toMatchObject({ seq: 1, bytes: Buffer.from("after") });
    expect(await (await fetch(`${url}/api/v1/guests/demo`)).json()).toMatchObject({ generation: 2 });
  });

  test("a service of the host keeps its id and its address", async () => {
    const guest = new EmulatedGuest();
    const { mux, endpoint } = await emulatedBridge(
      { demo: guest },
      { guests: { demo: { kind: "emulated", endpoints: [downUp] } } },
    );
    const { id } = await endpoint("service", (each) => each.state === "connected");
    const client = await mux();
    await client.subscribed(1, "/ws/v1/demo/service");
    await guest.reboot();
    const again = await client.take("subscribed", 1);
    expect(again).toMatchObject({ id, local: 1040, generation: 2 });
    // The guest is told anew, and answers anew.
    await endpoint("service", (each) => each.state === "connected");
    await client.settled();
    const states = client.of(1).flatMap((each) => (each.type === "state" ? [each.endpointState] : []));
    expect(states.at(-1)).toBe("connected");
    client.send(1, "hello");
    const messages = client.of(1).filter((each) => each.type === "message");
    // Its first words are empty; they may have come before the subscription.
    for (let i = messages.length; i > 0; i--) await client.take("message", 1);
    expect((await client.take("message", 1)).bytes.toString()).toBe("hello");
  });

  test("what waited is reported, then what was not read, then the state; each with its number or without", async () => {
    const { client, guest, endpoint } = await valveBridge();
    for (let number = 1; number <= 12; number++) client.send(1, `${number}`, number % 3 === 0 ? 0 : number);
    await client.settled();
    const sent = client.of(1);
    expect(sent.map((each) => each.type === "sent" && each.id)).toEqual([1, 2, 4, 5, 7, 8]);
    client.frames.length = 0;
    await guest.reboot();
    await client.settled();
    const frames = client.of(1);
    const errorTypes = Array.from({ length: 12 }, () => "error");
    expect(types(frames)).toEqual(["suspended", ...errorTypes, "down", "up", "subscribed"]);
    const errors = frames.filter((each) => each.type === "error");
    expect(new Set(errors.map(({ code }) => code))).toEqual(new Set(["guest-gone"]));
    // 8 buffers, all unread; then the four that waited.
    expect(
      errors
        .slice(0, 8)
        .map(({ id }) => id ?? 0)
        .toSorted((a, b) => a - b),
    ).toEqual([0, 0, 1, 2, 4, 5, 7, 8]);
    expect(errors.slice(8).map(({ id }) => id ?? 0)).toEqual([0, 10, 11, 0]);
    expect((await endpoint("valve")).counters).toMatchObject({
      accepted: 12,
      messagesToGuest: 8,
      unconfirmed: 8,
      undelivered: 4,
    });
  });

  test("brings many errors at once: a client that goes on asking before it could read them is not slow", async () => {
    const path = join(testDirectory(), "bridge.sock");
    const guest = new EmulatedGuest({ profile: "rpmsg-lite", services: { valve: new Valve().factory } });
    // The kernel takes some 200 KB for a Unix socket.
    const limits = { slowReaderBytes: 16_384 };
    await emulatedBridge({ demo: guest }, { listen: `unix:${path}`, limits });
    const client = await MuxClient.open(`ws+unix:${path}:`);
    const subs = [1, 2, 3];
    for (const sub of subs) await client.subscribed(sub, "/ws/v1/demo/valve");
    const count = 3000;
    for (const sub of subs) for (let number = 1; number <= count; number++) client.send(sub, "", number);
    await client.settled();
    client.socket.pause();
    await guest.reboot();
    client.control({ type: "ping" });
    client.socket.resume();
    await client.take("pong");
    for (const sub of subs) {
      const errors = client.of(sub).filter((each) => each.type === "error");
      expect(errors.map(({ id }) => id ?? 0).toSorted((a, b) => a - b)).toEqual(
        Array.from({ length: count }, (_, i) => i + 1),
      );
      expect(client.of(sub).at(-1)).toMatchObject({ type: "subscribed", generation: 2 });
    }
  });

  test("what was read is not reported", async () => {
    const { client, guest, valve, endpoint } = await valveBridge();
    valve.open = true;
    for (let number = 1; number <= 20; number++) client.send(1, `${number}`, number);
    await eventually("all of them", () => (valve.taken.length === 20 ? true : undefined));
    await client.settled();
    client.frames.length = 0;
    await guest.reboot();
    await client.settled();
    expect(types(client.of(1))).toEqual(["suspended", "down", "up", "subscribed"]);
    expect((await endpoint("valve")).counters).toMatchObject({ messagesToGuest: 20, unconfirmed: 0 });
  });

  test("credit is fresh in both directions", async () => {
    const valve = new Valve();
    const guest = new EmulatedGuest({ profile: "rpmsg-lite", services: { valve: valve.factory } });
    const { mux } = await emulatedBridge({ demo: guest });
    const client = await mux();
    let { local, credit } = await client.subscribed(1, "/ws/v1/demo/valve", 30);
    for (let round = 1; round <= 3; round++) {
      // All that may be sent, and one more.
      for (let i = 0; i < 8; i++) client.send(1, "");
      for (let left = credit; left >= 512; left -= 512) client.send(1, Buffer.alloc(496));
      client.send(1, Buffer.alloc(496), 99);
      await client.settled();
      expect(client.of(1).filter((each) => each.type === "error")).toMatchObject([
        { id: 99, code: "queue-full" },
      ]);
      // One message fits the client's credit.
      for (const text of ["one", "two"]) valve.context?.send(local, Buffer.from(text));
      await client.take("message", 1);
      await client.settled();
      expect(client.of(1).filter((each) => each.type === "message")).toEqual([]);
      await guest.reboot();
      ({ local, credit } = await client.take("subscribed", 1));
      client.frames.length = 0;
      expect(credit).toBe(65_536);
    }
  });

  test("credit that was used before it, and had not been given back, is there again", async () => {
    const { client, guest } = await valveBridge();
    const payload = Buffer.alloc(496);
    // Less than a quarter.
    for (let i = 0; i < 20; i++) client.send(1, payload);
    await client.settled();
    await guest.reboot();
    const { credit } = await client.take("subscribed", 1);
    client.frames.length = 0;
    for (let i = 0; i < 8 + credit / 512; i++) client.send(1, payload);
    await client.settled();
    expect(client.of(1).filter((each) => each.type === "error")).toEqual([]);
    client.send(1, payload, 7);
    expect(await client.take("error", 1)).toMatchObject({ id: 7, code: "queue-full" });
  });

  test("all subscriptions of the guest are down, those of other guests are not", async () => {
    const guests = { one: new EmulatedGuest(), two: new EmulatedGuest() };
    const { mux } = await emulatedBridge(guests);
    const client = await mux();
    for (const [i, path] of ["one/echo", "one/sink", "two/echo"].entries()) {
      await client.subscribed(i, `/ws/v1/${path}`);
    }
    await guests.one.reboot();
    await client.take("subscribed", 0);
    await client.take("subscribed", 1);
    await client.settled();
    expect(client.of(2)).toEqual([]);
    client.send(2, "untouched");
    expect((await client.take("message", 2)).bytes.toString()).toBe("untouched");
  });

  test("ten in a row: each that is told of is told whole, and the last generation works", async () => {
    const guest = new EmulatedGuest();
    const { mux } = await emulatedBridge({ demo: guest });
    const client = await mux();
    await client.subscribed(1, "/ws/v1/demo/echo");
    for (let i = 0; i < 10; i++) await guest.reboot();
    await eventually("the last generation", () =>
      client.of(1).some((each) => each.type === "subscribed" && each.generation === 11) ? true : undefined,
    );
    const story = types(client.of(1));
    const resets = story.filter((type) => type === "down").length;
    expect(story).toEqual(
      Array.from({ length: resets }, () => ["suspended", "down", "up", "subscribed"]).flat(),
    );
    client.frames.length = 0;
    client.send(1, "still here");
    expect((await client.take("message", 1)).bytes.toString()).toBe("still here");
  });
});

describe("while it is down", () => {
  /** A guest that is gone; the subscription waits for it. */
  async function gone() {
    const running = await vhostBridge({}, { endpoints: [downUp] });
    const client = await MuxClient.open(running.url);
    const { vm, closed } = await running.attach();
    await running.endpoint("echo");
    await client.subscribed(1, "/ws/v1/vm/echo", 50);
    vm.close();
    await closed;
    expect(await client.take("state", 1)).toMatchObject({ state: "down", reason: "reset" });
    return { ...running, client };
  }

  test("messages are errors, credit is of no use, the number is taken, and a ping is answered", async () => {
    const { client, attach } = await gone();
    client.send(1, "x", 5);
    client.send(1, "x");
    const [first, second] = await client.takeMany(2, "error", 1);
    expect(first).toMatchObject({ id: 5, code: "guest-gone" });
    expect(second).not.toHaveProperty("id");
    client.control({ type: "credit", sub: 1, bytes: 1000 });
    expect(await client.refused(1, "/ws/v1/vm/service")).toMatchObject({ code: "subscription-in-use" });
    await client.settled();
    expect(client.of(1)).toEqual([]);
    await attach();
    await client.take("subscribed", 1);
    // What was granted meanwhile does not add to the fresh credit: one message of 34 bytes.
    for (let i = 0; i < 3; i++) client.send(1, Buffer.alloc(34));
    await client.take("message", 1);
    await client.settled();
    expect(client.of(1).filter((each) => each.type === "message")).toEqual([]);
  });

  test("it can be ended, and does not come back", async () => {
    const { client, attach, endpoint } = await gone();
    client.control({ type: "unsubscribe", sub: 1 });
    expect(await client.next()).toEqual({ type: "unsubscribed", sub: 1 });
    await attach();
    await endpoint("echo");
    await client.settled();
    expect(client.of(1)).toEqual([]);
    expect((await endpoint("echo")).clients).toBe(0);
  });

  test("a socket that closes leaves nothing behind", async () => {
    const { client, attach, endpoint } = await gone();
    await client.close();
    await attach();
    await endpoint("echo");
    // Later than any retry of it.
    const other = await MuxClient.open((await gone()).url);
    await other.settled();
    expect((await endpoint("echo")).clients).toBe(0);
  });

  test("a guest that comes back without the endpoint is waited for", async () => {
    const { client, attach, endpoint } = await gone();
    const { guest } = await attach({ services: { other: echo } });
    await endpoint("other");
    await client.settled();
    expect(client.of(1)).toEqual([]);
    guest.announce("echo", echo);
    expect(await client.take("subscribed", 1)).toMatchObject({ endpoint: "echo", generation: 2 });
  });
});

describe("a guest that was never there", () => {
  test("its own endpoints are unknown, those of the host are not: the first attachment ends nothing", async () => {
    const { url, attach, endpoint } = await vhostBridge({}, { endpoints: [downUp] });
    const client = await MuxClient.open(url);
    expect(await client.refused(1, "/ws/v1/vm/echo")).toMatchObject({ code: "endpoint-unknown" });
    expect(await client.subscribed(1, "/ws/v1/vm/service")).toMatchObject({
      endpointState: "declared",
      guestState: "waiting",
      generation: 1,
    });
    client.send(1, "early", 1);
    await attach();
    expect(await client.take("sent", 1)).toMatchObject({ id: 1 });
    await endpoint("service", (each) => each.state === "connected");
    const messages = await client.takeMany(2, "message", 1);
    // The guest introduces itself with an empty message.
    expect(messages.map(({ bytes }) => bytes.toString())).toEqual(["", "early"]);
    const states = client.of(1);
    expect(new Set(types(states))).toEqual(new Set(["up"]));
    expect(states.at(-1)).toMatchObject({
      endpointState: "connected",
      guestState: "attached",
      generation: 1,
    });
  });
});

describe("a pause", () => {
  test("is told as a state that is up; what is sent meanwhile waits", async () => {
    const guest = new EmulatedGuest();
    const { mux } = await emulatedBridge({ demo: guest });
    const client = await mux();
    await client.subscribed(1, "/ws/v1/demo/echo");
    client.send(1, "a message, so that the positions are not those of a new driver");
    await client.take("message", 1);
    await guest.pause();
    expect(await client.next()).toMatchObject({
      type: "state",
      state: "up",
      guestState: "suspended",
      generation: 1,
    });
    client.send(1, "waits", 1);
    await client.settled();
    expect(client.of(1)).toEqual([]);
    await guest.resume();
    expect(await client.take("sent", 1)).toMatchObject({ id: 1 });
    expect((await client.take("message", 1)).bytes.toString()).toBe("waits");
    expect(client.of(1)).toMatchObject([
      { type: "state", state: "up", guestState: "attached", generation: 1 },
    ]);
  });
});

test("a state is told when it is another one, not when the peer is", async () => {
  const forward = (context: ServiceContext): Service => ({
    onMessage: (_src, bytes, offset, length) => context.send(1040, bytes, offset, length),
  });
  const guest = new EmulatedGuest({ services: { one: forward, two: forward } });
  const { mux, endpoint } = await emulatedBridge(
    { demo: guest },
    { guests: { demo: { kind: "emulated", endpoints: [{ name: "plain", ns: "none", address: 1040 }] } } },
  );
  const client = await mux();
  await client.subscribed(1, "/ws/v1/demo/plain");
  for (const [i, name] of ["one", "two", "one"].entries()) {
    await client.subscribed(10 + i, `/ws/v1/demo/${name}`);
    client.send(10 + i, `from ${name}`);
    expect((await client.take("message", 1)).bytes.toString()).toBe(`from ${name}`);
    expect((await endpoint("plain")).peer).toBe((await endpoint(name)).address);
  }
  await client.settled();
  expect(client.of(1)).toMatchObject([{ type: "state", state: "up", endpointState: "connected" }]);
});

describe("an endpoint that is withdrawn", () => {
  test("by the guest is down, and up when the guest announces the name again", async () => {
    const guest = new EmulatedGuest({ services: { lamp: echo, other: echo } });
    const { mux } = await emulatedBridge({ demo: guest });
    const client = await mux();
    const first = await client.subscribed(1, "/ws/v1/demo/lamp");
    const byId = await client.subscribed(2, `/ws/v1/demo/~${first.id}`);
    expect(byId.id).toBe(first.id);
    guest.withdraw("lamp");
    expect(await client.take("state", 1)).toMatchObject({
      state: "down",
      reason: "withdrawn",
      generation: 1,
    });
    expect(await client.take("state", 2)).toMatchObject({ state: "down", reason: "withdrawn" });
    client.send(1, "nobody", 3);
    expect(await client.take("error", 1)).toMatchObject({ id: 3, code: "guest-gone" });
    guest.announce("lamp", echo);
    expect(await client.take("state", 1)).toMatchObject({ state: "up", generation: 1 });
    const second = await client.take("subscribed", 1);
    expect(second.id).not.toBe(first.id);
    client.send(1, "lit");
    expect((await client.take("message", 1)).bytes.toString()).toBe("lit");
    // An id is used once: that one waits for ever.
    await client.settled();
    expect(client.of(2)).toEqual([]);
  });

  test("by whoever declared it is down, and up when it is declared again", async () => {
    const guest = new EmulatedGuest();
    const { mux, endpoint, url } = await emulatedBridge(
      { demo: guest },
      { guests: { demo: { kind: "emulated", endpoints: [downUp] } } },
    );
    const client = await mux();
    const { id } = await client.subscribed(1, "/ws/v1/demo/service");
    await endpoint("service", (each) => each.state === "connected");
    await client.settled();
    client.frames.length = 0;
    await fetch(`${url}/api/v1/guests/demo/endpoints/${id}`, { method: "DELETE" });
    expect(await client.take("state", 1)).toMatchObject({ state: "down", reason: "withdrawn" });
    await fetch(`${url}/api/v1/guests/demo/endpoints`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ name: "service", address: 1041 }),
    });
    expect(await client.take("subscribed", 1)).toMatchObject({ local: 1041 });
  });

  test("whose local address somebody else has meanwhile is waited for until it is free", async () => {
    const guest = new EmulatedGuest({ services: { lamp: echo, other: echo } });
    const { mux, connect, endpoint } = await emulatedBridge({ demo: guest });
    const client = await mux();
    await client.subscribed(1, "/ws/v1/demo/lamp?local=2000");
    guest.withdraw("lamp");
    await client.take("state", 1);
    const other = await connect("/ws/v1/demo/other?local=2000");
    guest.announce("lamp", echo);
    await endpoint("lamp");
    await client.settled();
    expect(client.of(1)).toEqual([]);
    await other.close();
    expect(await client.take("subscribed", 1)).toMatchObject({ local: 2000 });
  });
});

describe("exclusive", () => {
  const path = "/ws/v1/demo/echo?share=exclusive";

  test("nobody else gets in, by whatever protocol, until it ends", async () => {
    const { mux, connect } = await emulatedBridge({ demo: new EmulatedGuest() });
    const [client, other] = [await mux(), await mux()];
    await client.subscribed(1, path);
    const taken = { code: "endpoint-in-use" };
    expect(await client.refused(2, "/ws/v1/demo/echo")).toMatchObject(taken);
    expect(await other.refused(1, "/ws/v1/demo/echo?share=shared")).toMatchObject(taken);
    expect(await other.refused(1, path)).toMatchObject(taken);
    await expect(connect("/ws/v1/demo/echo")).rejects.toThrow("409");
    client.control({ type: "unsubscribe", sub: 1 });
    await client.take("unsubscribed", 1);
    await other.subscribed(1, "/ws/v1/demo/echo");
    expect(await client.refused(1, path)).toMatchObject(taken);
  });

  test("with takeover=1 the others are over: unsubscribed, and 4003", async () => {
    const { mux, connect, endpoint } = await emulatedBridge({ demo: new EmulatedGuest() });
    const [client, other] = [await mux(), await mux()];
    await client.subscribed(1, "/ws/v1/demo/echo");
    await client.subscribed(2, "/ws/v1/demo/sink");
    const raw = await connect("/ws/v1/demo/echo");
    await other.subscribed(7, `${path}&takeover=1`);
    expect(await client.take("unsubscribed")).toEqual({ type: "unsubscribed", sub: 1, code: "replaced" });
    expect(await raw.closed).toMatchObject({ code: 4003 });
    expect((await endpoint("echo")).clients).toBe(1);
    other.send(7, "mine");
    expect((await other.take("message", 7)).bytes.toString()).toBe("mine");
    // It is over for good: its number is free, and a reset does not bring it back.
    client.send(1, "x", 1);
    expect(await client.take("error", 1)).toMatchObject({ code: "subscription-unknown" });
    const third = await connect(`${path}&takeover=1`);
    expect(await other.take("unsubscribed", 7)).toMatchObject({ code: "replaced" });
    await third.close();
  });

  test("it is exclusive after a reset as before", async () => {
    const guest = new EmulatedGuest();
    const { mux, endpoint } = await emulatedBridge({ demo: guest });
    const client = await mux();
    await client.subscribed(1, `${path}&takeover=1`);
    await guest.reboot();
    await client.take("subscribed", 1);
    expect(await client.refused(2, "/ws/v1/demo/echo")).toMatchObject({ code: "endpoint-in-use" });
    expect((await endpoint("echo")).clients).toBe(1);
  });

  test("on a service of the host it is the service", async () => {
    const guest = new EmulatedGuest();
    const { mux, endpoint } = await emulatedBridge(
      { demo: guest },
      { guests: { demo: { kind: "emulated", endpoints: [downUp] } } },
    );
    await endpoint("service", (each) => each.state === "connected");
    const client = await mux();
    expect(await client.subscribed(1, "/ws/v1/demo/service?share=exclusive")).toMatchObject({ local: 1040 });
    client.send(1, "served", 0, PEER);
    expect((await client.take("message", 1)).bytes.toString()).toBe("served");
  });
});
