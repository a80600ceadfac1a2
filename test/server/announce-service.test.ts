import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import type { Service, ServiceContext } from "../../guest/service.ts";
import { closeFd, connectUnix } from "../../rpmsg/posix/unix-socket.ts";
import { JsonClient } from "./json-client.ts";
import { eventually, testBridge, testDirectory } from "./support.ts";
import { vhostBridge } from "./vhost-guest.ts";

const IN_USE = { status: 409, code: "endpoint-in-use" };

/** What a guest has for the host's announcements: it keeps what comes. */
class Halves {
  readonly contexts: ServiceContext[] = [];
  readonly taken: string[] = [];

  readonly factory = (context: ServiceContext): Service => {
    this.contexts.push(context);
    return {
      onMessage: (src, bytes, offset, length) => {
        this.taken.push(`${src}: ${Buffer.from(bytes.subarray(offset, offset + length)).toString()}`);
        return true;
      },
    };
  };
}

describe("a client that announces is the service", () => {
  test("raw: the guest sees it, introduces itself, and is answered", async () => {
    const { connect, endpoint } = await testBridge();
    const service = await connect("/ws/v1/demo?announce=service");
    // The guest tells its address with an empty message.
    expect(await service.text()).toBe("");
    service.send("a request");
    expect(await service.text()).toBe("a request");
    expect(await endpoint("service")).toMatchObject({
      guest: "demo",
      name: "service",
      origin: "host",
      ns: "down",
      state: "connected",
      clients: 1,
      path: "/ws/v1/demo/service",
    });
  });

  test("json: with states, sources and results", async () => {
    const running = await vhostBridge();
    const halves = new Halves();
    await running.attach({
      services: {},
      otherService: (name) => (name === "service" ? halves.factory : undefined),
    });
    const service = await JsonClient.open(running, "/ws/v1/vm?announce=service&local=1040&encoding=hex");
    expect(service.hello).toMatchObject({ endpoint: "service", local: 1040, guestState: "attached" });
    const { endpointState } = service.hello;
    if (endpointState === "declared") expect((await service.next("state")).endpointState).toBe("announced");
    expect((await service.next("state")).endpointState).toBe("connected");
    const [half] = halves.contexts as [ServiceContext];
    expect(half).toMatchObject({ name: "service", peer: 1040 });
    expect(await service.next("message")).toMatchObject({ seq: 1, src: half.address, data: "" });
    half.send(1040, Buffer.from("hi"));
    expect(await service.next("message")).toMatchObject({ seq: 2, src: half.address, data: "6869" });
    service.send("an answer", { id: 1, dst: half.address });
    expect(await service.next("sent")).toEqual({ type: "sent", id: 1 });
    await eventually("it", () => halves.taken[0]);
    expect(halves.taken).toEqual(["1040: an answer"]);
  });

  test.each([
    ["1040", 1040],
    ["0x7", 7],
    ["70000", 70_000],
  ])("at the address that local= says: %s", async (text, local) => {
    const { connect, endpoint } = await testBridge();
    await connect(`/ws/v1/demo?announce=service&local=${text}`);
    expect(await endpoint("service")).toMatchObject({ address: local });
  });

  test("at an address of its own without local=, and several may have one name", async () => {
    const { connect, endpoints } = await testBridge();
    const services = [
      await connect("/ws/v1/demo?announce=service"),
      await connect("/ws/v1/demo?announce=service"),
      await connect("/ws/v1/demo?announce=echo", ["rpmsg.v1.json"]),
    ];
    const host = (await endpoints()).filter((each) => each.origin === "host");
    expect(new Set(host.map((each) => each.address)).size).toBe(3);
    for (const { address } of host) expect(address).toBeGreaterThanOrEqual(1024);
    const [first, second, third] = host;
    expect([first?.path, second?.path]).toEqual([
      "/ws/v1/demo/service",
      `/ws/v1/demo/service@${second?.address}`,
    ]);
    // The guest has an "echo" of its own, and it is the older one.
    expect(third?.path).toMatch(/^\/ws\/v1\/demo\/(echo@\d+|~e\d+)$/);
    for (const [i, service] of services.slice(0, 2).entries()) {
      expect(await service.text()).toBe("");
      service.send(`${i}`);
      expect(await service.text()).toBe(`${i}`);
    }
  });

  test.each([
    ["Gr%C3%B6%C3%9Fe", "Größe"],
    ["a%20b", "a b"],
    ["a+b", "a b"],
    ["%40%7E%2F%3F", "@~/?"],
    ["x".repeat(31), "x".repeat(31)],
  ])("under the name in the query: %s", async (text, name) => {
    const { connect, endpoint } = await testBridge();
    const service = await connect(`/ws/v1/demo?announce=${text}`);
    expect(await service.text()).toBe("");
    await endpoint(name, (each) => each.state === "connected" && each.clients === 1);
  });

  test("is the only client, and stays it", async () => {
    const running = await testBridge();
    const service = await JsonClient.open(running, "/ws/v1/demo?announce=service");
    const { id } = service.hello;
    for (const protocols of [["rpmsg.v1.raw"], ["rpmsg.v1.json"]]) {
      for (const path of ["service", `~${id}`, "service?share=exclusive", "service?share=private"]) {
        expect(await running.refusal(`/ws/v1/demo/${path}`, { protocols })).toMatchObject(IN_USE);
      }
      // It is the service: whoever took it over would have none.
      const takeover = "/ws/v1/demo/service?share=exclusive&takeover=1";
      expect(await running.refusal(takeover, { protocols })).toMatchObject(IN_USE);
    }
    const response = await fetch(`${running.url}/api/v1/guests/demo/endpoints/${id}/messages`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ data: "x" }),
    });
    expect(response.status).toBe(409);
    expect((await running.endpoint("service")).clients).toBe(1);
    service.send("still here", { id: 1 });
    const frames = await service.all();
    expect(frames).toContainEqual({ type: "sent", id: 1 });
    expect(service.socket.readyState).toBe(service.socket.OPEN);
  });

  test("may be there before the guest, which is told when it attaches", async () => {
    const running = await vhostBridge();
    const early = await JsonClient.open(running, "/ws/v1/vm?announce=early&local=1040");
    const raw = await running.connect("/ws/v1/vm?announce=raw");
    expect(early.hello).toMatchObject({ guestState: "waiting", endpointState: "declared", generation: 1 });
    expect(await running.endpoint("early")).toMatchObject({ state: "declared", clients: 1 });
    early.send("waits", { id: 1 });
    const halves = new Halves();
    await running.attach({ services: {}, otherService: () => halves.factory });
    const states: string[] = [];
    while (states.at(-1) !== "connected") states.push((await early.next("state")).endpointState);
    expect([...new Set(states)]).toEqual(["declared", "announced", "connected"]);
    const frames = await early.take(2);
    expect(frames.map(({ type }) => type).toSorted()).toEqual(["message", "sent"]);
    expect(await raw.text()).toBe("");
    await eventually("it", () => halves.taken[0]);
    expect(halves.taken).toEqual(["1040: waits"]);
    expect(halves.contexts.map(({ name }) => name)).toEqual(["early", "raw"]);
  });

  test("may be there while a frontend is, and its driver is not", async () => {
    const path = join(testDirectory(), "vm.sock");
    const running = await testBridge({ guests: { vm: { kind: "vhost-user", path } } });
    const fd = connectUnix(path);
    onTestFinished(() => {
      closeFd(fd);
    });
    await eventually("the frontend", async () =>
      (await running.guest("vm")).state === "detached" ? true : undefined,
    );
    const client = await JsonClient.open(running, "/ws/v1/vm?announce=early");
    expect(client.hello).toMatchObject({ guestState: "detached", endpointState: "declared" });
    expect(await running.endpoint("early")).toMatchObject({ state: "declared", clients: 1 });
  });
});
