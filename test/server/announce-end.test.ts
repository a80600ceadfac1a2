import { describe, expect, test } from "vitest";
import type { Service, ServiceContext } from "../../guest/service.ts";
import { JsonClient } from "./json-client.ts";
import { RawClient } from "./raw-client.ts";
import type { Client, RunningBridge } from "./support.ts";
import { eventually } from "./support.ts";
import { vhostBridge } from "./vhost-guest.ts";

const PATH = "/ws/v1/vm?announce=service&local=1040";
const PROTOCOLS = ["rpmsg.v1.raw", "rpmsg.v1.json"];

/** A guest that counts what the host announces to it, and what it withdraws. */
async function countingGuest() {
  const running = await vhostBridge();
  const made: string[] = [];
  const ended: string[] = [];
  const half = ({ name }: ServiceContext): Service => {
    made.push(name);
    return { onMessage: () => true, close: () => ended.push(name) };
  };
  const attached = await running.attach({ services: { other: half }, otherService: () => half });
  await running.endpoint("other");
  return { ...running, attached, made, ended };
}

async function serve(running: RunningBridge, protocol: string): Promise<Client> {
  const service = await running.connect(PATH, [protocol]);
  await running.endpoint("service", (each) => each.state === "connected");
  return service;
}

/** Not listed, and its address is free. */
async function expectWithdrawn(running: RunningBridge): Promise<void> {
  expect((await running.endpoints()).filter((each) => each.origin === "host")).toEqual([]);
  expect(await running.refusal("/ws/v1/vm/service")).toMatchObject({ status: 404, code: "endpoint-unknown" });
  const client = await running.connect("/ws/v1/vm/other?local=1040");
  await client.close();
}

async function gone(running: RunningBridge): Promise<void> {
  await eventually("the end of the service", async () =>
    (await running.endpoints()).some((each) => each.origin === "host") ? undefined : true,
  );
}

describe.each(PROTOCOLS)("an announcement lives as long as its socket: %s", (protocol) => {
  test.each<[string, (service: Client) => unknown]>([
    ["closes", (service) => service.socket.close()],
    ["closes with a code of its own", (service) => service.socket.close(4321)],
    ["vanishes", (service) => service.socket.terminate()],
    [
      "sends what is no WebSocket frame",
      (service) => (service.socket as unknown as Wire)._socket.write("\xff\xff"),
    ],
  ])("when it %s, the guest is told, and it is gone", async (_how, end) => {
    const running = await countingGuest();
    const service = await serve(running, protocol);
    expect(running.made).toEqual(["other", "service"]);
    end(service);
    await gone(running);
    await expectWithdrawn(running);
    await eventually("the guest is told", () => running.ended[0]);
    expect(running.ended).toEqual(["service"]);
    await serve(running, protocol);
    expect(running.made).toEqual(["other", "service", "service"]);
  });

  test("when it is deleted over HTTP, it closes with 4002", async () => {
    const running = await countingGuest();
    const service = await serve(running, protocol);
    const { id } = await running.endpoint("service");
    const url = `${running.url}/api/v1/guests/vm/endpoints/${id}`;
    expect((await fetch(url, { method: "DELETE" })).status).toBe(204);
    expect(await service.closed).toEqual({ code: 4002, reason: "endpoint withdrawn" });
    await expectWithdrawn(running);
    await eventually("the guest is told", () => running.ended[0]);
  });

  test("when the guest is reset, it closes with 4001, and the next generation is not told of it", async () => {
    const running = await countingGuest();
    const service = await serve(running, protocol);
    await running.attached.vm.reboot();
    expect(await service.closed).toEqual({ code: 4001, reason: "guest detached or reset" });
    await gone(running);
    await running.endpoint("other", (each) => each.generation === 2);
    await expectWithdrawn(running);
    const again = await serve(running, protocol);
    expect(running.made.slice(-2)).toEqual(["other", "service"]);
    expect(running.made.filter((each) => each === "service")).toHaveLength(2);
    await again.close();
  });

  test("when the guest is reset, nothing at all is told to the next generation", async () => {
    const running = await countingGuest();
    await serve(running, protocol);
    const told = async () => (await running.guest("vm")).counters.messagesToGuest;
    const before = await told();
    await running.attached.vm.reboot();
    await running.endpoint("other", (each) => each.generation === 2);
    const client = await running.connect("/ws/v1/vm/other");
    client.send("the first and only");
    await running.endpoint("other", (each) => each.counters.messagesToGuest === 1);
    expect(await told()).toBe(before + 1);
  });

  test("when the frontend goes, it closes with 4001; one for the next may come at once", async () => {
    const running = await countingGuest();
    const service = await serve(running, protocol);
    running.attached.vm.close();
    expect((await service.closed).code).toBe(4001);
    await gone(running);
    const next = await running.connect(PATH, [protocol]);
    expect(await running.endpoint("service")).toMatchObject({ state: "declared", generation: 2 });
    await running.attach();
    await running.endpoint("service", (each) => each.state === "connected");
    expect(next.socket.readyState).toBe(next.socket.OPEN);
  });

  test("when the bridge stops, it closes with 1001", async () => {
    const running = await countingGuest();
    const service = await serve(running, protocol);
    await running.bridge.drain();
    expect((await service.closed).code).toBe(1001);
  });
});

test("json: the reset is told before the end", async () => {
  const running = await countingGuest();
  const service = await JsonClient.open(running, PATH);
  await running.endpoint("service", (each) => each.state === "connected");
  await service.all();
  await running.attached.vm.reboot();
  await service.closed;
  const frames = await service.take(service.received);
  expect(frames.at(-1)).toMatchObject({ type: "state", state: "down", reason: "reset" });
});

test("json: there is no session to go on with, however the connection ended", async () => {
  const running = await countingGuest();
  const service = await JsonClient.open(running, PATH);
  await service.break();
  await gone(running);
  const next = await JsonClient.open(running, PATH);
  const path = `/ws/v1/vm/service?resume=${service.hello.session}&after=0`;
  expect(await running.refusal(path, { protocols: ["rpmsg.v1.json"] })).toMatchObject({ status: 409 });
  expect(next.hello.session).not.toBe(service.hello.session);
});

test("a service whose client does not answer the close is gone with the reset all the same", async () => {
  const running = await countingGuest();
  // Neither answers nor closes.
  const service = await RawClient.open(running.url, PATH);
  await running.endpoint("service", (each) => each.state === "connected");
  await running.attached.vm.reboot();
  expect(await service.closeCode()).toBe(4001);
  await running.endpoint("other", (each) => each.generation === 2);
  await expectWithdrawn(running);
  expect(running.made.filter((each) => each === "service")).toHaveLength(1);
});

/** What ws keeps to itself. */
interface Wire {
  _socket: { write(text: string): void };
}
