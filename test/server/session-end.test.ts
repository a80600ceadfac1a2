import { describe, expect, test } from "vitest";
import { JsonClient } from "./json-client.ts";
import { eventually, reached, testBridge } from "./support.ts";
import { Valve, vhostBridge } from "./vhost-guest.ts";

const JSON_FRAMES = { protocols: ["rpmsg.v1.json"] };
const IN_USE = { status: 409, code: "endpoint-in-use" };

async function echoBridge(limits: NonNullable<Parameters<typeof testBridge>[0]>["limits"] = {}) {
  const running = await testBridge({ limits });
  await running.endpoint("echo");
  const clients = async () => (await running.endpoint("echo")).clients;
  return { ...running, clients, open: (query = "") => JsonClient.open(running, `/ws/v1/demo/echo${query}`) };
}

/** A session of its own, which answers. */
async function expectNew(client: JsonClient, old: JsonClient): Promise<void> {
  expect(client.hello.resumed).toBe(false);
  expect(client.hello.session).not.toBe(old.hello.session);
  client.send("new");
  expect(await client.next("message")).toMatchObject({ seq: 1, data: "new" });
}

describe("a session is over, and resume opens a new one", () => {
  test.each([undefined, 1000, 1001, 4000])("at once with a close frame of the client: %s", async (code) => {
    const running = await echoBridge();
    const client = await running.open();
    client.send("hello");
    await client.next("message");
    await client.close(code);
    await running.endpoint("echo", (each) => each.clients === 0);
    const again = await client.resume(1);
    await expectNew(again, client);
    expect(again.hello.local).not.toBe(client.hello.local);
  });

  test("when its time has passed; until then it counts as a client", async () => {
    const running = await echoBridge({ sessionTimeout: 300 });
    const client = await running.open();
    await client.break();
    expect(await running.clients()).toBe(1);
    expect(reached(running, "sessionTimeout")).toBe(0);
    await running.endpoint("echo", (each) => each.clients === 0);
    expect(reached(running, "sessionTimeout")).toBe(1);
    await expectNew(await client.resume(), client);
    expect(reached(running, "sessionTimeout")).toBe(1);
  });

  test("the time starts anew with every break", async () => {
    // Long enough to come back in, on a busy machine too.
    const running = await echoBridge({ sessionTimeout: 1500 });
    const start = performance.now();
    let client = await running.open();
    const { session } = client.hello;
    while (performance.now() < start + 2000) {
      await client.break();
      client = await client.resume();
      expect(client.hello).toMatchObject({ resumed: true, session });
    }
    // It has not begun: the client is there.
    const until = performance.now() + 1600;
    await eventually("time", () => (performance.now() > until ? true : undefined));
    expect(await client.all()).toEqual([]);
  });

  test.each<[string, (client: JsonClient) => void]>([
    ["a binary message: 1003", (client) => client.socket.send(Buffer.of(1))],
    ["a text that is not UTF-8: 1007", (client) => client.socket.send(Buffer.of(0xff), { binary: false })],
    ["a frame beyond any message: 1009", (client) => client.send("x".repeat(200_000))],
  ])("with a close frame of the bridge, because of %s", async (_what, offend) => {
    const running = await echoBridge();
    const client = await running.open("?share=exclusive");
    offend(client);
    expect((await client.closed).code).not.toBe(1006);
    // Soon, and not when the time for a resume has passed.
    const start = performance.now();
    await running.endpoint("echo", (each) => each.clients === 0);
    expect(performance.now() - start).toBeLessThan(5000);
    await expectNew(await client.resume(), client);
  });

  test("where it is not known", async () => {
    const running = await echoBridge();
    for (const session of ["", "nobody", "__proto__", "x".repeat(64)]) {
      const client = await running.open(`?resume=${session}&after=5`);
      expect(client.hello.resumed).toBe(false);
      client.send("new");
      expect(await client.next("message")).toMatchObject({ seq: 1 });
    }
  });

  test("where it is one of another endpoint, which stays as it is", async () => {
    const running = await echoBridge();
    const client = await running.open();
    await client.break();
    const other = await client.resume(0, "", "sink");
    expect(other.hello).toMatchObject({ endpoint: "sink", resumed: false });
    expect(await running.clients()).toBe(1);
    expect((await client.resume()).hello.resumed).toBe(true);
  });

  test("with a reset while the client is away", async () => {
    const running = await vhostBridge({}, { endpoints: [{ name: "raw", address: 1040 }] });
    const valve = new Valve();
    const { vm } = await running.attach({
      profile: "rpmsg-lite",
      services: { raw: { service: valve.factory, ns: "down" }, sink: valve.factory },
    });
    await running.endpoint("sink");
    await running.endpoint("raw", (each) => each.state === "connected");
    const clients = [
      await JsonClient.open(running, "/ws/v1/vm/raw"),
      await JsonClient.open(running, "/ws/v1/vm/sink"),
    ] as const;
    for (let i = 0; i < 10; i++) clients[0].send(`${i}`, { id: i });
    await running.endpoint("raw", (each) => each.counters.accepted === 10);
    for (const client of clients) await client.break();
    await vm.reboot();
    await running.endpoint("sink", (each) => each.generation === 2);
    const raw = await running.endpoint("raw", (each) => each.generation === 2);
    expect(raw).toMatchObject({ clients: 0, counters: { undelivered: 2, unconfirmed: 8 } });
    for (const client of clients) {
      const again = await client.resume();
      expect(again.hello).toMatchObject({ resumed: false, generation: 2 });
      expect(again.hello.session).not.toBe(client.hello.session);
    }
  });

  test("with its endpoint, while the client is away", async () => {
    const running = await vhostBridge();
    const { guest } = await running.attach();
    await running.endpoint("echo");
    const client = await JsonClient.open(running, "/ws/v1/vm/echo");
    await client.break();
    guest.withdraw("echo");
    await eventually("the end of it", async () =>
      (await running.endpoints()).some((each) => each.name === "echo") ? undefined : true,
    );
    const path = `/ws/v1/vm/echo?resume=${client.hello.session}&after=0`;
    expect(await running.refusal(path, JSON_FRAMES)).toMatchObject({ status: 404, code: "endpoint-unknown" });
    guest.announce("echo", (context) => ({
      onMessage: (src, bytes, offset, length) => context.send(src, bytes, offset, length),
    }));
    await running.endpoint("echo");
    await expectNew(await client.resume(), client);
  });

  test("when the bridge stops: it does not wait for those who are away", async () => {
    const running = await echoBridge();
    const client = await running.open();
    await client.break();
    const start = performance.now();
    await running.bridge.drain();
    expect(performance.now() - start).toBeLessThan(3000);
  });
});

