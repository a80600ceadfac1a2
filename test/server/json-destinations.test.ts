import { describe, expect, test } from "vitest";
import { Destinations } from "../../server/channel/destinations.ts";
import type { ChannelPort } from "../../server/endpoint-port.ts";
import { JsonClient } from "./json-client.ts";
import { eventually } from "./support.ts";
import { Valve, vhostBridge } from "./vhost-guest.ts";

/** A guest with two services that keep what they get, and a service of the host, at 1040, that it knows of. */
async function twoPeers() {
  const running = await vhostBridge({}, { endpoints: [{ name: "raw", address: 1040 }] });
  const [one, other] = [new Valve(true), new Valve(true)];
  const services = { one: one.factory, other: other.factory };
  await running.attach({ services, otherService: () => undefined });
  await running.endpoint("other");
  await running.endpoint("raw", (each) => each.state === "announced");
  const say = (valve: Valve, to: number, text: string) => valve.context?.send(to, Buffer.from(text));
  const open = (path: string) => JsonClient.open(running, `/ws/v1/vm/${path}`);
  return { ...running, one, other, open, say };
}

const addressOf = (valve: Valve) => valve.context?.address as number;

describe("dst of a message", () => {
  test("may be the endpoint's peer", async () => {
    const { open, one } = await twoPeers();
    const client = await open("one");
    client.send("to the peer", { id: 1, dst: addressOf(one) });
    expect(await client.next("sent")).toEqual({ type: "sent", id: 1 });
    await eventually("it", () => one.taken[0]);
  });

  test("may not be another endpoint, whether there is one or not: forbidden, and nothing is sent", async () => {
    const { open, one, other, endpoint, guest } = await twoPeers();
    const client = await open("one");
    const before = (await guest("vm")).counters.messagesToGuest;
    const wrong = [addressOf(other), 0, 53, 1040, 70_000, 0xffff_fffe];
    for (const dst of wrong) client.send("x", { id: dst, dst });
    client.send("x", { dst: 53 });
    for (const id of [...wrong, undefined]) {
      const error = await client.next("error");
      expect(error.code).toBe("forbidden");
      expect(error.id).toBe(id);
    }
    expect((await guest("vm")).counters.messagesToGuest).toBe(before);
    expect((await endpoint("one")).counters.accepted).toBe(0);
    client.send("to the peer", { id: 1 });
    expect(await client.next("sent")).toEqual({ type: "sent", id: 1 });
    await eventually("it", () => one.taken[0]);
    expect([one, other].map((each) => each.taken.map(String))).toEqual([["to the peer"], []]);
  });

  test("may be a source that this channel has seen: two guest addresses speak to a service of the host", async () => {
    const { open, one, other, say } = await twoPeers();
    const client = await open("raw");
    client.send("too early", { id: 0, dst: addressOf(one) });
    expect(await client.next("error")).toMatchObject({ id: 0, code: "forbidden" });
    say(one, 1040, "one");
    expect(await client.next("state")).toMatchObject({ endpointState: "connected" });
    expect(await client.next("message")).toMatchObject({ src: addressOf(one), data: "one" });
    say(other, 1040, "other");
    expect(await client.next("message")).toMatchObject({ src: addressOf(other), data: "other" });
    client.send("back to one", { id: 1, dst: addressOf(one) });
    client.send("back to other", { id: 2, dst: addressOf(other) });
    client.send("to the latest", { id: 3 });
    for (const id of [1, 2, 3]) expect(await client.next("sent")).toEqual({ type: "sent", id });
    say(one, 1040, "one again");
    await client.next("message");
    client.send("to the latest now", { id: 4 });
    expect(await client.next("sent")).toEqual({ type: "sent", id: 4 });
    await eventually("all", () => one.taken[1]);
    expect(one.taken.map(String)).toEqual(["back to one", "to the latest now"]);
    expect(other.taken.map(String)).toEqual(["back to other", "to the latest"]);
    expect([...one.sources, ...other.sources]).toEqual([1040, 1040, 1040, 1040]);
  });

  test("may not be a source that only another channel has seen", async () => {
    const { open, one, other, say } = await twoPeers();
    const early = await open("raw");
    const own = await open("raw?share=private&local=2000");
    for (const valve of [one, other]) say(valve, 1040, "hello");
    await early.next("state");
    await early.texts(2);
    const late = await open("raw");
    await own.next("state");
    for (const client of [late, own]) {
      client.send("to one", { id: 1, dst: addressOf(one) });
      expect(await client.next("error")).toMatchObject({ id: 1, code: "forbidden" });
      // The peer is everybody's.
      client.send("to other", { id: 2, dst: addressOf(other) });
      expect(await client.next("sent")).toEqual({ type: "sent", id: 2 });
    }
    early.send("to one", { id: 3, dst: addressOf(one) });
    expect(await early.next("sent")).toEqual({ type: "sent", id: 3 });
    say(one, 2000, "to the private one");
    await own.texts(1);
    own.send("to one", { id: 4, dst: addressOf(one) });
    expect(await own.next("sent")).toEqual({ type: "sent", id: 4 });
  });
});

test("the latest 1024 sources are remembered, and the peer always; 53 never", () => {
  const destinations = new Destinations(false);
  const port = { peer: 7 } as ChannelPort;
  for (let src = 1000; src < 2024; src++) destinations.saw(src);
  expect(destinations.allows(1000, port)).toBe(true);
  // Spoken to again, it is not the oldest any more.
  destinations.saw(1000);
  destinations.saw(2024);
  expect([1000, 1001, 1002, 2024, 7].map((dst) => destinations.allows(dst, port))).toEqual([
    true,
    false,
    true,
    true,
    true,
  ]);
  // The name service is nobody's to speak to, even where it is the peer or has spoken.
  destinations.saw(53);
  expect(destinations.allows(53, { peer: 53 } as ChannelPort)).toBe(false);
});
