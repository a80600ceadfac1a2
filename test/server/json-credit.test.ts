import { expect, test } from "vitest";
import type { ServerFrame } from "../../schemas/index.ts";
import { JsonClient } from "./json-client.ts";
import { testBridge } from "./support.ts";

/** A client of `source`: on "COUNT SIZE" it sends so many messages, the nth of which begins with n, from 0 on. */
async function sourceClient(query: string, limits: { slowReaderBytes?: number } = {}) {
  const running = await testBridge({ limits });
  await running.endpoint("source");
  let sent = 0;
  const client = await JsonClient.open(running, `/ws/v1/demo/source?encoding=hex${query}`);
  const counters = async () => (await running.endpoint("source")).counters;
  return {
    client,
    counters,
    /** The guest has sent so many more. */
    ask: async (count: number, asker = client): Promise<void> => {
      asker.send(`${count} 4`);
      sent += count;
      await running.endpoint("source", (each) => each.counters.messagesFromGuest >= sent);
    },
  };
}

/** Numbers of the messages; of what was dropped so many below zero. */
const shape = (frames: ServerFrame[]) =>
  frames.map((frame) =>
    frame.type === "message" ? frame.seq : frame.type === "dropped" ? -frame.count : frame.type,
  );

const sequence = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

test("so many messages come as were granted, one after the other; the rest waits", async () => {
  const { client, ask, counters } = await sourceClient("&credit=3");
  await ask(10);
  expect(shape(await client.all())).toEqual([1, 2, 3]);
  client.write({ type: "credit", messages: 0 });
  expect(shape(await client.all())).toEqual([]);
  client.write({ type: "credit", messages: 2 });
  expect(shape(await client.all())).toEqual([4, 5]);
  client.write({ type: "credit", messages: 100 });
  expect(shape(await client.all())).toEqual([6, 7, 8, 9, 10]);
  // What is left of it holds for those that come later.
  await ask(5);
  expect(shape(await client.all())).toEqual([11, 12, 13, 14, 15]);
  expect(await counters()).toMatchObject({ dropped: 0 });
});

test.each([
  // 20 bytes each: 204 fit in 4096, beside the one that came.
  ["drop-oldest", [1, -795, 797, 798], sequence(799, 1000)],
  ["drop-newest", [1, 2, 3], [...sequence(4, 205), -795]],
])(
  "what waits does so under slow=%s, and what is dropped is told in its place",
  async (slow, first, rest) => {
    const { client, ask, counters } = await sourceClient(`&slow=${slow}&credit=1`, { slowReaderBytes: 4096 });
    await ask(1000);
    client.write({ type: "credit", messages: 2 });
    expect(shape(await client.all())).toEqual(first);
    expect(await counters()).toMatchObject({ dropped: 795 });
    client.write({ type: "credit", messages: 1000 });
    expect(shape(await client.take(rest.length))).toEqual(rest);
  },
);

test("a session that is resumed brings what waited, none lost; and what it brought is owed", async () => {
  const { client, ask } = await sourceClient("&credit=2");
  await ask(10);
  expect(shape(await client.all())).toEqual([1, 2]);
  await client.break();
  const again = await client.resume(2, "&encoding=hex&credit=3");
  expect(again.hello.resumed).toBe(true);
  expect(shape(await again.all())).toEqual([3, 4, 5, 6, 7, 8, 9, 10]);
  await ask(4, again);
  again.write({ type: "credit", messages: 5 });
  expect(shape(await again.all())).toEqual([]);
  again.write({ type: "credit", messages: 1 });
  expect(shape(await again.all())).toEqual([11]);
  // Without it, any number.
  await again.break();
  const third = await client.resume(11, "&encoding=hex");
  expect(shape(await third.all())).toEqual([12, 13, 14]);
  await ask(3, third);
  expect(shape(await third.all())).toEqual([15, 16, 17]);
});

test("without credit= a grant means nothing", async () => {
  const { client, ask } = await sourceClient("");
  client.write({ type: "credit", messages: 1 });
  await ask(3);
  expect(shape(await client.all())).toEqual([1, 2, 3]);
});
