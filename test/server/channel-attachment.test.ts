import { describe, expect, test } from "vitest";
import { eventually } from "./support.ts";
import { Valve, vhostBridge } from "./vhost-guest.ts";

const RAW = { endpoints: [{ name: "rpmsg-raw", address: 1040 }] };

describe("a reset ends every client with 4001", () => {
  test("when the guest reboots: endpoints of the guest are new, services of the host stay", async () => {
    const running = await vhostBridge({}, RAW);
    const { vm } = await running.attach();
    const [before, raw] = [await running.endpoint("echo"), await running.endpoint("rpmsg-raw")];
    const clients = await Promise.all([running.connect(before.path), running.connect(raw.path)]);
    await vm.reboot();
    for (const client of clients) {
      expect(await client.closed).toEqual({ code: 4001, reason: "guest detached or reset" });
    }
    const after = await running.endpoint("echo");
    expect(after).toMatchObject({ path: before.path, generation: 2, clients: 0 });
    expect(after.id).not.toBe(before.id);
    expect(after.counters.messagesToGuest).toBe(0);
    const again = await running.endpoint("rpmsg-raw", (each) => each.state === "connected");
    expect(again).toMatchObject({ id: raw.id, path: raw.path, generation: 2, clients: 0 });
    expect(await running.guest("vm")).toMatchObject({ state: "attached", generation: 2 });
    for (const path of [after.path, again.path]) {
      const client = await running.connect(path);
      client.send("hello");
      expect(await client.text()).toBe("hello");
    }
  });

  test("when the frontend goes: its endpoints are gone, the guest waits, and the next frontend attaches", async () => {
    const running = await vhostBridge({}, RAW);
    const { vm, closed } = await running.attach();
    await running.endpoint("echo");
    await running.endpoint("rpmsg-raw", (each) => each.state === "connected");
    const clients = [
      await running.connect("/ws/v1/vm/echo"),
      await running.connect("/ws/v1/vm/echo?share=shared"),
      await running.connect("/ws/v1/vm/rpmsg-raw"),
      await running.connect("/ws/v1/vm/rpmsg-raw?share=private&local=2000"),
    ];
    vm.close();
    await closed;
    for (const client of clients) expect((await client.closed).code).toBe(4001);
    expect(await running.guest("vm")).toMatchObject({ state: "waiting", generation: 2, queues: null });
    expect(await running.endpoints()).toEqual([
      expect.objectContaining({ name: "rpmsg-raw", state: "declared", clients: 0 }),
    ]);
    expect(await running.refusal("/ws/v1/vm/echo")).toMatchObject({ status: 404 });
    await running.attach();
    await running.endpoint("echo");
    const next = await running.connect("/ws/v1/vm/echo?local=2000");
    next.send("hello");
    expect(await next.text()).toBe("hello");
    expect(await running.guest("vm")).toMatchObject({ state: "attached", generation: 2 });
  });

  test("what waited for the old guest is not sent to the new one", async () => {
    const running = await vhostBridge({}, RAW);
    const first = await running.attach({ services: {} });
    await running.endpoint("rpmsg-raw", (each) => each.state === "connected");
    await first.vm.pause();
    const client = await running.connect("/ws/v1/vm/rpmsg-raw");
    client.send("for the old guest");
    await running.endpoint("rpmsg-raw", (each) => each.counters.accepted === 1);
    first.vm.close();
    expect((await client.closed).code).toBe(4001);
    const second = new Valve(true);
    await running.attach({ services: { "rpmsg-raw": second.factory } });
    // It answers the host's announcement at once: "announced" would pass unseen.
    await running.endpoint(
      "rpmsg-raw",
      (each) => each.origin === "host" && each.state === "connected" && each.generation === 2,
    );
    const next = await running.connect("/ws/v1/vm/rpmsg-raw?origin=host");
    next.send("for the new guest");
    await eventually("the message", () => second.taken[0]);
    expect(second.taken.map(String)).toEqual(["for the new guest"]);
  });
});

