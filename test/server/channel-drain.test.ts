import { describe, expect, test } from "vitest";
import { opcode, RawClient } from "./raw-client.ts";
import { eventually, reached, testBridge } from "./support.ts";
import { Valve, vhostBridge } from "./vhost-guest.ts";

describe("a drain", () => {
  test("tells every client 1001, takes no new ones, and ends the guests", async () => {
    const { bridge, connect, refusal, url } = await testBridge();
    const clients = [await connect("/ws/v1/demo/echo"), await connect("/ws/v1/demo/tty")];
    const draining = bridge.drain();
    expect(bridge.ready).toBe(false);
    expect(await refusal("/ws/v1/demo/echo")).toMatchObject({ status: 503, code: "draining" });
    for (const client of clients) {
      expect(await client.closed).toEqual({ code: 1001, reason: "the bridge is stopping" });
    }
    await draining;
    expect((await fetch(`${url}/healthz`)).status).toBe(200);
    expect((await fetch(`${url}/readyz`)).status).toBe(503);
    await bridge.drain();
  });

  test("delivers what clients have sent before their connections end", async () => {
    const running = await vhostBridge({ limits: { sendQueueBytes: 65_536 } });
    const valve = new Valve();
    const attached = await running.attach({ profile: "rpmsg-lite", services: { valve: valve.factory } });
    await running.endpoint("valve");
    const clients = [
      await running.connect("/ws/v1/vm/valve"),
      await running.connect("/ws/v1/vm/valve?share=shared"),
    ];
    for (const [i, client] of clients.entries()) {
      for (let n = 0; n < 500; n++) client.send(`${i}: ${n}`);
    }
    await running.endpoint("valve", (each) => each.counters.accepted === 1000);
    const draining = running.bridge.drain();
    for (const client of clients) expect((await client.closed).code).toBe(1001);
    valve.release(attached);
    await draining;
    await eventually("the last of them", () => (valve.taken.length === 1000 ? true : undefined));
  });

  test("delivers a message that was on its way when the drain began", async () => {
    const running = await vhostBridge();
    const valve = new Valve(true);
    await running.attach({ services: { valve: valve.factory } });
    await running.endpoint("valve");
    const client = await running.connect("/ws/v1/vm/valve");
    client.send("on its way");
    const draining = running.bridge.drain();
    expect((await client.closed).code).toBe(1001);
    await draining;
    await eventually("the message", () => valve.taken[0]);
    expect(valve.taken.map(String)).toEqual(["on its way"]);
  });

  test("delivers to a guest that must get its answers out to go on", async () => {
    const running = await vhostBridge({ limits: { drainTimeout: 3000 } });
    const attached = await running.attach({ profile: "rpmsg-lite" });
    await running.endpoint("echo");
    const client = await running.connect("/ws/v1/vm/echo");
    await attached.vm.pause();
    for (let n = 0; n < 200; n++) client.send(`${n}`);
    await running.endpoint("echo", (each) => each.counters.accepted === 200);
    await attached.vm.resume();
    await running.bridge.drain();
    expect(running.bridge.guest("vm").counters.messagesToGuest).toBe(200);
  });

  test("delivers all that a client has sent which was held up, in order and without a gap", async () => {
    const running = await vhostBridge();
    const valve = new Valve();
    const attached = await running.attach({ profile: "rpmsg-lite", services: { valve: valve.factory } });
    await running.endpoint("valve");
    const client = await running.connect("/ws/v1/vm/valve");
    for (let n = 0; n < 20_000; n++) client.send(`message ${n}`.padEnd(100));
    await running.endpoint("valve", (each) => each.counters.accepted > 565);
    const drained = running.bridge.drain();
    // The guest is slower than the client, and comes round to reading in the midst of the drain.
    await eventually("the end is told", () =>
      client.socket.readyState === client.socket.OPEN ? undefined : true,
    );
    const until = performance.now() + 200;
    await eventually("time", () => (performance.now() > until ? true : undefined));
    valve.release(attached);
    await drained;
    expect((await client.closed).code).toBe(1001);
    await eventually("the last of them", () => valve.taken[19_999]);
    expect(valve.taken.findIndex((each, n) => each.toString().trim() !== `message ${n}`)).toBe(-1);
  });

  test("waits no longer than it may for clients that do not close and guests that do not read", async () => {
    const running = await vhostBridge({ limits: { drainTimeout: 300 } });
    const valve = new Valve();
    await running.attach({ profile: "rpmsg-lite", services: { valve: valve.factory } });
    await running.endpoint("valve");
    const client = await RawClient.open(running.url, "/ws/v1/vm/valve");
    for (let n = 0; n < 100; n++) client.send(opcode.binary, Buffer.from(`${n}`));
    await running.endpoint("valve", (each) => each.counters.accepted === 100);
    const started = performance.now();
    await running.bridge.drain();
    const took = performance.now() - started;
    expect(took).toBeGreaterThan(200);
    expect(took).toBeLessThan(4000);
    expect(await client.closeCode()).toBe(1001);
    await client.ended;
    expect(reached(running, "drainTimeout")).toBe(1);
  });

  test("counts the time as reached for a guest alone that does not read, and for a client alone that does not close", async () => {
    const limits = { drainTimeout: 100 };
    const guest = await vhostBridge({ limits });
    const valve = new Valve();
    await guest.attach({ profile: "rpmsg-lite", services: { valve: valve.factory } });
    await guest.endpoint("valve");
    const sender = await guest.connect("/ws/v1/vm/valve");
    for (let n = 0; n < 100; n++) sender.send(`${n}`);
    await guest.endpoint("valve", (each) => each.counters.accepted === 100);
    await guest.bridge.drain();
    expect(reached(guest, "drainTimeout")).toBe(1);
    const client = await testBridge({ limits });
    const silent = await RawClient.open(client.url, "/ws/v1/demo/echo");
    await client.bridge.drain();
    expect(reached(client, "drainTimeout")).toBe(1);
    await silent.ended;
  });

  test("does not wait for a guest that is paused or was never there", async () => {
    const running = await vhostBridge({}, { endpoints: [{ name: "raw" }] });
    const client = await running.connect("/ws/v1/vm/raw");
    client.send("to nobody");
    await running.endpoint("raw", (each) => each.counters.accepted === 1);
    const started = performance.now();
    await running.bridge.drain();
    expect(performance.now() - started).toBeLessThan(4000);
    expect((await client.closed).code).toBe(1001);
    expect(reached(running, "drainTimeout")).toBe(0);
  });
});
