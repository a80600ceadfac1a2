import { describe, expect, test } from "vitest";
import { echoed } from "../server/hand-over-echo.ts";
import { Dynasty } from "../server/hand-over-support.ts";
import { LinuxGuest } from "./linux-guest.ts";

const available = LinuxGuest.availability("rt-armmp");
const why = available.ok ? "" : ` (not here: ${available.reason})`;

const MESSAGES = 100_000;
/** Messages that were sent when the bridge is replaced. */
const HAND_OVERS = [15_000, 40_000, 65_000];

describe.skipIf(!available.ok)(`a bridge of a stock Linux guest in QEMU is replaced${why}`, () => {
  test("three times, while 100,000 messages go both ways: each is answered once and in order", {
    timeout: 900_000,
  }, async () => {
    const { dynasty, first } = await Dynasty.found();
    const endpoints = [{ name: "rpmsg-raw", address: 1040 }];
    const input = { guests: { vm: { kind: "vhost-user" as const, path: dynasty.vm, endpoints } } };
    let bridge = await dynasty.handOver(first, input);
    const guest = await LinuxGuest.boot({ socketPath: dynasty.vm, flavour: "rt-armmp" });
    try {
      await guest.run("until [ -c /dev/rpmsg0 ]; do usleep 20000; done");
      guest.background("guest-helper serve /dev/rpmsg0 raw hello");
      await dynasty.endpoint("rpmsg-raw", ({ state }) => state === "connected");
      const { generation, id } = await dynasty.endpoint("rpmsg-raw");
      const channel = await dynasty.channel("rpmsg-raw");
      const marks = HAND_OVERS.map((at) => {
        let pass: () => void = () => {};
        const passed = new Promise<void>((resolve) => {
          pass = resolve;
        });
        return { at, pass, passed };
      });
      const all = echoed(channel, "n", (sent) => {
        for (const { at, pass } of marks) if (sent === at) pass();
        return sent >= MESSAGES;
      });
      for (const { passed } of marks) {
        await Promise.race([passed, all]);
        bridge = await dynasty.handOver(bridge, input);
      }
      expect(await all).toBe(MESSAGES);
      const endpoint = await dynasty.endpoint("rpmsg-raw");
      expect(endpoint).toMatchObject({ id, generation });
      expect(endpoint.counters).toMatchObject({
        accepted: MESSAGES,
        messagesToGuest: MESSAGES,
        // The first one is the guest's greeting.
        messagesFromGuest: MESSAGES + 1,
        messagesToClients: MESSAGES,
        undelivered: 0,
        unconfirmed: 0,
        dropped: 0,
      });
    } finally {
      const { failure } = guest;
      await guest.kill();
      expect(failure).toBeUndefined();
    }
    expect(await bridge.kill("SIGTERM")).toMatchObject({ code: 0 });
  });
});
