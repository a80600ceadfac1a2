import { describe, expect, test } from "vitest";
import type { ServerFrame } from "../../schemas/index.ts";
import { JsonClient } from "./json-client.ts";
import { eventually, testBridge } from "./support.ts";

type Limits = NonNullable<NonNullable<Parameters<typeof testBridge>[0]>["limits"]>;

/** A bridge, and bursts of its `source`: message n, from 0 on, begins with n. */
async function sourceBridge(limits: Limits) {
  const running = await testBridge({ limits });
  await running.endpoint("source");
  const sent = (count: number) =>
    running.endpoint("source", (each) => each.counters.messagesFromGuest >= count);
  return {
    ...running,
    open: (query = "") => JsonClient.open(running, `/ws/v1/demo/source?encoding=hex${query}`),
    /** Waits until the guest has sent so many messages. */
    sent,
    dropped: async () => (await running.endpoint("source")).counters.dropped,
  };
}

/**
 * Takes frames until message `last` is accounted for: each is there, or was told as dropped in its place. Gives how
 * many were dropped.
 */
async function account(client: JsonClient, after: number, last: number): Promise<number> {
  let seq = after;
  let dropped = 0;
  while (seq < last) {
    const frame: ServerFrame = await client.any();
    if (frame.type === "dropped") {
      seq += frame.count;
      dropped += frame.count;
    } else if (frame.type === "message") {
      if (frame.seq !== seq + 1) expect.fail(`message ${frame.seq}, ${seq} are accounted for`);
      seq = frame.seq;
    } else {
      expect.fail(`a ${frame.type}`);
    }
  }
  expect(seq).toBe(last);
  return dropped;
}

describe("what a session does not keep is told as dropped, before what it does", () => {
  test.each([0, 200, 5000])("it keeps %i bytes", async (sessionBytes) => {
    const running = await sourceBridge({ sessionBytes });
    const client = await running.open();
    client.send("10 40");
    await account(client, 0, 10);
    client.send("3000 40");
    await client.break();
    await running.sent(3010);
    const again = await client.resume(10);
    expect(again.hello.resumed).toBe(true);
    const first = await again.next("dropped");
    // Of 164 to 175 bytes each: the text, and 64 for each message.
    const kept = 3000 - first.count;
    expect(kept).toBeLessThanOrEqual(Math.floor(sessionBytes / 160));
    expect(kept).toBeGreaterThanOrEqual(Math.floor(sessionBytes / 200));
    expect(await account(again, 10 + first.count, 3010)).toBe(0);
    expect(await running.dropped()).toBe(first.count);
    expect(await again.all()).toEqual([]);
    again.send("10 40");
    expect(await account(again, 3010, 3020)).toBe(0);
    // Asked again it is told again, and not counted again.
    await again.break();
    const third = await client.resume(10);
    expect(await account(third, 10, 3020)).toBeGreaterThanOrEqual(first.count);
    await third.break();
    const counted = await running.dropped();
    const fourth = await client.resume(10);
    await account(fourth, 10, 3020);
    expect(await running.dropped()).toBe(counted);
  });

  test("and where the client has what is not kept, nothing is", async () => {
    const running = await sourceBridge({ sessionBytes: 5000 });
    const client = await running.open();
    client.send("1000 40");
    await account(client, 0, 1000);
    await client.break();
    for (const after of [1000, 995]) {
      const again = await client.resume(after);
      expect(await account(again, after, 1000)).toBe(0);
      expect(await again.all()).toEqual([]);
      await again.break();
    }
    expect(await running.dropped()).toBe(0);
  });

  test("messages are kept for as long as the session could be resumed, and then somewhat longer", async () => {
    const running = await sourceBridge({ sessionTimeout: 60_000, pingInterval: 20, pongTimeout: 1000 });
    const client = await running.open();
    client.send("100 40");
    await account(client, 0, 100);
    let pings = 0;
    client.socket.on("ping", () => pings++);
    await eventually("some looks at what is old", () => (pings > 3 ? true : undefined));
    await client.break();
    const again = await client.resume();
    expect(await account(again, 0, 100)).toBe(0);
  });

  test("messages that are older than that are forgotten while the client is there", async () => {
    const running = await sourceBridge({ sessionTimeout: 1000, pingInterval: 1200, pongTimeout: 1000 });
    const client = await running.open();
    client.send("100 40");
    await account(client, 0, 100);
    let pings = 0;
    client.socket.on("ping", () => pings++);
    await eventually("looks at what is old", () => (pings > 1 ? true : undefined));
    await client.break();
    const again = await client.resume();
    expect(again.hello.resumed).toBe(true);
    expect(await again.next("dropped")).toMatchObject({ count: 100 });
    expect(await again.all()).toEqual([]);
  });
});

