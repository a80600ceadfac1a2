import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { fullValve, JsonClient } from "./json-client.ts";
import { eventually, testBridge } from "./support.ts";
import { Valve, vhostBridge } from "./vhost-guest.ts";

/** A client of the host's service `raw`, to whose address the guest says whatever the test wants. */
async function rawClient(query = "") {
  const running = await vhostBridge({}, { endpoints: [{ name: "raw", address: 1040 }] });
  const valve = new Valve(true);
  const attached = await running.attach({ services: { raw: { service: valve.factory, ns: "down" } } });
  await running.endpoint("raw", (each) => each.state === "connected");
  const client = await JsonClient.open(running, `/ws/v1/vm/raw${query}`);
  let said = 0;
  const counters = async () => (await running.endpoint("raw")).counters;
  return {
    ...running,
    attached,
    client,
    valve,
    counters,
    /** The guest says so many messages, "1", "2" and so on, and the bridge has them. */
    say: async (count: number): Promise<void> => {
      const before = (await counters()).messagesFromGuest;
      const { context } = valve;
      for (let i = 0; i < count; i++) {
        const text = Buffer.from(`${said + 1}`);
        await eventually("a free buffer", () => (context?.send(1040, text) === true ? true : undefined));
        said++;
      }
      await running.endpoint("raw", (each) => each.counters.messagesFromGuest === before + count);
    },
  };
}

/** Messages `from` to `to`, as the guest numbers them, with the same numbers of the channel. */
const messages = (from: number, to: number) =>
  Array.from(
    { length: to - from + 1 },
    (_, i) => expect.objectContaining({ type: "message", seq: from + i, data: `${from + i}` }) as unknown,
  );

describe("a connection that breaks is resumed", () => {
  test("the greeting says so: the same session, address and endpoint; and the guest hears the same client", async () => {
    const { client, valve, endpoint } = await rawClient("?share=private");
    await client.break();
    const again = await client.resume();
    expect(again.hello).toEqual({ ...client.hello, resumed: true });
    expect((await endpoint("raw")).clients).toBe(1);
    again.send("still me", { id: 1 });
    expect(await again.next("sent")).toEqual({ type: "sent", id: 1 });
    await eventually("it", () => valve.taken[0]);
    expect(valve.sources).toEqual([client.hello.local]);
  });

  test("what came meanwhile follows, then what comes: none lost, none twice, in order", async () => {
    const { client, say } = await rawClient();
    await say(20);
    expect(await client.take(20)).toEqual(messages(1, 20));
    await client.break();
    await say(200);
    const again = await client.resume(20);
    expect(await again.take(200)).toEqual(messages(21, 220));
    await say(20);
    expect(await again.take(20)).toEqual(messages(221, 240));
    expect(await again.all()).toEqual([]);
  });

  test("from the message on that the client says, as often as it breaks", async () => {
    const { client, say } = await rawClient();
    await say(30);
    await client.take(30);
    await client.break();
    for (const after of [30, 10, 0, 29, 15, 30]) {
      const again = await client.resume(after);
      expect(again.hello.resumed).toBe(true);
      expect(await again.take(30 - after)).toEqual(messages(after + 1, 30));
      expect(await again.all()).toEqual([]);
      await again.break();
    }
  });

  test("in the midst of a burst, again and again: what was in no buffer's end is sent again", async () => {
    const running = await testBridge({ limits: { sessionBytes: 2 ** 24, slowReaderBytes: 2 ** 24 } });
    await running.endpoint("source");
    const COUNT = 20_000;
    let client = await JsonClient.open(running, "/ws/v1/demo/source?encoding=hex");
    client.send(`${COUNT} 40`);
    let seq = 0;
    for (let breaks = 0; seq < COUNT; breaks++) {
      const most = breaks < 20 ? 400 : COUNT;
      for (let taken = 0; taken < most && seq < COUNT; taken++) {
        const message = await client.next("message");
        if (message.seq !== seq + 1) expect.fail(`${message.seq} after ${seq}`);
        expect(Buffer.from(message.data, "hex").readUInt32LE(0)).toBe(seq);
        seq++;
      }
      if (seq === COUNT) break;
      // What is on its way to it is lost with the connection.
      await client.break();
      client = await client.resume(seq);
      expect(client.hello.resumed).toBe(true);
    }
    expect(await client.all()).toEqual([]);
    const { counters } = await running.endpoint("source");
    expect(counters).toMatchObject({ messagesFromGuest: COUNT, messagesToClients: COUNT, dropped: 0 });
  });

  test("with messages in every turn while it breaks", async () => {
    const { client, valve, counters, endpoint } = await rawClient();
    let said = 0;
    for (let round = 0, last = client; round < 5; round++) {
      last.socket.terminate();
      // Through the end of the old connection, and the beginning of the new one.
      const resuming = last.resume();
      let again: JsonClient | undefined;
      resuming.then(
        (resumed) => {
          again = resumed;
        },
        () => {},
      );
      for (let turns = 0; again === undefined || turns < 200; turns++) {
        if (valve.context?.send(1040, Buffer.from(`${said + 1}`)) === true) said++;
        await nextTurn();
      }
      last = await resuming;
      await endpoint("raw", (each) => each.counters.messagesToClients === said);
      expect(await last.take(said)).toEqual(messages(1, said));
    }
    expect(await counters()).toMatchObject({ messagesToClients: said, dropped: 0 });
  });

  test("while the old connection seems to be there: that ends, and nothing is lost", async () => {
    const { client, say, endpoint } = await rawClient();
    // It does not read: its connection may as well be dead.
    client.socket.pause();
    await say(50);
    const again = await client.resume();
    expect(again.hello.resumed).toBe(true);
    client.socket.resume();
    expect((await client.closed).code).toBe(1006);
    expect(await again.take(50)).toEqual(messages(1, 50));
    // The end of the old one does not concern the session any more.
    await say(5);
    expect(await again.take(5)).toEqual(messages(51, 55));
    expect((await endpoint("raw")).clients).toBe(1);
    again.send("hello", { id: 1 });
    expect(await again.next("sent")).toEqual({ type: "sent", id: 1 });
  });

  test("as the first connection has asked: with its encoding, whatever the query says now", async () => {
    const { client, say } = await rawClient("?encoding=hex");
    await say(1);
    expect((await client.next("message")).data).toBe("31");
    await client.break();
    await say(1);
    const again = await client.resume(1, "&encoding=base64&share=private&local=2000");
    expect(again.hello).toMatchObject({ resumed: true, local: 1040 });
    expect(await again.next("message")).toMatchObject({ seq: 2, data: "32", encoding: "hex" });
  });

  test("with the sources that it has seen", async () => {
    const { client, valve } = await rawClient("?share=private&local=2000");
    valve.context?.send(2000, Buffer.from("psst"));
    const { src } = await client.next("message");
    await client.break();
    const again = await client.resume(1);
    again.send("back", { id: 1, dst: src });
    expect(await again.next("sent")).toEqual({ type: "sent", id: 1 });
  });

  test("of the states of the time without a connection the greeting has the latest", async () => {
    const { client, attached } = await rawClient();
    await client.break();
    await attached.vm.pause();
    const paused = await client.resume();
    expect(paused.hello).toMatchObject({ resumed: true, guestState: "suspended" });
    expect(await paused.all()).toEqual([]);
    await paused.break();
    await attached.vm.resume();
    const again = await paused.resume();
    expect(again.hello).toMatchObject({ resumed: true, guestState: "attached" });
    expect(await again.all()).toEqual([]);
  });
});

