import { expect, test } from "vitest";
import type { Service, ServiceContext } from "../../guest/service.ts";
import { echo } from "../../guest/services/echo.ts";
import { boot, turns, until } from "./support.ts";

/** A service that fails where it is told to. */
function failing(where: keyof Service | "factory") {
  return (context: ServiceContext): Service => {
    const fail = (at: string): void => {
      if (at === where) throw new Error(`in ${at}`);
    };
    fail("factory");
    return {
      onMessage(src, bytes, offset, length) {
        fail("onMessage");
        return context.send(src, bytes, offset, length);
      },
      onWritable: () => fail("onWritable"),
      close: () => fail("close"),
    };
  };
}

test.each(["onMessage", "onWritable", "close", "factory"] as const)(
  "a service that throws in `%s` is reported; the others, and the guest, go on",
  async (where) => {
    const { host, link, errors } = await boot(
      { profile: "rpmsg-lite", services: { failing: failing(where), echo } },
      where === "factory" ? 1 : 2,
    );
    if (where !== "factory") host.open({ peer: host.addressOf("failing") }).send("x");
    const client = host.open({ peer: host.addressOf("echo") });
    // Beyond its buffers: senders sleep, and are woken.
    host.device.hold();
    for (let i = 0; i < 100; i++) client.send(`${i}`);
    await turns();
    host.device.release();
    await until(() => client.got.length === 100);
    expect(client.texts).toEqual(Array.from({ length: 100 }, (_, i) => `${i}`));
    link.reboot();
    await until(() => host.announced.length === (where === "factory" ? 2 : 4));
    expect(new Set(errors)).toEqual(new Set([`failed: service failing: in ${where}`]));
    // No buffer was lost with the message.
    expect(host.device.counters).toMatchObject({ malformed: 0, brokenQueues: 0 });
  },
);

test("a message that is too long, where the profile refuses it", async () => {
  const { host, errors } = await boot(
    {
      services: {
        long: (context) => ({ onMessage: (src) => context.send(src, new Uint8Array(497)) }),
        echo,
      },
    },
    2,
  );
  const client = host.open({ peer: host.addressOf("long") });
  for (let i = 0; i < 300; i++) client.send("x");
  await turns(10);
  expect(errors).toHaveLength(300);
  expect(errors[0]).toBe("failed: service long: a message of 497 bytes is too long");
  const other = host.open({ peer: host.addressOf("echo") });
  other.send("hello");
  await until(() => other.got.length === 1);
});
