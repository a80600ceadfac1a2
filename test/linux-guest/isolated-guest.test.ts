import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { LinuxGuest } from "../../scripts/linux-guest/linux-guest.ts";
import { eventually, testBridge, testDirectory } from "../server/support.ts";

const available = LinuxGuest.availability("rt-armmp");
const why = available.ok ? "" : ` (not here: ${available.reason})`;

/** A boot under software emulation takes seconds, and more on a busy machine. */
const SLOW = 180_000;

describe.skipIf(!available.ok)(`a stock Linux guest with isolation${why}`, { timeout: SLOW }, () => {
  test("echo, terminal, pause and a reload of its driver, with its memory in a process of its own", async () => {
    const socketPath = join(testDirectory(), "vm0.sock");
    const running = await testBridge({
      guests: {
        vm0: {
          kind: "vhost-user",
          path: socketPath,
          isolation: "process",
          endpoints: [{ name: "rpmsg-raw", address: 1040 }, { name: "rpmsg-tty" }],
        },
      },
    });
    const guest = await LinuxGuest.boot({ socketPath, flavour: "rt-armmp" });
    try {
      await through(running, guest);
    } catch (error) {
      console.error(guest.transcript);
      throw error;
    } finally {
      await guest.kill();
    }
    expect(guest.failure).toBeUndefined();
    await eventually("the end of the attachment", async () =>
      (await running.guest("vm0")).state === "waiting" ? true : undefined,
    );
  });
});

async function through(running: Awaited<ReturnType<typeof testBridge>>, guest: LinuxGuest): Promise<void> {
  const serveRaw = async (): Promise<void> => {
    await guest.run("until [ -c /dev/rpmsg0 ]; do usleep 20000; done");
    guest.background("guest-helper serve /dev/rpmsg0 raw hello");
    await running.endpoint("rpmsg-raw", (each) => each.state === "connected");
  };
  await serveRaw();
  expect(await running.guest("vm0")).toMatchObject({
    state: "attached",
    generation: 1,
    mtu: 496,
    queues: { response: 256, request: 256 },
  });
  const raw = await running.connect("/ws/v1/vm0/rpmsg-raw");
  const sent = Array.from({ length: 1000 }, (_, i) => {
    const message = Buffer.alloc(1 + ((i * 167) % 496), i);
    if (message.length >= 4) message.writeUInt32LE(i);
    return message;
  });
  for (const message of sent) raw.send(message);
  const echoed = await raw.take(1000);
  expect(echoed.findIndex((each, i) => !each.equals(sent[i] as Buffer))).toBe(-1);

  await guest.run("until [ -c /dev/ttyRPMSG0 ]; do usleep 20000; done");
  const tty = await running.connect("/ws/v1/vm0/rpmsg-tty");
  guest.background("guest-helper serve /dev/ttyRPMSG0 tty login:");
  expect(await tty.text()).toBe("login:");
  tty.send("some keys\n");
  let text = "";
  while (text.length < 10) text += await tty.text();
  expect(text).toBe("some keys\n");

  await guest.monitor("stop");
  // The monitor's answer says that the queues have stopped: for the bridge too.
  expect((await running.guest("vm0")).state).toBe("suspended");
  const meanwhile = Array.from({ length: 300 }, (_, i) => `meanwhile ${i}`);
  for (const message of meanwhile) raw.send(message);
  await running.endpoint("rpmsg-raw", (each) => each.counters.accepted === 1300);
  await guest.monitor("cont");
  expect((await raw.take(300)).map(String)).toEqual(meanwhile);
  expect(await running.guest("vm0")).toMatchObject({ state: "attached", generation: 1 });

  expect((await guest.run("rmmod virtio_rpmsg_bus")).status).toBe(0);
  expect((await running.guest("vm0")).state).toBe("suspended");
  expect((await guest.run("insmod /modules/virtio_rpmsg_bus.ko")).status).toBe(0);
  expect((await raw.closed).code).toBe(4001);
  await serveRaw();
  expect(await running.guest("vm0")).toMatchObject({ state: "attached", generation: 2 });
  const after = await running.connect("/ws/v1/vm0/rpmsg-raw");
  after.send("again");
  expect(await after.text()).toBe("again");
}
