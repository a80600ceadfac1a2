import { describe, expect, test } from "vitest";
import { z } from "zod";
import type { Endpoint, Guest } from "../../schemas/index.ts";
import { JsonClient } from "./json-client.ts";
import type { Client, RunningBridge } from "./support.ts";
import { testBridge } from "./support.ts";
import { allRights } from "./tokens.ts";
import { vhostBridge } from "./vhost-guest.ts";

const RAW = "rpmsg.v1.raw";
const JSON_FRAMES = "rpmsg.v1.json";
const MUX = "rpmsg.v1.mux";

/** What the connection speaks, as it shows. */
async function spoken(client: Client): Promise<string> {
  client.send("hello");
  const first = await client.text();
  if (first === "hello") return RAW;
  return (JSON.parse(first) as { protocol: string }).protocol;
}

describe("the subprotocol of an endpoint's path", () => {
  test.each([
    ["none, which means raw", [], "", RAW],
    ["raw", [RAW], RAW, RAW],
    ["json", [JSON_FRAMES], JSON_FRAMES, JSON_FRAMES],
    ["the client's first choice of two: raw", [RAW, JSON_FRAMES], RAW, RAW],
    ["the client's first choice of two: json", [JSON_FRAMES, RAW], JSON_FRAMES, JSON_FRAMES],
    ["the first that is known", ["rpmsg.v2.json", MUX, JSON_FRAMES, RAW], JSON_FRAMES, JSON_FRAMES],
  ])("%s", async (_what, offered, chosen, speaks) => {
    const { connect, endpoint } = await testBridge();
    await endpoint("echo");
    const client = await connect("/ws/v1/demo/echo", offered);
    expect(client.socket.protocol).toBe(chosen);
    expect(await spoken(client)).toBe(speaks);
  });

  test("on /ws/v1 is mux, offered or not", async () => {
    const { connect } = await testBridge();
    for (const offered of [[], [MUX], [RAW, MUX]]) {
      const client = await connect("/ws/v1", offered);
      expect(client.socket.protocol).toBe(offered.length === 0 ? "" : MUX);
      expect(await spoken(client)).toBe(MUX);
    }
  });
});

describe("an unknown subprotocol is refused before the upgrade, with the list of known ones", () => {
  test.each([
    ["/ws/v1/demo/echo", ["chat"], [RAW, JSON_FRAMES]],
    ["/ws/v1/demo/echo", ["rpmsg.v2.raw", "rpmsg.v2.json"], [RAW, JSON_FRAMES]],
    ["/ws/v1/demo/echo", ["RPMSG.V1.RAW"], [RAW, JSON_FRAMES]],
    ["/ws/v1/demo/echo", [MUX], [RAW, JSON_FRAMES]],
    ["/ws/v1/demo?announce=service", ["chat"], [RAW, JSON_FRAMES]],
    ["/ws/v1/demo?announce=service", [MUX], [RAW, JSON_FRAMES]],
    ["/ws/v1", ["chat"], [MUX]],
    ["/ws/v1", [RAW], [MUX]],
    ["/ws/v1", [JSON_FRAMES, RAW], [MUX]],
  ])("%s with %j", async (path, protocols, known) => {
    const { refusal, endpoints, endpoint } = await testBridge();
    await endpoint("echo");
    const problem = await refusal(path, { protocols });
    expect(problem).toMatchObject({ status: 400, code: "bad-request" });
    for (const name of [...protocols, ...known]) expect(problem.detail).toContain(name);
    const list = problem.detail.slice(problem.detail.indexOf("want"));
    for (const name of [RAW, JSON_FRAMES, MUX]) expect(list.includes(name)).toBe(known.includes(name));
    const all = await endpoints();
    expect(all.map((each) => each.name)).not.toContain("service");
    for (const each of all) expect(each.clients).toBe(0);
  });

  test.each(["", ",", `${RAW},,${JSON_FRAMES}`, `${RAW}, ${RAW}`, `${RAW}, "x"`])(
    "a header that is no list of them, before anybody is told of a service: %j",
    async (header) => {
      const { refusal, endpoint, guest } = await testBridge();
      await endpoint("echo");
      const before = (await guest("demo")).counters.messagesToGuest;
      for (const path of ["/echo?share=exclusive&takeover=1", "?announce=service"]) {
        const problem = await refusal(`/ws/v1/demo${path}`, {
          headers: { "sec-websocket-protocol": header },
        });
        expect(problem).toMatchObject({ status: 400, code: "bad-request" });
        expect(problem.detail).toContain(JSON_FRAMES);
      }
      expect((await guest("demo")).counters.messagesToGuest).toBe(before);
    },
  );
});

