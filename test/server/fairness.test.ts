import { describe, expect, test } from "vitest";
import { emulatedBridge, Sluice } from "./mux-client.ts";
import { eventually } from "./support.ts";

const BUFFERS = 8;

/** A guest that takes nothing until it is let, and the ways to send to it: each message begins with its sender's name. */
async function sluiceBridge() {
  const sluice = new Sluice("sluice", "other");
  const running = await emulatedBridge({ demo: sluice.guest });
  const { connect, mux, url, endpoints } = running;
  const mine = await mux();
  const counters = async () => (await endpoints()).map((each) => each.counters);
  const accepted = async () => (await counters()).reduce((sum, each) => sum + each.accepted, 0);
  const ways = {
    raw: async (name: string) => {
      const client = await connect("/ws/v1/demo/sluice");
      return (text: string) => client.send(`${name} ${text}`);
    },
    "another endpoint's raw": async (name: string) => {
      const client = await connect("/ws/v1/demo/other");
      return (text: string) => client.send(`${name} ${text}`);
    },
    shared: async (name: string) => {
      const client = await connect("/ws/v1/demo/sluice?share=shared");
      return (text: string) => client.send(`${name} ${text}`);
    },
    json: async (name: string) => {
      const client = await connect("/ws/v1/demo/sluice", ["rpmsg.v1.json"]);
      return (text: string) =>
        client.socket.send(JSON.stringify({ type: "send", data: `${name} ${text}`, timeout: 60_000 }));
    },
    "mux, with a socket of its own": async (name: string) => {
      const client = await mux();
      await client.subscribed(1, "/ws/v1/demo/sluice");
      return (text: string) => client.send(1, `${name} ${text}`);
    },
    mux: async (name: string) => {
      const sub = name.charCodeAt(0);
      await mine.subscribed(sub, "/ws/v1/demo/sluice");
      return (text: string) => mine.send(sub, `${name} ${text}`);
    },
    rest: async (name: string) => {
      const { id } = await running.endpoint("sluice");
      return (text: string) => {
        void fetch(`${url}/api/v1/guests/demo/endpoints/${id}/messages`, {
          method: "POST",
          headers: { "content-type": "application/octet-stream" },
          body: `${name} ${text}`,
        }).catch(() => {});
      };
    },
  };
  /** Lets the guest take so many messages, and gives them. */
  const taken = async (count: number): Promise<string[]> => {
    const start = sluice.taken.length;
    sluice.let(count);
    await eventually(`${count} messages`, () => (sluice.taken.length === start + count ? true : undefined));
    return sluice.taken.slice(start).map(String);
  };
  return { ...running, ways, taken, accepted };
}

type Way = keyof Awaited<ReturnType<typeof sluiceBridge>>["ways"];
const ways: Way[] = [
  "raw",
  "another endpoint's raw",
  "shared",
  "json",
  "mux, with a socket of its own",
  "mux",
  "rest",
];

const FLOOD = 150;

describe.each(["raw", "json", "mux"] as const)("a flood over %s", (flooding) => {
  test.each(ways)("has one message more than what is sent now and then (%s)", async (way) => {
    const { ways: open, accepted, taken } = await sluiceBridge();
    const [flood, send] = [await open[flooding]("f"), await open[way]("s")];
    // All of them wait, but those in the guest's buffers.
    for (let i = 0; i < FLOOD; i++) flood(`${i}`.padEnd(300));
    await eventually("the flood", async () => ((await accepted()) === FLOOD ? true : undefined));
    const heard: string[] = [];
    for (let round = 1; round <= 10; round++) {
      send(`${round}`);
      await eventually("one more", async () => ((await accepted()) === FLOOD + round ? true : undefined));
      // Those that are in the buffers already, the one whose turn it was, and ours.
      const came = await taken(BUFFERS + 2);
      expect(came).toContain(`s ${round}`);
      heard.push(...came.filter((text) => text.startsWith("f")));
    }
    expect(heard.map((text) => Number(text.slice(2)))).toEqual(heard.map((_, i) => i));
  });
});

test("all that flood have their turns, whatever they speak, and one that comes last has its own", async () => {
  const { ways: open, accepted, taken } = await sluiceBridge();
  const names = ["a", "b", "c", "d", "e", "f"];
  const senders = await Promise.all(
    (["raw", "raw", "shared", "json", "mux", "mux"] as const).map((way, i) => open[way](names[i] ?? "")),
  );
  for (const [i, send] of senders.entries()) {
    for (let n = 0; n < 60; n++) send(`${n}`);
    await eventually("its flood", async () => ((await accepted()) === 60 * (i + 1) ? true : undefined));
  }
  const last = await open.raw("z");
  last("here too");
  await eventually("the last", async () => ((await accepted()) === 361 ? true : undefined));
  expect(await taken(BUFFERS + names.length + 1)).toContain("z here too");
  // From here on each has exactly one in every round.
  const rounds = await taken(10 * names.length);
  for (let round = 0; round < 10; round++) {
    const who = rounds
      .slice(round * names.length, (round + 1) * names.length)
      .map((text) => text.slice(0, 1));
    expect(who.toSorted()).toEqual(names);
  }
});

test("a flood over one of two shared clients has a turn of its own, not the address one", async () => {
  const { ways: open, accepted, taken } = await sluiceBridge();
  const [flood, send] = [await open.shared("f"), await open.shared("s")];
  for (let i = 0; i < FLOOD; i++) flood(`${i}`);
  await eventually("the flood", async () => ((await accepted()) === FLOOD ? true : undefined));
  for (let i = 0; i < 5; i++) send(`${i}`);
  await eventually("five more", async () => ((await accepted()) === FLOOD + 5 ? true : undefined));
  const came = await taken(BUFFERS + 11);
  expect(came.filter((text) => text.startsWith("s"))).toEqual(["s 0", "s 1", "s 2", "s 3", "s 4"]);
});
