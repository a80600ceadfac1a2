import { describe, expect, test } from "vitest";
import { echoed } from "./hand-over-echo.ts";
import { Dynasty } from "./hand-over-support.ts";

const SLOW = { timeout: 120_000 };

describe.each(["none", "process"] as const)("a hand-over under load, isolation: %s", (isolation) => {
  test(
    "every message of every client is answered once and in order, over three hand-overs",
    SLOW,
    async () => {
      const { dynasty, first } = await Dynasty.found({}, isolation);
      await dynasty.attach();
      await dynasty.endpoint("echo");
      const channels = await Promise.all([1, 2, 3].map(() => dynasty.channel("echo")));
      const state = { over: false };
      const clients = channels.map((channel, i) =>
        echoed(channel, `${i}`, (sent) => state.over && sent >= 1000),
      );
      let bridge = first;
      for (let i = 0; i < 3; i++) bridge = await dynasty.handOver(bridge);
      state.over = true;
      const total = (await Promise.all(clients)).reduce((sum, count) => sum + count, 0);
      expect((await dynasty.endpoint("echo")).counters).toMatchObject({
        accepted: total,
        messagesToGuest: total,
        messagesFromGuest: total,
        dropped: 0,
        undelivered: 0,
      });
      expect(await dynasty.guest()).toMatchObject({ generation: 1 });
    },
  );

  test("a guest that sends as fast as it can goes on where it was", SLOW, async () => {
    const { dynasty, first } = await Dynasty.found({}, isolation);
    await dynasty.attach();
    await dynasty.endpoint("source");
    const channel = await dynasty.channel("source", { slow: "pause", encoding: "base64" });
    /** Small bursts, one after another, for as long as the hand-overs take. */
    const burst = 2000;
    const state = { over: false };
    const bursts = (async () => {
      for (let count = 1; ; count++) {
        await channel.send(`${burst} 8`);
        for (let next = 0; next < burst; next++) {
          const { data } = await channel.receive();
          const number = Buffer.from(data).readUInt32LE();
          if (number !== next) throw new Error(`message ${number} comes where ${next} is to come`);
        }
        if (state.over) return count * burst;
      }
    })();
    await dynasty.handOver(await dynasty.handOver(first));
    state.over = true;
    const total = await bursts;
    expect((await dynasty.endpoint("source")).counters).toMatchObject({
      messagesFromGuest: total,
      dropped: 0,
    });
  });
});