describe("an exclusive client that is away", () => {
  test("keeps others out, and comes back", async () => {
    const running = await echoBridge();
    const client = await running.open("?share=exclusive");
    await client.break();
    for (const query of ["", "?share=shared", "?share=exclusive", "?resume=nobody&after=0"]) {
      expect(await running.refusal(`/ws/v1/demo/echo${query}`, JSON_FRAMES)).toMatchObject(IN_USE);
    }
    expect(await running.clients()).toBe(1);
    const again = await client.resume(0, "&share=exclusive");
    expect(again.hello).toMatchObject({ resumed: true, local: client.hello.local });
    again.send("mine");
    expect((await again.next("message")).data).toBe("mine");
  });

  test("can be replaced, and does not come back", async () => {
    const running = await echoBridge();
    const client = await running.open("?share=exclusive");
    await client.break();
    const taker = await running.open("?share=exclusive&takeover=1");
    expect(await running.clients()).toBe(1);
    const path = `/ws/v1/demo/echo?resume=${client.hello.session}&after=0`;
    expect(await running.refusal(path, JSON_FRAMES)).toMatchObject(IN_USE);
    taker.send("mine");
    expect((await taker.next("message")).data).toBe("mine");
  });

  test("makes room when its time has passed", async () => {
    const running = await echoBridge({ sessionTimeout: 200 });
    const client = await running.open("?share=exclusive&local=2000");
    await client.break();
    expect(await running.refusal("/ws/v1/demo/sink?local=2000")).toMatchObject({ code: "local-in-use" });
    await running.endpoint("echo", (each) => each.clients === 0);
    const next = await running.open("?share=exclusive&local=2000");
    expect(next.hello).toMatchObject({ local: 2000, resumed: false });
  });
});

describe("resume= and after=", () => {
  test.each([
    ["resume=x", "after"],
    ["after=1", "after"],
    ["resume=x&after=-1", "after"],
    ["resume=x&after=1.5", "after"],
    ["resume=x&after=one", "after"],
    ["resume=x&after=", "after"],
    ["resume=x&after=1&after=1", "after"],
    [`resume=${"x".repeat(65)}&after=0`, "resume"],
  ])("are 400 where they cannot be: %s", async (query, key) => {
    const running = await echoBridge();
    const problem = await running.refusal(`/ws/v1/demo/echo?${query}`, JSON_FRAMES);
    expect(problem).toMatchObject({ status: 400, code: "bad-request" });
    expect(problem.detail).toContain(key);
    expect(await running.clients()).toBe(0);
  });

  test("a raw client has no session: it vanishes, and is gone", async () => {
    const running = await echoBridge();
    const client = await running.connect("/ws/v1/demo/echo?share=exclusive");
    client.socket.terminate();
    expect(await running.endpoint("echo", (each) => each.clients === 0)).toMatchObject({ clients: 0 });
    const next = await running.connect("/ws/v1/demo/echo?share=exclusive");
    next.send("mine");
    expect(await next.text()).toBe("mine");
  });
});
