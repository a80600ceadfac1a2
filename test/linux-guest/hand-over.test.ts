import { describe, expect, test } from "vitest";
import { LinuxGuest } from "../../scripts/linux-guest/linux-guest.ts";
import { echoed } from "../server/hand-over-echo.ts";
import { Dynasty } from "../server/hand-over-support.ts";

const available = LinuxGuest.availability("rt-armmp");
const why = available.ok ? "" : ` (not here: ${available.reason})`;

describe.skipIf(!available.ok)(`a bridge of a stock Linux guest in QEMU is replaced${why}`, () => {
  test.each([
    { isolation: "none", messages: 100_000, handOvers: [15_000, 40_000, 65_000] },
    { isolation: "process", messages: 10_000, handOvers: [2000, 6000] },
  ] as const)(
    "while $messages messages go both ways, isolation $isolation: each is answered once and in order",
    {
      timeout: 900_000,
    },
    async ({ isolation, messages, handOvers }) => {
      const { dynasty, first } = await Dynasty.found({}, isolation);
      const endpoints = [{ name: "rpmsg-raw", address: 1040 }];
      const input = {
        guests: { vm: { kind: "vhost-user" as const, path: dynasty.vm, isolation, endpoints } },
      };
      let bridge = await dynasty.handOver(first, input);
      const guest = await LinuxGuest.boot({ socketPath: dynasty.vm, flavour: "rt-armmp" });
      try {
        await guest.run("until [ -c /dev/rpmsg0 ]; do usleep 20000; done");
        guest.background("guest-helper serve /dev/rpmsg0 raw hello");
        await dynasty.endpoint("rpmsg-raw", ({ state }) => state === "connected");
        const { generation, id } = await dynasty.endpoint("rpmsg-raw");
        const channel = await dynasty.channel("rpmsg-raw");
        const marks = handOvers.map((at) => {
          let pass: () => void = () => {};
          const passed = new Promise<void>((resolve) => {
            pass = resolve;
          });
          return { at, pass, passed };
        });
        const all = echoed(channel, "n", (sent) => {
          for (const { at, pass } of marks) if (sent === at) pass();
          return sent >= messages;
        });
        for (const { passed } of marks) {
          await Promise.race([passed, all]);
          bridge = await dynasty.handOver(bridge, input);
        }
        expect(await all).toBe(messages);
        const endpoint = await dynasty.endpoint("rpmsg-raw");
        expect(endpoint).toMatchObject({ id, generation });
        expect(endpoint.counters).toMatchObject({
          accepted: messages,
          messagesToGuest: messages,
          // The first one is the guest's greeting.
          messagesFromGuest: messages + 1,
          messagesToClients: messages,
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
    },
  );
});