test("clients of a service of the host speak from its address, and hear what the guest says to it", async () => {
  const running = await vhostBridge({}, RAW);
  const valve = new Valve(true);
  await running.attach({ services: { "rpmsg-raw": valve.factory } });
  await running.endpoint("rpmsg-raw", (each) => each.origin === "host" && each.state === "connected");
  const clients = [
    await running.connect("/ws/v1/vm/rpmsg-raw?origin=host"),
    await running.connect("/ws/v1/vm/rpmsg-raw?origin=host"),
    await running.connect("/ws/v1/vm/rpmsg-raw?origin=host&share=shared&local=1040"),
    await running.connect("/ws/v1/vm/rpmsg-raw?origin=host&share=private&local=2000"),
  ];
  for (const [i, client] of clients.entries()) {
    client.send(`${i}`);
    await eventually("the message", () => valve.taken[i]);
  }
  expect(valve.sources).toEqual([1040, 1040, 1040, 2000]);
  valve.context?.send(1040, Buffer.from("to the service"));
  valve.context?.send(2000, Buffer.from("to one client"));
  for (const client of clients.slice(0, 3)) expect(await client.text()).toBe("to the service");
  expect(await clients[3]?.text()).toBe("to one client");
});

test("a message that is too long is refused while the guest is paused, too", async () => {
  const running = await vhostBridge();
  const { vm } = await running.attach();
  await running.endpoint("sink");
  const client = await running.connect("/ws/v1/vm/sink");
  await vm.pause();
  client.send(Buffer.alloc(497));
  expect((await client.closed).code).toBe(1009);
  expect((await running.endpoint("sink")).counters.accepted).toBe(0);
});

test("a withdrawal ends the clients of that endpoint with 4002, and only those", async () => {
  const running = await vhostBridge();
  const { guest } = await running.attach();
  await running.endpoint("sink");
  const gone = [
    await running.connect("/ws/v1/vm/echo"),
    await running.connect("/ws/v1/vm/echo?share=shared"),
  ];
  const stays = await running.connect("/ws/v1/vm/sink");
  guest.withdraw("echo");
  for (const client of gone) {
    expect(await client.closed).toEqual({ code: 4002, reason: "endpoint withdrawn" });
  }
  expect((await running.endpoints()).map((each) => each.name)).not.toContain("echo");
  expect(await running.refusal("/ws/v1/vm/echo")).toMatchObject({ status: 404, code: "endpoint-unknown" });
  stays.send("stat");
  expect(await stays.text()).toContain("messages");
  guest.announce("echo", new Valve(true).factory);
  await running.endpoint("echo");
});

test("a pause keeps clients, addresses and endpoints, and what was sent meanwhile arrives in order", async () => {
  // Far shorter than the pause could be: the time does not count.
  const running = await vhostBridge({ limits: { sendTimeout: 1000 } }, RAW);
  const { vm } = await running.attach();
  await running.endpoint("sink");
  await running.endpoint("rpmsg-raw", (each) => each.state === "connected");
  const clients = [
    await running.connect("/ws/v1/vm/echo?local=2000"),
    await running.connect("/ws/v1/vm/rpmsg-raw"),
  ];
  const ids = (await running.endpoints()).map((each) => each.id);
  for (let round = 0; round < 3; round++) {
    await vm.pause();
    expect(await running.guest("vm")).toMatchObject({ state: "suspended", generation: 1 });
    for (const client of clients) for (let i = 0; i < 300; i++) client.send(`${round}: ${i}`);
    const sent = async () =>
      (await running.endpoint("echo")).counters.accepted === 300 * (round + 1) ? true : undefined;
    await eventually("the bridge has them", sent);
    // Longer than a message may wait.
    const until = performance.now() + 1100;
    await eventually("time", () => (performance.now() > until ? true : undefined));
    expect(clients.map((client) => client.received)).toEqual([0, 0]);
    await vm.resume();
    const expected = Array.from({ length: 300 }, (_, i) => `${round}: ${i}`);
    for (const client of clients) expect((await client.take(300)).map(String)).toEqual(expected);
  }
  expect(await running.guest("vm")).toMatchObject({ state: "attached", generation: 1 });
  expect((await running.endpoints()).map((each) => each.id)).toEqual(ids);
  expect((await running.endpoint("echo")).counters.undelivered).toBe(0);
});

