import { describe, expect, test } from "vitest";
import { JsonClient } from "./json-client.ts";
import type { RunningBridge } from "./support.ts";
import { testBridge } from "./support.ts";
import { Valve, vhostBridge } from "./vhost-guest.ts";

const ECHO = "/ws/v1/demo/echo";
const EXCLUSIVE = `${ECHO}?share=exclusive`;
const TAKEOVER = `${EXCLUSIVE}&takeover=1`;
const IN_USE = { status: 409, code: "endpoint-in-use" };
const REPLACED = { code: 4003, reason: "replaced by another client" };

async function echoBridge() {
  const running = await testBridge();
  await running.endpoint("echo");
  const clients = async () => (await running.endpoint("echo")).clients;
  return { ...running, clients, json: (path: string) => JsonClient.open(running, path) };
}

async function post(running: RunningBridge, name: string, body: object): Promise<[number, string]> {
  const { guest, id } = await running.endpoint(name);
  const response = await fetch(`${running.url}/api/v1/guests/${guest}/endpoints/${id}/messages`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const answer = (await response.json()) as { code?: string; data?: string };
  return [response.status, answer.code ?? answer.data ?? ""];
}

async function expectEcho(client: JsonClient): Promise<void> {
  client.send("still here", { id: "last" });
  expect(await client.next("sent")).toEqual({ type: "sent", id: "last" });
  expect(await client.next("message")).toMatchObject({ data: "still here" });
}

describe("an exclusive client is the only one of its endpoint", () => {
  test.each([
    ["rpmsg.v1.raw", ""],
    ["rpmsg.v1.raw", "?share=shared"],
    ["rpmsg.v1.raw", "?share=private&local=2000"],
    ["rpmsg.v1.json", ""],
    ["rpmsg.v1.json", "?share=shared"],
  ])("while another is there, it is refused with 409: %s%s", async (protocol, query) => {
    const { connect, refusal, clients, json } = await echoBridge();
    const other = await connect(ECHO + query, [protocol]);
    for (const each of ["rpmsg.v1.raw", "rpmsg.v1.json"]) {
      expect(await refusal(EXCLUSIVE, { protocols: [each] })).toMatchObject(IN_USE);
    }
    expect(await clients()).toBe(1);
    expect(other.socket.readyState).toBe(other.socket.OPEN);
    await other.close();
    await expectEcho(await json(EXCLUSIVE));
  });

  test.each([EXCLUSIVE, `${EXCLUSIVE}&local=2000`])(
    "while it is there, others are refused: %s",
    async (path) => {
      const { refusal, clients, json, connect } = await echoBridge();
      const client = await json(path);
      for (const protocols of [["rpmsg.v1.raw"], ["rpmsg.v1.json"]]) {
        for (const query of ["", "?share=private", "?share=shared", "?share=exclusive", "?local=3000"]) {
          expect(await refusal(ECHO + query, { protocols })).toMatchObject(IN_USE);
        }
      }
      expect(await clients()).toBe(1);
      await expectEcho(client);
      await client.close();
      const next = [await connect(ECHO), await connect(`${ECHO}?share=shared`)];
      for (const [i, each] of next.entries()) {
        each.send(`${i}`);
        expect(await each.text()).toBe(`${i}`);
      }
    },
  );

  test("a raw one, which vanishes, makes room too", async () => {
    const { refusal, endpoint, connect } = await echoBridge();
    const client = await connect(EXCLUSIVE);
    expect(await refusal(ECHO)).toMatchObject(IN_USE);
    client.socket.terminate();
    await endpoint("echo", (each) => each.clients === 0);
    await connect(EXCLUSIVE);
  });

  test("other endpoints are no concern of it", async () => {
    const { json } = await echoBridge();
    await json("/ws/v1/demo/sink");
    await json(EXCLUSIVE);
    const source = await json("/ws/v1/demo/source?share=exclusive");
    await expectEcho(await json(TAKEOVER));
    expect(await source.all()).toEqual([]);
  });

  test("a message over HTTP is refused with 409 while it is there, and taken afterwards", async () => {
    const running = await echoBridge();
    const client = await running.json(EXCLUSIVE);
    expect(await post(running, "echo", { data: "x", wait: 1000 })).toEqual([409, "endpoint-in-use"]);
    await expectEcho(client);
    await client.close();
    expect(await post(running, "echo", { data: "x", wait: 1000 })).toEqual([200, "x"]);
  });

  test("a message over HTTP that waits for its reply is a client", async () => {
    const running = await echoBridge();
    const waiting = post(running, "sink", { data: "no answer", wait: 20_000 });
    await running.endpoint("sink", (each) => each.clients === 1);
    expect(await running.refusal("/ws/v1/demo/sink?share=exclusive")).toMatchObject(IN_USE);
    await running.json("/ws/v1/demo/sink?share=exclusive&takeover=1");
    expect(await waiting).toEqual([409, "endpoint-in-use"]);
  });

  test("on a service of the host it serves the service's own address", async () => {
    const running = await vhostBridge({}, { endpoints: [{ name: "raw", address: 1040 }] });
    const valve = new Valve(true);
    const other = new Valve(true);
    const services = { raw: { service: valve.factory, ns: "down" }, other: other.factory } as const;
    await running.attach({ services });
    await running.endpoint("other");
    await running.endpoint("raw", (each) => each.state === "connected");
    const client = await JsonClient.open(running, "/ws/v1/vm/raw?share=exclusive");
    expect(client.hello.local).toBe(1040);
    valve.context?.send(1040, Buffer.from("a request"));
    const { src, data } = await client.next("message");
    expect(data).toBe("a request");
    client.send("an answer", { id: 1, dst: src });
    expect(await client.next("sent")).toEqual({ type: "sent", id: 1 });
    expect(await running.refusal("/ws/v1/vm/raw")).toMatchObject(IN_USE);
    // Nor does a client of another endpoint hear what comes there.
    const path = "/ws/v1/vm/other?share=shared&local=1040";
    expect(await running.refusal(path)).toMatchObject({ status: 409, code: "local-in-use" });
  });
});

describe("takeover=1", () => {
  test("ends all others with 4003, json ones without a state, and is the only one from then on", async () => {
    const { connect, json, refusal, clients } = await echoBridge();
    const raw = [await connect(ECHO), await connect(`${ECHO}?share=shared`)];
    const others = [await json(ECHO), await json(`${ECHO}?share=shared`)];
    const bystander = await json("/ws/v1/demo/sink");
    const taker = await json(TAKEOVER);
    for (const client of [...raw, ...others]) expect(await client.closed).toEqual(REPLACED);
    for (const client of others) expect(client.received).toBe(0);
    expect(await clients()).toBe(1);
    expect(await refusal(ECHO)).toMatchObject(IN_USE);
    await expectEcho(taker);
    expect(await bystander.all()).toEqual([]);
  });

  test.each(["rpmsg.v1.raw", "rpmsg.v1.json"])("ends an exclusive one, and so on: %s", async (protocol) => {
    const { connect, clients, refusal } = await echoBridge();
    let last = await connect(EXCLUSIVE, [protocol]);
    for (let i = 0; i < 3; i++) {
      const next = await connect(TAKEOVER, [protocol]);
      expect(await last.closed).toEqual(REPLACED);
      last = next;
    }
    expect(await clients()).toBe(1);
    expect(await refusal(EXCLUSIVE)).toMatchObject(IN_USE);
    await last.close();
    await connect(ECHO);
  });

  test("finds nobody: it is an exclusive client as any", async () => {
    const { json, refusal } = await echoBridge();
    await expectEcho(await json(TAKEOVER));
    expect(await refusal(ECHO)).toMatchObject(IN_USE);
  });

  test("takeover=0 takes nothing over", async () => {
    const { json, refusal } = await echoBridge();
    const client = await json(ECHO);
    expect(await refusal(`${EXCLUSIVE}&takeover=0`)).toMatchObject(IN_USE);
    await expectEcho(client);
  });

  test.each(["", "&share=private", "&share=shared"])(
    "without exclusive is 400, and ends nobody: takeover=1%s",
    async (query) => {
      const { json, refusal } = await echoBridge();
      const client = await json(ECHO);
      for (const protocols of [["rpmsg.v1.raw"], ["rpmsg.v1.json"]]) {
        const problem = await refusal(`${ECHO}?takeover=1${query}`, { protocols });
        expect(problem).toMatchObject({ status: 400, code: "bad-request" });
        expect(problem.detail).toContain("share=exclusive");
      }
      await expectEcho(client);
    },
  );

  test.each([
    ["the name service's", 53],
    ["another endpoint's client's", 2000],
  ])("that is refused ends nobody: its local address is %s", async (_whose, local) => {
    const { json, refusal } = await echoBridge();
    await json("/ws/v1/demo/sink?local=2000");
    const client = await json(EXCLUSIVE);
    expect(await refusal(`${TAKEOVER}&local=${local}`)).toMatchObject({ status: 409, code: "local-in-use" });
    await expectEcho(client);
  });

  test("has the local address of the one that it replaces, whose messages still wait", async () => {
    const running = await vhostBridge();
    const valve = new Valve();
    const attached = await running.attach({ profile: "rpmsg-lite", services: { valve: valve.factory } });
    await running.endpoint("valve");
    const path = "/ws/v1/vm/valve?share=exclusive&local=2000";
    const client = await JsonClient.open(running, path);
    for (let i = 0; i < 10; i++) client.send(`${i}`, { id: i });
    await running.endpoint("valve", (each) => each.counters.accepted === 10);
    const taker = await JsonClient.open(running, `${path}&takeover=1`);
    expect(await client.closed).toEqual(REPLACED);
    expect(taker.hello.local).toBe(2000);
    taker.send("mine", { id: "mine" });
    valve.release(attached);
    expect(await taker.next("sent")).toEqual({ type: "sent", id: "mine" });
  });
});
