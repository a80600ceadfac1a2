import { describe, expect, test } from "vitest";
import type { Service, ServiceContext } from "../../guest/service.ts";
import { JsonClient } from "./json-client.ts";
import type { RunningBridge } from "./support.ts";
import { testBridge } from "./support.ts";
import { vhostBridge } from "./vhost-guest.ts";

const LOCAL_IN_USE = { status: 409, code: "local-in-use" };

/** As a character device of Linux: answers its channel's fixed destination, whoever has sent. */
function fixedDestination(context: ServiceContext): Service {
  return { onMessage: (_src, bytes, offset, length) => context.send(1030, bytes, offset, length) };
}

async function post(running: RunningBridge, name: string, body: object): Promise<[number, string]> {
  const { guest, id } = await running.endpoint(name);
  const response = await fetch(`${running.url}/api/v1/guests/${guest}/endpoints/${id}/messages`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const answer = (await response.json()) as { code?: string; data?: string; result?: string };
  return [response.status, answer.code ?? answer.data ?? answer.result ?? ""];
}

describe("local= of rpmsg.v1.json", () => {
  test.each([
    ["private", "2000", 2000],
    ["private", "0x7d0", 2000],
    ["shared", "7", 7],
    ["exclusive", "70000", 70_000],
    ["private", "0xfffffffe", 0xffff_fffe],
  ])("binds a %s channel to %s", async (share, text, local) => {
    const running = await testBridge();
    await running.endpoint("echo");
    const client = await JsonClient.open(running, `/ws/v1/demo/echo?share=${share}&local=${text}`);
    expect(client.hello.local).toBe(local);
    client.send("hello");
    expect((await client.next("message")).data).toBe("hello");
    const protocols = ["rpmsg.v1.json"];
    expect(await running.refusal(`/ws/v1/demo/sink?local=${local}`, { protocols })).toMatchObject(
      LOCAL_IN_USE,
    );
    await client.close();
    expect((await JsonClient.open(running, `/ws/v1/demo/sink?local=${local}`)).hello.local).toBe(local);
  });

  test("with share=shared joins who has it shared, raw and json; nobody else may", async () => {
    const running = await testBridge();
    await running.endpoint("echo");
    const path = "/ws/v1/demo/echo?share=shared&local=2000";
    const clients = [await JsonClient.open(running, path), await JsonClient.open(running, path)];
    const raw = await running.connect(path);
    clients[0]?.send("one");
    for (const client of clients) expect((await client.next("message")).data).toBe("one");
    expect(await raw.text()).toBe("one");
    for (const query of ["local=2000", "share=private&local=2000"]) {
      expect(await running.refusal(`/ws/v1/demo/echo?${query}`)).toMatchObject(LOCAL_IN_USE);
    }
    const alone = await JsonClient.open(running, "/ws/v1/demo/echo?local=3000");
    const joining = "/ws/v1/demo/echo?share=shared&local=3000";
    expect(await running.refusal(joining)).toMatchObject(LOCAL_IN_USE);
    expect(alone.hello.local).toBe(3000);
  });

  test("is what a guest needs that answers a fixed address", async () => {
    const running = await vhostBridge();
    await running.attach({ services: { fixed: fixedDestination } });
    await running.endpoint("fixed");
    const client = await JsonClient.open(running, "/ws/v1/vm/fixed");
    const named = await JsonClient.open(running, "/ws/v1/vm/fixed?local=1030");
    client.send("one");
    named.send("two");
    expect((await named.texts(2)).toSorted()).toEqual(["one", "two"]);
    expect(await client.all()).toEqual([]);
  });
});

describe("an endpoint with a configured local address", () => {
  async function configured() {
    const running = await vhostBridge({}, { endpoints: [{ name: "fixed", ns: "up", local: 1030 }] });
    const { vm } = await running.attach({ services: { fixed: fixedDestination } });
    await running.endpoint("fixed", (each) => each.state === "connected");
    return { ...running, vm, json: (query = "") => JsonClient.open(running, `/ws/v1/vm/fixed${query}`) };
  }

  test("gives it to a client that names none", async () => {
    const { json, refusal, connect } = await configured();
    const client = await json();
    expect(client.hello.local).toBe(1030);
    client.send("hello");
    expect((await client.next("message")).data).toBe("hello");
    expect(await refusal("/ws/v1/vm/fixed")).toMatchObject(LOCAL_IN_USE);
    await client.close();
    const raw = await connect("/ws/v1/vm/fixed");
    raw.send("again");
    expect(await raw.text()).toBe("again");
  });

  test("gives it to all that share it, and to an exclusive one", async () => {
    const { json, refusal } = await configured();
    const clients = [await json("?share=shared"), await json("?share=shared")];
    expect(clients.map((each) => each.hello.local)).toEqual([1030, 1030]);
    clients[0]?.send("hello");
    for (const client of clients) expect((await client.next("message")).data).toBe("hello");
    expect(await refusal("/ws/v1/vm/fixed")).toMatchObject(LOCAL_IN_USE);
    for (const client of clients) await client.close();
    const alone = await json("?share=exclusive");
    expect(alone.hello.local).toBe(1030);
  });

  test("gives another one where the client names it", async () => {
    const { json } = await configured();
    const [client, other] = [await json(), await json("?local=2000")];
    expect([client, other].map((each) => each.hello.local)).toEqual([1030, 2000]);
    other.send("hello");
    expect((await client.next("message")).data).toBe("hello");
    expect(await other.all()).toEqual([]);
  });

  test("has it for messages over HTTP, which get their answer there", async () => {
    const running = await configured();
    expect(await post(running, "fixed", { data: "hello", wait: 15_000 })).toEqual([200, "hello"]);
    const client = await running.json();
    expect(await post(running, "fixed", { data: "x" })).toEqual([409, "local-in-use"]);
    await client.close();
    const shared = await running.json("?share=shared");
    expect(await post(running, "fixed", { data: "x", local: 1030 })).toEqual([202, "sent"]);
    expect((await shared.next("message")).data).toBe("x");
  });

  test("has it again after a reset", async () => {
    const { json, endpoint, vm } = await configured();
    const before = await json();
    await vm.reboot();
    expect((await before.closed).code).toBe(4001);
    await endpoint("fixed", (each) => each.generation === 2 && each.state === "connected");
    const after = await json();
    expect(after.hello.local).toBe(1030);
    after.send("hello");
    expect((await after.next("message")).data).toBe("hello");
  });
});