test.each([
  ["/ws/v1/demo/echo", [RAW, JSON_FRAMES]],
  ["/ws/v1", [MUX]],
])(
  "a credential alone is no subprotocol to speak: %s says which has to stand beside it",
  async (path, known) => {
    const token = allRights();
    const { refusal } = await testBridge({ tokens: [token.config] });
    const problem = await refusal(path, { protocols: [`rpmsg.bearer.${token.token}`] });
    expect(problem).toMatchObject({ status: 400, code: "bad-request" });
    expect(problem.detail).toBe(
      `no subprotocol to speak is offered: want ${known.join(" or ")}, beside rpmsg.bearer.TOKEN where that is`,
    );
  },
);

describe("the greeting of rpmsg.v1.json is the first frame", () => {
  /** The greeting, and what the resources say of the same things. */
  async function greeting(running: RunningBridge, guest: string, { path, id }: Endpoint) {
    const client = await JsonClient.open(running, path);
    const endpoint = (await running.endpoints()).find((each) => each.id === id) as Endpoint;
    return { client, hello: client.hello, endpoint, guest: await running.guest(guest) };
  }

  function expectSame(running: RunningBridge, got: Awaited<ReturnType<typeof greeting>>): void {
    const { hello, endpoint, guest } = got;
    expect(hello).toEqual({
      type: "hello",
      protocol: JSON_FRAMES,
      guest: guest.name,
      endpoint: endpoint.name,
      id: endpoint.id,
      local: expect.any(Number) as number,
      endpointState: endpoint.state,
      guestState: guest.state,
      generation: endpoint.generation,
      mtu: endpoint.mtu,
      instance: running.bridge.instance,
      session: expect.stringMatching(/^[\w-]{16,64}$/) as string,
      resumed: false,
    });
    expect(z.uuid().safeParse(hello.instance).success).toBe(true);
    expect(endpoint.generation).toBe(guest.generation);
    expect(endpoint.clients).toBe(1);
  }

  test("of an endpoint of the guest, with an address of the channel's own", async () => {
    const running = await testBridge();
    const got = await greeting(running, "demo", await running.endpoint("echo"));
    expectSame(running, got);
    expect(got.hello).toMatchObject({ endpointState: "connected", guestState: "attached", mtu: 496 });
    expect(got.hello.local).toBeGreaterThanOrEqual(1024);
    const second = await JsonClient.open(running, "/ws/v1/demo/echo?local=7");
    expect(second.hello).toMatchObject({ local: 7, instance: got.hello.instance });
    expect(second.hello.session).not.toBe(got.hello.session);
  });

  test("of a service of the host, with the service's address", async () => {
    const endpoints = [{ name: "rpmsg-raw", address: 1040 }];
    const running = await testBridge({ guests: { demo: { kind: "emulated", endpoints } } });
    const listed = await running.endpoint("rpmsg-raw", (each) => each.state === "connected");
    const got = await greeting(running, "demo", listed);
    expectSame(running, got);
    expect(got.hello.local).toBe(1040);
    const own = await JsonClient.open(running, "/ws/v1/demo/rpmsg-raw?share=private");
    expect(own.hello.local).not.toBe(1040);
  });

  test("of a guest that waits, and of one in its second generation", async () => {
    const endpoints = [{ name: "rpmsg-raw", address: 1040 }];
    const running = await vhostBridge({}, { endpoints });
    const waiting = await greeting(running, "vm", await running.endpoint("rpmsg-raw"));
    expectSame(running, waiting);
    expect(waiting.hello).toMatchObject({ endpointState: "declared", guestState: "waiting", generation: 1 });
    await waiting.client.close();
    const { vm } = await running.attach();
    await running.endpoint("rpmsg-raw", (each) => each.state === "connected");
    await vm.reboot();
    const again = await running.endpoint(
      "rpmsg-raw",
      (each) => each.generation === 2 && each.state === "connected",
    );
    const second = await greeting(running, "vm", again);
    expectSame(running, second);
    expect(second.hello).toMatchObject({ generation: 2, id: waiting.hello.id });
  });

  test("of an endpoint whose name is not ASCII", async () => {
    const endpoints = [{ name: "Größe 5µm", address: 1040 }];
    const running = await testBridge({ guests: { demo: { kind: "emulated", endpoints } } });
    const got = await greeting(
      running,
      "demo",
      await running.endpoint("Größe 5µm", (each) => each.state === "connected"),
    );
    expectSame(running, got);
  });

  test("of a service that the client itself announces", async () => {
    const running = await testBridge();
    const client = await JsonClient.open(running, "/ws/v1/demo?announce=service&local=1040");
    const endpoint = await running.endpoint("service");
    const guest: Guest = await running.guest("demo");
    expect(client.hello).toMatchObject({ endpoint: "service", id: endpoint.id, local: 1040 });
    expect(client.hello).toMatchObject({ guest: guest.name, generation: 1, resumed: false });
  });
});