describe("messages that were dropped before the break are told once, in their place, and counted once", () => {
  test.each([
    ["drop-newest", "before the bridge has heard of the break"],
    ["drop-newest", "after it"],
    ["drop-oldest", "before the bridge has heard of the break"],
    ["drop-oldest", "after it"],
  ])("%s, resumed %s", async (policy, when) => {
    const running = await sourceBridge({ slowReaderBytes: 65_536, sessionBytes: 2 ** 28 });
    const client = await running.open(`&slow=${policy}`);
    client.socket.pause();
    client.send("60000 400");
    await running.sent(60_000);
    const before = await running.dropped();
    expect(before).toBeGreaterThan(0);
    if (when === "after it") await client.break();
    else client.socket.terminate();
    const again = await client.resume();
    const dropped = await account(again, 0, 60_000);
    expect(await again.all()).toEqual([]);
    expect(dropped).toBe(await running.dropped());
    expect(dropped).toBeLessThanOrEqual(before);
    again.send("10 40");
    expect(await account(again, 60_000, 60_010)).toBe(0);
    await again.break();
    // Once more: the same.
    const third = await client.resume();
    expect(await account(third, 0, 60_010)).toBe(dropped);
    expect(await running.dropped()).toBe(dropped);
  });

  test.each(["drop-newest", "drop-oldest"])(
    "those that wait behind an old connection, too: %s",
    async (policy) => {
      const running = await sourceBridge({ slowReaderBytes: 65_536, sessionBytes: 4096 });
      const client = await running.open(`&slow=${policy}`);
      client.socket.pause();
      client.send("60000 400");
      await running.sent(60_000);
      // The old connection is still there.
      const again = await client.resume();
      const dropped = await account(again, 0, 60_000);
      expect(await again.all()).toEqual([]);
      again.send("10 40");
      expect(await account(again, 60_000, 60_010)).toBe(0);
      expect(dropped).toBeGreaterThan(0);
    },
  );
});

describe("what comes while the client is away counts as dropped", () => {
  test("where it does not come back", async () => {
    const running = await sourceBridge({ sessionTimeout: 300 });
    const client = await running.open();
    client.send("10 40");
    await account(client, 0, 10);
    client.send("100 40");
    await client.break();
    await running.sent(110);
    await running.endpoint("source", (each) => each.clients === 0);
    const { counters } = await running.endpoint("source");
    expect(counters).toMatchObject({ messagesFromGuest: 110, messagesToClients: 110 });
    // Some may have been on their way before the break.
    expect(counters.dropped).toBeGreaterThan(0);
    expect(counters.dropped).toBeLessThanOrEqual(100);
  });

  test("and not where it does, and gets it", async () => {
    const running = await sourceBridge({});
    const client = await running.open();
    client.send("100 40");
    await client.break();
    await running.sent(100);
    const again = await client.resume();
    expect(await account(again, 0, 100)).toBe(0);
    await again.close();
    await running.endpoint("source", (each) => each.clients === 0);
    expect(await running.dropped()).toBe(0);
  });
});

test("a client that is back is not a slow reader for what it has missed, while more comes", async () => {
  const running = await sourceBridge({ slowReaderBytes: 65_536, sessionBytes: 2 ** 26 });
  const shared = "share=shared&local=2000";
  const client = await running.open(`&${shared}`);
  await client.break();
  // Others speak from its address, so that it gets the answers.
  const source = await running.connect(`/ws/v1/demo/source?${shared}`);
  source.send("20000 400");
  await source.close();
  await running.endpoint("source", (each) => each.counters.bytesFromGuest >= 20_000 * 400);
  const sensor = await running.connect(`/ws/v1/demo/sensor?${shared}`);
  sensor.send("start 1000");
  await sensor.next();
  await sensor.close();
  const again = await client.resume();
  expect(again.hello.resumed).toBe(true);
  expect(await account(again, 0, 20_500)).toBe(0);
});
