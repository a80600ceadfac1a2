import { describe, expect, test } from "vitest";
import { EmulatedGuest } from "../../guest/index.ts";
import { emulatedBridge } from "./mux-client.ts";
import { eventually } from "./support.ts";
import { Valve } from "./vhost-guest.ts";

const COUNT = 500;
const subs = Array.from({ length: COUNT }, (_, i) => i);

describe("500 subscriptions of one connection", () => {
  test("each gets its own answers, before a reset and after it, and all end with the socket", async () => {
    const guest = new EmulatedGuest();
    const { mux, endpoint } = await emulatedBridge({ demo: guest });
    const client = await mux();
    for (const sub of subs)
      client.subscribe(sub, `/ws/v1/demo/echo${sub % 2 === 0 ? "" : "?slow=drop-oldest"}`);
    const opened = await client.takeMany(COUNT, "subscribed");
    expect(opened.map(({ sub }) => sub)).toEqual(subs);
    expect(new Set(opened.map(({ local }) => local)).size).toBe(COUNT);
    const everyEcho = async (round: string) => {
      for (const sub of subs) client.send(sub, `${round} ${sub}`, sub + 1);
      const [messages, sent] = [
        await client.takeMany(COUNT, "message"),
        await client.takeMany(COUNT, "sent"),
      ];
      expect(messages.every(({ sub, bytes }) => bytes.toString() === `${round} ${sub}`)).toBe(true);
      expect(new Set(messages.map(({ sub }) => sub)).size).toBe(COUNT);
      expect(sent.every(({ sub, id }) => id === sub + 1)).toBe(true);
    };
    await everyEcho("first");
    await guest.reboot();
    await client.takeMany(COUNT, "subscribed");
    await client.settled();
    const states = client.frames.flatMap((each) => (each.type === "state" ? [each.state] : []));
    // It stops, it is reset, it is back.
    expect(states.filter((state) => state === "down").length).toBe(COUNT);
    expect(states.length).toBe(3 * COUNT);
    client.frames.length = 0;
    await everyEcho("second");
    expect((await endpoint("echo")).clients).toBe(COUNT);
    await client.close();
    await endpoint("echo", (each) => each.clients === 0);
  });

  test("on one shared address all hear the same", async () => {
    const { mux } = await emulatedBridge({ demo: new EmulatedGuest() });
    const client = await mux();
    for (const sub of subs) client.subscribe(sub, "/ws/v1/demo/echo?share=shared");
    const opened = await client.takeMany(COUNT, "subscribed");
    expect(new Set(opened.map(({ local }) => local)).size).toBe(1);
    client.send(17, "for all");
    const messages = await client.takeMany(COUNT, "message");
    expect(messages.map(({ sub }) => sub)).toEqual(subs);
    expect(messages.every(({ bytes, seq }) => bytes.toString() === "for all" && seq === 1)).toBe(true);
  });
});

describe("the end of the socket", () => {
  test.each(["close", "terminate"] as const)("(%s) frees addresses and exclusive endpoints", async (how) => {
    const { mux, connect, endpoints } = await emulatedBridge({ demo: new EmulatedGuest() });
    const client = await mux();
    await client.subscribed(1, "/ws/v1/demo/echo?local=2000");
    await client.subscribed(2, "/ws/v1/demo/sink?share=exclusive");
    await client.subscribed(3, "/ws/v1/demo/tty?share=shared");
    client.socket[how]();
    await client.closed;
    await eventually("nobody is there", async () =>
      (await endpoints()).every((each) => each.clients === 0) ? true : undefined,
    );
    const other = await connect("/ws/v1/demo/echo?local=2000");
    other.send("mine now");
    expect(await other.text()).toBe("mine now");
    await connect("/ws/v1/demo/sink?share=exclusive");
  });

  test("does not take back what was sent: it waits for the guest, and its address with it", async () => {
    const valve = new Valve();
    const guest = new EmulatedGuest({ profile: "rpmsg-lite", services: { valve: valve.factory } });
    const { mux, connect, endpoint } = await emulatedBridge({ demo: guest });
    const client = await mux();
    await client.subscribed(1, "/ws/v1/demo/valve?local=2000");
    for (let i = 0; i < 50; i++) client.send(1, `${i}`);
    await client.settled();
    client.socket.terminate();
    await endpoint("valve", (each) => each.clients === 0);
    await expect(connect("/ws/v1/demo/valve?local=2000")).rejects.toThrow("409");
    valve.open = true;
    guest.called();
    await eventually("all of them", () => (valve.taken.length === 50 ? true : undefined));
    expect(valve.taken.map(String)).toEqual(Array.from({ length: 50 }, (_, i) => `${i}`));
    expect(new Set(valve.sources)).toEqual(new Set([2000]));
    expect((await endpoint("valve")).counters).toMatchObject({ accepted: 50, messagesToGuest: 50 });
    await eventually("the address is free", () =>
      connect("/ws/v1/demo/valve?local=2000").then(
        () => true,
        () => undefined,
      ),
    );
  });

  test("releases a guest that one of its subscriptions held", async () => {
    const guest = new EmulatedGuest();
    const { mux, connect, endpoint } = await emulatedBridge(
      { demo: guest },
      { limits: { slowReaderBytes: 4096, pauseTimeout: 60_000 } },
    );
    const client = await mux();
    await client.subscribed(1, "/ws/v1/demo/source?slow=pause", 0);
    const other = await connect("/ws/v1/demo/echo");
    client.send(1, "100 100");
    await endpoint("source", (each) => each.counters.messagesFromGuest > 30);
    other.send("held");
    client.socket.terminate();
    expect(await other.text()).toBe("held");
  });
});
