import { describe, expect, test } from "vitest";
import type { Frame } from "./json-client.ts";
import { JsonClient } from "./json-client.ts";
import { eventually } from "./support.ts";
import { Valve, vhostBridge } from "./vhost-guest.ts";

/** A guest with 8 receive buffers, and a client of the host's service `raw`, whose other half is a valve. */
async function rawClient() {
  const running = await vhostBridge({}, { endpoints: [{ name: "raw", address: 1040 }] });
  const valve = new Valve();
  const options = {
    profile: "rpmsg-lite",
    services: { raw: { service: valve.factory, ns: "down" } },
  } as const;
  const attached = await running.attach(options);
  await running.endpoint("raw", (each) => each.state === "connected");
  const client = await JsonClient.open(running, "/ws/v1/vm/raw");
  return {
    ...running,
    client,
    valve,
    attached,
    send: (ids: (number | string)[]) => {
      for (const id of ids) client.send(`message ${id}`, { id });
    },
    counters: async () => (await running.endpoint("raw")).counters,
    resets: {
      "the guest reboots": () => attached.vm.reboot(),
      "the frontend goes": async () => attached.vm.close(),
      "the guest is reset after a pause": async () => {
        await attached.vm.pause();
        await attached.vm.reboot();
      },
    },
  };
}

type Reset = keyof Awaited<ReturnType<typeof rawClient>>["resets"];
const resets: Reset[] = ["the guest reboots", "the frontend goes", "the guest is reset after a pause"];

const gone = (id: number | string) =>
  expect.objectContaining({ type: "error", id, code: "guest-gone" }) as unknown;
const down = expect.objectContaining({ type: "state", state: "down", reason: "reset" }) as unknown;

/** What came before the end, but for the states on the way to it. */
async function lastFrames(client: JsonClient): Promise<Frame[]> {
  expect(await client.closed).toEqual(RESET);
  const frames = await client.take(client.received);
  return frames.filter((each) => each.type !== "state" || each.state === "down");
}

const RESET = { code: 4001, reason: "guest detached or reset" };

describe.each(resets)("a reset, because %s", (reset) => {
  test("what waited is answered by guest-gone, then comes state down, then 4001", async () => {
    const { client, send, counters, resets: by } = await rawClient();
    send([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(await client.take(8)).toEqual([0, 1, 2, 3, 4, 5, 6, 7].map((id) => ({ type: "sent", id })));
    send(["a", "b"]);
    client.send("nameless");
    send(["c"]);
    expect(await client.all()).toEqual([]);
    expect(await counters()).toMatchObject({ accepted: 12, messagesToGuest: 8 });
    await by[reset]();
    const frames = await lastFrames(client);
    // Those that were sent are answered first.
    expect(frames.slice(0, 8).toSorted((a, b) => idOf(a) - idOf(b))).toEqual(
      [0, 1, 2, 3, 4, 5, 6, 7].map(gone),
    );
    const waited = frames.slice(8);
    expect(waited.map((each) => ("id" in each ? each.id : each.type))).toEqual([
      "a",
      "b",
      "error",
      "c",
      "state",
    ]);
    for (const each of waited.slice(0, 4)) expect(each).toMatchObject({ type: "error", code: "guest-gone" });
    expect(waited[4]).toEqual(down);
    expect(await counters()).toMatchObject({ accepted: 12, messagesToGuest: 8, undelivered: 4 });
  });

  test("what was sent and not read is answered a second time, by guest-gone, and counted unconfirmed", async () => {
    const { client, send, counters, resets: by } = await rawClient();
    const ids = [0, 1, 2, 3, 4];
    send(ids);
    expect(await client.take(5)).toEqual(ids.map((id) => ({ type: "sent", id })));
    expect(await counters()).toMatchObject({ messagesToGuest: 5, unconfirmed: 0 });
    await by[reset]();
    const frames = await lastFrames(client);
    expect(frames.slice(0, 5).toSorted((a, b) => idOf(a) - idOf(b))).toEqual(ids.map(gone));
    expect(frames.slice(5)).toEqual([down]);
    expect(await counters()).toMatchObject({ messagesToGuest: 5, undelivered: 0, unconfirmed: 5 });
  });

  test("what was read is not reported", async () => {
    const { client, send, counters, valve, resets: by } = await rawClient();
    valve.open = true;
    // More than there are buffers: each of them comes back.
    for (let round = 0; round < 3; round++) {
      send([0, 1, 2, 3, 4, 5]);
      expect(await client.take(6)).toEqual([0, 1, 2, 3, 4, 5].map((id) => ({ type: "sent", id })));
      await eventually("the guest has read them", () => valve.taken[6 * round + 5]);
    }
    valve.open = false;
    send(["unread"]);
    expect(await client.next("sent")).toEqual({ type: "sent", id: "unread" });
    await by[reset]();
    expect(await lastFrames(client)).toEqual([gone("unread"), down]);
    expect(await counters()).toMatchObject({ accepted: 19, messagesToGuest: 19, unconfirmed: 1 });
  });
});

test("what was read in a buffer that the guest has kept may be unread, for all that the bridge knows", async () => {
  const { client, send, valve, attached, counters } = await rawClient();
  valve.open = true;
  attached.guest.faults.neverRefill = true;
  send(["kept"]);
  await client.next("sent");
  await eventually("the guest has read it", () => valve.taken[0]);
  await attached.vm.reboot();
  expect(await lastFrames(client)).toEqual([gone("kept"), down]);
  expect(await counters()).toMatchObject({ unconfirmed: 1 });
});

test("a message without an id is counted and told without one", async () => {
  const { client, attached, counters } = await rawClient();
  client.send("nameless");
  expect(await client.all()).toEqual([]);
  await attached.vm.reboot();
  const [error, state] = await lastFrames(client);
  expect(error).toMatchObject({ type: "error", code: "guest-gone" });
  expect(error).not.toHaveProperty("id");
  expect(state).toEqual(down);
  expect(await counters()).toMatchObject({ messagesToGuest: 1, unconfirmed: 1 });
});

test("the endpoint serves the next generation, and nothing of before is told there", async () => {
  const running = await rawClient();
  running.send([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  await running.client.take(8);
  await running.attached.vm.reboot();
  await running.client.closed;
  await running.endpoint("raw", (each) => each.generation === 2 && each.state === "connected");
  running.valve.open = true;
  const client = await JsonClient.open(running, "/ws/v1/vm/raw");
  client.send("new", { id: 1 });
  expect(await client.next("sent")).toEqual({ type: "sent", id: 1 });
  await eventually("it", () => running.valve.taken[0]);
  expect(running.valve.taken.map(String)).toEqual(["new"]);
  expect(await client.all()).toEqual([]);
});

function idOf(frame: object): number {
  return "id" in frame ? Number(frame.id) : Number.NaN;
}
