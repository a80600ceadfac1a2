import { describe, expect, test } from "vitest";
import { opcode, RawClient } from "./raw-client.ts";
import { eventually } from "./support.ts";
import { Valve, vhostBridge } from "./vhost-guest.ts";

/** A guest with a service that takes nothing until it is told to. */
async function valveGuest(limits: Record<string, number> = {}) {
  const running = await vhostBridge({ limits });
  const valve = new Valve();
  const attached = await running.attach({ profile: "rpmsg-lite", services: { valve: valve.factory } });
  await running.endpoint("valve");
  const sent = async (count: number) =>
    running.endpoint("valve", (each) => each.counters.messagesToGuest >= count);
  return { ...running, valve, sent, vm: attached.vm, release: () => valve.release(attached) };
}

describe("a guest that posts no buffers", () => {
  test("a message that waits too long closes its client with 4004, no-buffer", async () => {
    const { connect, endpoint, guest } = await valveGuest({ sendTimeout: 30 });
    const client = await connect("/ws/v1/vm/valve");
    // 8 buffers, then the queue.
    for (let i = 0; i < 10; i++) client.send(`${i}`);
    expect(await client.closed).toEqual({ code: 4004, reason: "no-buffer" });
    expect((await endpoint("valve")).counters.undelivered).toBe(2);
    expect(await guest("vm")).toMatchObject({ state: "attached", counters: { messagesToGuest: 8 } });
  });

  test("costs the other endpoints' clients nothing that is sent to them", async () => {
    const { connect, valve, release, sent } = await valveGuest();
    const [one, other] = [await connect("/ws/v1/vm/valve"), await connect("/ws/v1/vm/valve")];
    for (let i = 0; i < 100; i++) one.send(`one ${i}`);
    await sent(100);
    for (let i = 0; i < 10; i++) other.send(`other ${i}`);
    await sent(110);
    release();
    await eventually("all of them", () => (valve.taken.length === 110 ? true : undefined));
    const texts = valve.taken.map(String);
    const of = (who: string) => texts.filter((text) => text.startsWith(who));
    expect(of("one")).toEqual(Array.from({ length: 100 }, (_, i) => `one ${i}`));
    expect(of("other")).toEqual(Array.from({ length: 10 }, (_, i) => `other ${i}`));
    // Served in turn: the other's ten do not wait for the hundred.
    expect(texts.indexOf("other 9")).toBeLessThan(40);
  });

  test("messages that wait when the client closes still arrive, and its address is taken until then", async () => {
    const { connect, refusal, sent, valve, release, endpoint } = await valveGuest();
    const client = await connect("/ws/v1/vm/valve?local=2000");
    for (let i = 0; i < 50; i++) client.send(`${i}`);
    await client.close();
    await sent(50);
    expect((await endpoint("valve")).clients).toBe(0);
    expect(await refusal("/ws/v1/vm/valve?local=2000")).toMatchObject({ status: 409 });
    release();
    await eventually("all of them", () => (valve.taken.length === 50 ? true : undefined));
    expect(valve.taken.map(String)).toEqual(Array.from({ length: 50 }, (_, i) => `${i}`));
    const next = await connect("/ws/v1/vm/valve?local=2000");
    next.send("next");
    await eventually("the next", () => (valve.taken.length === 51 ? true : undefined));
  });

  test("messages of a client that vanishes arrive too", async () => {
    const { connect, sent, valve, release } = await valveGuest();
    const client = await connect("/ws/v1/vm/valve");
    for (let i = 0; i < 50; i++) client.send(`${i}`);
    await sent(50);
    client.socket.terminate();
    await client.closed;
    release();
    await eventually("all of them", () => (valve.taken.length === 50 ? true : undefined));
  });
});

describe("a client that sends faster than the guest reads", () => {
  test.each([
    [0, 60_000],
    [1, 60_000],
    [496, 20_000],
  ])("is held up, and loses nothing: messages of %i bytes", async (size, count) => {
    const { connect, valve, release, endpoint, vm } = await valveGuest({ sendQueueBytes: 4096 });
    const client = await connect("/ws/v1/vm/valve");
    await vm.pause();
    for (let i = 0; i < count; i++) {
      const message = Buffer.alloc(size, i);
      if (size >= 4) message.writeUInt32LE(i);
      client.send(message);
    }
    // The bridge stops reading: what is taken grows no more, and the client keeps the rest.
    const taken = async () => (await endpoint("valve")).counters.messagesToGuest;
    let last = -1;
    for (let now = await taken(), still = 0; still < 20; now = await taken()) {
      still = now === last && now > 0 ? still + 1 : 0;
      last = now;
    }
    const most = 4096 + 2 * 65_536;
    expect(last * size).toBeLessThanOrEqual(most);
    expect(last).toBeLessThan(count);
    expect(client.socket.bufferedAmount).toBeGreaterThan(0);
    await vm.resume();
    release();
    await eventually("all of them", () => (valve.taken.length === count ? true : undefined));
    if (size >= 4) {
      expect(valve.taken.findIndex((each, i) => each.readUInt32LE(0) !== i)).toBe(-1);
    }
    expect(client.socket.readyState).toBe(client.socket.OPEN);
    await client.close();
  });

  test("is not taken for dead while the bridge itself does not read", async () => {
    const limits = { sendQueueBytes: 16, pingInterval: 20, pongTimeout: 10 };
    const { connect, sent, valve, release, vm } = await valveGuest(limits);
    await vm.pause();
    const client = await connect("/ws/v1/vm/valve");
    let pings = 0;
    client.socket.on("ping", () => pings++);
    for (let i = 0; i < 100; i++) client.send(`message ${i}`);
    await sent(100);
    const before = pings;
    const until = performance.now() + 200;
    await eventually("many intervals", () => (performance.now() > until ? true : undefined));
    expect(client.socket.readyState).toBe(client.socket.OPEN);
    expect(pings - before).toBeLessThanOrEqual(1);
    await vm.resume();
    release();
    await eventually("all of them", () => (valve.taken.length === 100 ? true : undefined));
    const seen = pings;
    await eventually("pings again", () => (pings > seen + 2 ? true : undefined));
    expect(client.socket.readyState).toBe(client.socket.OPEN);
  });

  test("and then closes: everything it has sent is read first", async () => {
    const { url, valve, release, sent, vm } = await valveGuest({ sendQueueBytes: 1024 });
    await vm.pause();
    const client = await RawClient.open(url, "/ws/v1/vm/valve");
    for (let i = 0; i < 5000; i++) client.send(opcode.binary, Buffer.from(`message ${i}`));
    client.send(opcode.close, Buffer.from([0x03, 0xe8]));
    await sent(1);
    await vm.resume();
    release();
    await eventually("all of them", () => (valve.taken.length === 5000 ? true : undefined));
    expect(valve.taken.at(-1)?.toString()).toBe("message 4999");
    expect(await client.closeCode()).toBe(1000);
  });
});