describe("before the first attachment", () => {
  test("a service of the host is listed, and takes messages that arrive when the guest does", async () => {
    const running = await vhostBridge(
      {},
      { endpoints: [{ name: "echo", address: 1040 }, { name: "two words" }] },
    );
    expect(await running.guest("vm")).toMatchObject({ state: "waiting", generation: 1, features: null });
    expect(await running.endpoints()).toEqual([
      expect.objectContaining({ name: "echo", address: 1040, state: "declared", path: "/ws/v1/vm/echo" }),
      expect.objectContaining({ name: "two words", state: "declared", path: "/ws/v1/vm/two%20words" }),
    ]);
    const client = await running.connect("/ws/v1/vm/echo");
    const messages = Array.from({ length: 300 }, (_, i) => `early ${i}`);
    for (const message of messages) client.send(message);
    await running.endpoint("echo", (each) => each.counters.accepted === 300);
    await running.attach({ services: { tty: new Valve().factory } });
    // First what the guest says by itself, then the answers.
    expect(await client.text()).toBe("");
    expect((await client.take(300)).map(String)).toEqual(messages);
    expect(await running.guest("vm")).toMatchObject({ state: "attached", generation: 1 });
    expect(await running.endpoint("echo", (each) => each.origin === "host")).toMatchObject({ clients: 1 });
  });

  test("a guest that has not attached within the time is no peer: 4004", async () => {
    const running = await vhostBridge({ limits: { sendTimeout: 30 } }, RAW);
    const client = await running.connect("/ws/v1/vm/rpmsg-raw");
    client.send("anybody?");
    expect(await client.closed).toEqual({ code: 4004, reason: "no-peer" });
    expect((await running.endpoint("rpmsg-raw")).counters).toMatchObject({ undelivered: 1 });
  });

  test("what waits behind a message that is given up is not sent later", async () => {
    const valve = new Valve();
    const running = await vhostBridge({ limits: { sendTimeout: 300 } }, RAW);
    const client = await running.connect("/ws/v1/vm/rpmsg-raw");
    client.send("first");
    await running.endpoint("rpmsg-raw", (each) => each.counters.accepted === 1);
    // Younger than the first, when that is given up.
    client.send("second");
    expect(await client.closed).toEqual({ code: 4004, reason: "no-peer" });
    expect((await running.endpoint("rpmsg-raw")).counters).toMatchObject({ undelivered: 2 });
    valve.open = true;
    await running.attach({ services: { "rpmsg-raw": valve.factory } });
    const next = await running.connect("/ws/v1/vm/rpmsg-raw@1040");
    next.send("third");
    await eventually("the third", () => (valve.taken.length > 0 ? true : undefined));
    expect(valve.taken.map(String)).toEqual(["third"]);
  });
});

test("every change of state is a line of the log", async () => {
  const lines: unknown[] = [];
  const running = await vhostBridge({}, {}, (line) => {
    if (line["event"] === "guest-state") lines.push([line["guest"], line["state"], line["generation"]]);
  });
  const { vm, closed } = await running.attach();
  await vm.pause();
  await vm.resume();
  vm.close();
  await closed;
  await eventually("the end", async () =>
    (await running.guest("vm")).state === "waiting" ? true : undefined,
  );
  // Of a burst only the first of a kind is written at once: the second "attached" and "suspended" come later.
  expect(lines).toEqual([
    ["vm", "attached", 1],
    ["vm", "suspended", 1],
    ["vm", "detached", 2],
  ]);
});
