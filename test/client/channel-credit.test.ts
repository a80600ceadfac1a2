import { expect, test } from "vitest";
import type { Message } from "../../client/index.ts";
import { nextEvent, Peer } from "./peer.ts";

const credit = (messages: number) => ({ type: "credit", messages });

test("is asked for in the query, and granted anew when half of it was taken", async () => {
  const { channel, peer } = await (await Peer.listen()).connect({ credit: 4 });
  expect(peer.query.get("credit")).toBe("4");
  for (let seq = 1; seq <= 4; seq++) peer.message(seq);
  await peer.settle();
  // What waits here is not taken.
  expect(peer.waiting).toBe(0);
  await channel.receive();
  await peer.settle();
  expect(peer.waiting).toBe(0);
  await channel.receive();
  expect(await peer.next()).toEqual(credit(2));
  const [, , third] = [channel.receive(), channel.receive(), channel.receive()];
  expect(await peer.next()).toEqual(credit(2));
  peer.message(5);
  expect((await third).seq).toBe(5);
  // Of a message for which somebody waited, too.
  channel.receive().catch(() => {});
  peer.message(6);
  expect(await peer.next()).toEqual(credit(2));
});

test("a listener takes what came before it, and each that comes", async () => {
  const { channel, peer } = await (await Peer.listen()).connect({ credit: 4 });
  for (let seq = 1; seq <= 4; seq++) peer.message(seq);
  await peer.settle();
  const seen: Message[] = [];
  channel.on("message", (message) => seen.push(message));
  expect([await peer.next(), await peer.next()]).toEqual([credit(2), credit(2)]);
  for (let seq = 5; seq <= 8; seq++) peer.message(seq);
  expect([await peer.next(), await peer.next()]).toEqual([credit(2), credit(2)]);
  expect(seen.map(({ seq }) => seq)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
});

test("pace says when; all that was taken until then is granted", async () => {
  const grants: (() => void)[] = [];
  const pace = (grant: () => void) => grants.push(grant);
  const { channel, peer } = await (await Peer.listen()).connect({ credit: 4, pace });
  channel.on("message", () => {});
  for (let seq = 1; seq <= 3; seq++) peer.message(seq);
  await peer.settle();
  expect([grants.length, peer.waiting]).toEqual([1, 0]);
  grants[0]?.();
  expect(await peer.next()).toEqual(credit(3));
});

test("what is dropped here, came twice, or cannot be read has used it as well", async () => {
  const { peer } = await (await Peer.listen()).connect({ credit: 2, inbox: { messages: 1 } });
  for (let seq = 1; seq <= 2; seq++) peer.message(seq);
  peer.message(2);
  expect(await peer.next()).toEqual(credit(1));
  peer.send({ type: "message", seq: 3, src: 7, data: "?", encoding: "base64" });
  expect(await peer.next()).toEqual(credit(1));
});

test("a new connection has all of it: what came over the one before is not granted again", async () => {
  const listening = await Peer.listen();
  const { channel, peer } = await listening.connect({ credit: 2 });
  for (let seq = 1; seq <= 2; seq++) peer.message(seq);
  await peer.settle();
  peer.socket.terminate();
  const next = await listening.connection();
  expect(Object.fromEntries(next.query)).toMatchObject({ credit: "2", resume: "session", after: "2" });
  const open = nextEvent(channel, "state");
  next.hello({ resumed: true });
  await open;
  await channel.receive();
  await channel.receive();
  await next.settle();
  expect(next.waiting).toBe(0);
  next.message(3);
  await channel.receive();
  expect(await next.next()).toEqual(credit(1));
});