describe("what a client has sent before its connection broke", () => {
  test("goes to the guest, and its results come when the client is back", async () => {
    const { client, endpoint, release, counters, valve } = await fullValve();
    for (const id of ["a", "b"]) client.send(`message ${id}`, { id });
    client.send("nameless");
    client.send("short", { id: "short", timeout: 30 });
    expect(await client.all()).toEqual([]);
    await client.break();
    await endpoint("valve", (each) => each.counters.undelivered === 1);
    release();
    await eventually("the guest has them", () => valve.taken[10]);
    const again = await client.resume();
    // Nobody knows whether these arrived: they come again.
    expect(await again.take(8)).toEqual(Array.from({ length: 8 }, (_, id) => ({ type: "sent", id })));
    expect(await again.next("error")).toMatchObject({ id: "short", code: "no-buffer" });
    expect(await again.take(2)).toEqual([
      { type: "sent", id: "a" },
      { type: "sent", id: "b" },
    ]);
    expect(await again.all()).toEqual([]);
    expect(valve.taken.slice(8).map(String)).toEqual(["message a", "message b", "nameless"]);
    expect(await counters()).toMatchObject({ accepted: 12, messagesToGuest: 11, undelivered: 1 });
  });

  test("is answered a second time where nobody knows whether the answer came", async () => {
    const { client, valve, say } = await rawClient();
    client.send("before", { id: "before" });
    expect(await client.next("sent")).toEqual({ type: "sent", id: "before" });
    await say(1);
    await client.next("message");
    client.send("after", { id: "after" });
    await eventually("it", () => valve.taken[1]);
    await client.break();
    const again = await client.resume(1);
    // What came before the message came too.
    expect(await again.all()).toEqual([{ type: "sent", id: "after" }]);
  });

  test("and waits yet when it is back, is answered then", async () => {
    const { client, release } = await fullValve();
    client.send("waits", { id: "a" });
    expect(await client.all()).toEqual([]);
    await client.break();
    const again = await client.resume();
    again.send("too", { id: "b" });
    expect(await again.all()).toHaveLength(8);
    release();
    expect(await again.take(2)).toEqual([
      { type: "sent", id: "a" },
      { type: "sent", id: "b" },
    ]);
  });

  test("does not make room for more than may wait, however often it breaks", async () => {
    const { client, counters, release, vm, valve } = await fullValve();
    await vm.pause();
    await client.next("state");
    let last = client;
    for (let round = 0; round < 6; round++) {
      last.sendTogether(`${round}`.repeat(300), 2000);
      // The bridge stops reading: what it has taken grows no more.
      let taken = -1;
      for (let now = 0, still = 0; still < 20; now = (await counters()).accepted) {
        still = now === taken && now > 8 ? still + 1 : 0;
        taken = now;
      }
      // Least of all queue-full.
      for (const frame of await last.take(last.received)) expect(frame.type).toBe("sent");
      last.socket.terminate();
      last = await client.resume();
      expect(last.hello.resumed).toBe(true);
    }
    const { accepted } = await counters();
    expect((accepted - 8) * 316).toBeLessThanOrEqual(65_536 + 128 * 1024);
    await vm.resume();
    release();
    await eventually("all of them", () => (valve.taken.length === accepted ? true : undefined));
    last.send("room again", { id: "last" });
    const frames = await last.all();
    expect(frames).toContainEqual(expect.objectContaining({ type: "state", guestState: "attached" }));
    expect(frames.at(-1)).toEqual({ type: "sent", id: "last" });
  });
});
