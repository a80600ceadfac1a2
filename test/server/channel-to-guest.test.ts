import { describe, expect, test } from "vitest";
import { JsonClient } from "./json-client.ts";
import { opcode, RawClient } from "./raw-client.ts";
import { eventually, reached } from "./support.ts";
import { Valve, vhostBridge } from "./vhost-guest.ts";

/** A guest with a service that takes nothing until it is told to. */
async function valveGuest(limits: Record<string, number> = {}) {
  const running = await vhostBridge({ limits });
  const valve = new Valve();
  const attached = await running.attach({ profile: "rpmsg-lite", services: { valve: valve.factory } });
  await running.endpoint("valve");
  const sent = async (count: number) => running.endpoint("valve", (each) => each.counters.accepted >= count);
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

  test("serves the clients of an endpoint in turn when it posts some again: none waits for another's hundred", async () => {
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

  test("costs the clients of its other endpoints nothing that it sends; what they send is told no-buffer", async () => {
    const running = await vhostBridge({ limits: { sendTimeout: 60_000 } });
    const [stuck, talker] = [new Valve(true), new Valve(true)];
    const services = { stuck: stuck.factory, talker: talker.factory };
    const attached = await running.attach({ profile: "rpmsg-lite", services });
    await running.endpoint("talker");
    const listener = await JsonClient.open(running, "/ws/v1/vm/talker");
    listener.send("hello", { id: "hello" });
    expect(await listener.next("sent")).toEqual({ type: "sent", id: "hello" });
    await eventually("the greeting", () => talker.taken[0]);
    // From now on no buffer is posted again.
    attached.guest.faults.neverRefill = true;
    const sender = await running.connect("/ws/v1/vm/stuck");
    for (let i = 0; i < 100; i++) sender.send(`${i}`);
    await running.endpoint("stuck", ({ counters }) => counters.accepted === 100);
    await eventually("all buffers are used", () => stuck.taken[7]);
    const say = (text: string) =>
      eventually("a buffer for what the guest sends", () =>
        talker.context?.send(talker.sources[0] as number, Buffer.from(text)) ? true : undefined,
      );
    const numbered = Array.from({ length: 1000 }, (_, i) => `${i}`);
    for (const text of numbered) await say(text);
    expect(await listener.texts(1000)).toEqual(numbered);
    listener.send("to a guest that has no buffer", { id: "late", timeout: 20 });
    expect(await listener.next("error")).toMatchObject({ id: "late", code: "no-buffer" });
    await say("still here");
    expect(await listener.texts(1)).toEqual(["still here"]);
    // All the while 92 waited.
    expect((await running.endpoint("stuck")).counters).toMatchObject({ messagesToGuest: 8, undelivered: 0 });
    expect(stuck.taken.length).toBe(8);
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
    expect(valve.taken.at(-1)?.toString()).toBe("49");
  });
});

describe("a client that sends faster than the guest reads", () => {
  test.each([
    [0, 60_000],
    [1, 60_000],
    [496, 20_000],
  ])("is held up, and loses nothing: messages of %i bytes", async (size, count) => {
    const { connect, valve, release, endpoint, vm } = await valveGuest();
    const client = await connect("/ws/v1/vm/valve");
    await vm.pause();
    for (let i = 0; i < count; i++) {
      const message = Buffer.alloc(size, i);
      if (size >= 4) message.writeUInt32LE(i);
      client.send(message);
    }
    // The bridge stops reading: what is taken grows no more, and the client keeps the rest.
    const taken = async () => (await endpoint("valve")).counters.accepted;
    let last = -1;
    for (let now = await taken(), still = 0; still < 20; now = await taken()) {
      still = now === last && now > 0 ? still + 1 : 0;
      last = now;
    }
    const most = 65_536 + 2 * 65_536;
    expect(last * (16 + size)).toBeLessThanOrEqual(most);
    expect(last).toBeLessThan(count);
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
    const { connect, valve, release, vm, endpoint } = await valveGuest({ pingInterval: 60, pongTimeout: 50 });
    const client = await connect("/ws/v1/vm/valve");
    let pings = 0;
    client.socket.on("ping", () => pings++);
    await vm.pause();
    for (let i = 0; i < 20_000; i++) client.send(Buffer.alloc(100));
    await endpoint("valve", (each) => each.counters.accepted > 565);
    const until = performance.now() + 300;
    await eventually("many intervals", () => (performance.now() > until ? true : undefined));
    expect(client.socket.readyState).toBe(client.socket.OPEN);
    await vm.resume();
    release();
    await eventually("all of them", () => (valve.taken.length === 20_000 ? true : undefined));
    const seen = pings;
    await eventually("pings again", () => (pings > seen + 2 ? true : undefined));
    expect(client.socket.readyState).toBe(client.socket.OPEN);
  });

  test.each([1, 16, 4096, 65_536])(
    "is read again, however small its bound is: %i bytes",
    async (sendQueueBytes) => {
      const { connect, valve, release, vm, endpoint } = await valveGuest({ sendQueueBytes });
      const client = await connect("/ws/v1/vm/valve");
      await vm.pause();
      const count = Math.ceil(sendQueueBytes / 512) + 5;
      for (let i = 0; i < count; i++) {
        client.send(Buffer.alloc(496, i));
        // One at a time until it is held up, so that no more are read than it takes.
        if (i * 512 < sendQueueBytes) await endpoint("valve", (each) => each.counters.accepted === i + 1);
      }
      await vm.resume();
      release();
      await eventually("all of them", () => (valve.taken.length === count ? true : undefined));
      expect(client.socket.readyState).toBe(client.socket.OPEN);
    },
  );

  test("is held up at sendQueueBytes and not before, which is counted once for each time", async () => {
    const { bridge, connect, valve, release, vm, sent } = await valveGuest({ sendQueueBytes: 4096 });
    const client = await connect("/ws/v1/vm/valve");
    await vm.pause();
    // Each counts with its header: 512 bytes.
    for (let i = 1; i <= 7; i++) client.send(Buffer.alloc(496, i));
    await sent(7);
    expect(reached({ bridge }, "sendQueueBytes")).toBe(0);
    client.send(Buffer.alloc(496, 8));
    await sent(8);
    expect(reached({ bridge }, "sendQueueBytes")).toBe(1);
    await vm.resume();
    release();
    await eventually("all of them", () => (valve.taken.length === 8 ? true : undefined));
    expect(reached({ bridge }, "sendQueueBytes")).toBe(1);
  });

  test("is told of a reset at once, and its connection ends", async () => {
    const { connect, vm, endpoint } = await valveGuest();
    const client = await connect("/ws/v1/vm/valve");
    await vm.pause();
    for (let i = 0; i < 20_000; i++) client.send(Buffer.alloc(100));
    await endpoint("valve", (each) => each.counters.accepted > 565);
    const started = performance.now();
    vm.close();
    expect((await client.closed).code).toBe(4001);
    // Not by the time that a close may take, 5 seconds: the client's answer is read.
    expect(performance.now() - started).toBeLessThan(3000);
  });

  test("and then closes: everything it has sent is read first", async () => {
    const { url, valve, release, sent, vm } = await valveGuest();
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
