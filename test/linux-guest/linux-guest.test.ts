import { existsSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { LinuxGuest } from "../../scripts/linux-guest/linux-guest.ts";
import type { Client, RunningBridge } from "../server/support.ts";
import { eventually, startBridge, testDirectory } from "../server/support.ts";

const available = LinuxGuest.availability("rt-armmp");
const why = available.ok ? "" : ` (not here: ${available.reason})`;

/** A boot under software emulation takes seconds, and more on a busy machine. */
const SLOW = 180_000;

/** Address of the host's rpmsg-raw service. */
const RAW = 1040;

describe.skipIf(!available.ok)(`a stock Linux guest in QEMU${why}`, { timeout: SLOW }, () => {
  let running: RunningBridge;
  let guest: LinuxGuest;
  let socketPath: string;

  beforeEach(async () => {
    socketPath = join(testDirectory(), "vm0.sock");
    running = await startBridge({
      guests: {
        vm0: {
          kind: "vhost-user",
          path: socketPath,
          endpoints: [{ name: "rpmsg-raw", address: RAW }, { name: "rpmsg-tty" }],
        },
      },
    });
    guest = await LinuxGuest.boot({ socketPath, flavour: "rt-armmp" });
  }, SLOW);

  afterEach(async ({ task }) => {
    if (task.result?.state === "fail") console.error(guest.transcript);
    const failure = guest.failure;
    await guest.kill();
    await running.close();
    expect(failure).toBeUndefined();
  }, SLOW);

  const endpoint = async (name: string, origin: "guest" | "host") =>
    (await running.endpoints()).find((each) => each.name === name && each.origin === origin);

  /** Starts the echo behind the service's character device, and waits until the bridge knows its address. */
  const serveRaw = async (): Promise<void> => {
    guest.background("guest-helper serve /dev/rpmsg0 raw hello");
    await eventually("the guest speaks", async () => {
      const raw = await endpoint("rpmsg-raw", "host");
      return raw?.state === "connected" ? raw : undefined;
    });
  };

  test("a service of the host echoes 1,000 messages of 1 to 496 bytes, unchanged and in order", async () => {
    expect((await running.guest("vm0")).state).toBe("attached");
    await guest.run("until [ -c /dev/rpmsg0 ]; do usleep 20000; done");
    await serveRaw();
    const client = await running.connect("/ws/v1/vm0/rpmsg-raw");
    const sent = Array.from({ length: 1000 }, (_, i) => {
      const message = Buffer.alloc(1 + ((i * 167) % 496), i);
      if (message.length >= 4) message.writeUInt32LE(i);
      return message;
    });
    for (const message of sent) client.send(message);
    for (const [i, message] of sent.entries()) {
      const echoed = await client.next();
      if (!echoed.equals(message))
        throw new Error(`message ${i}: ${echoed.length} bytes, not ${message.length}`);
    }
    client.send(Buffer.alloc(497));
    expect(await client.closed).toMatchObject({ code: 1009 });
    const raw = await endpoint("rpmsg-raw", "host");
    expect(raw?.counters).toMatchObject({ messagesToGuest: 1000, messagesFromGuest: 1001, noClient: 1 });
  });

  test("a terminal service gives bytes both ways", async () => {
    await guest.run("until [ -c /dev/ttyRPMSG0 ]; do usleep 20000; done");
    // The guest speaks first: the bridge learns its address from that.
    const client = await running.connect("/ws/v1/vm0/rpmsg-tty");
    guest.background("guest-helper serve /dev/ttyRPMSG0 tty login:");
    expect(await client.text()).toBe("login:");
    client.send("some keys\n");
    let text = "";
    while (text.length < 10) text += await client.text();
    expect(text).toBe("some keys\n");
  });

  test("a device that the guest makes is listed until it is released", async () => {
    await guest.run("until [ -c /dev/rpmsg_ctrl0 ]; do usleep 20000; done");
    const address = 0x77;
    // The character device answers its channel's fixed destination: a client must have that address.
    await guest.run(`guest-helper create-device /dev/rpmsg_ctrl0 rpmsg-raw ${address} 2000`);
    const made = await eventually("the announcement", () => endpoint("rpmsg-raw", "guest"));
    expect(made).toMatchObject({ address, state: "connected", path: `/ws/v1/vm0/rpmsg-raw@${address}` });
    await guest.run("until [ -c /dev/rpmsg1 ]; do usleep 20000; done");
    guest.background("guest-helper serve /dev/rpmsg1 made");
    const client = await running.connect(`${made.path}?local=2000`);
    client.send("over there");
    expect(await client.text()).toBe("over there");
    await guest.run(`guest-helper release-device /dev/rpmsg_ctrl0 rpmsg-raw ${address} 2000`);
    expect(await client.closed).toEqual({ code: 4002, reason: "endpoint withdrawn" });
    expect(await endpoint("rpmsg-raw", "guest")).toBeUndefined();
  });

  test("a reload of the guest's driver is a reset: clients close with 4001, and all works again", async () => {
    await guest.run("until [ -c /dev/rpmsg0 ]; do usleep 20000; done");
    await serveRaw();
    const before = await running.connect("/ws/v1/vm0/rpmsg-raw");
    before.send("one");
    expect(await before.text()).toBe("one");
    expect((await guest.run("rmmod virtio_rpmsg_bus")).status).toBe(0);
    expect((await running.guest("vm0")).state).toBe("suspended");
    expect((await guest.run("insmod /modules/virtio_rpmsg_bus.ko")).status).toBe(0);
    expect((await before.closed).code).toBe(4001);
    expect(await running.guest("vm0")).toMatchObject({ state: "attached", generation: 2 });
    await guest.run("until [ -c /dev/rpmsg0 ]; do usleep 20000; done");
    await serveRaw();
    const after = await running.connect("/ws/v1/vm0/rpmsg-raw");
    after.send("two");
    expect(await after.text()).toBe("two");
  });

  test("a pause closes nobody, and what was sent meanwhile arrives", async () => {
    await guest.run("until [ -c /dev/rpmsg0 ]; do usleep 20000; done");
    await serveRaw();
    await guest.run("guest-helper create-device /dev/rpmsg_ctrl0 rpmsg-raw 0x77 any");
    await eventually("the announcement", () => endpoint("rpmsg-raw", "guest"));
    const client = await running.connect("/ws/v1/vm0/rpmsg-raw");
    client.send("before");
    expect(await client.text()).toBe("before");
    const ids = (await running.endpoints()).map((each) => each.id);

    await guest.monitor("stop");
    await eventually("the pause", async () =>
      (await running.guest("vm0")).state === "suspended" ? true : undefined,
    );
    const meanwhile = Array.from({ length: 300 }, (_, i) => `meanwhile ${i}`);
    for (const message of meanwhile) client.send(message);
    const late = await running.connect("/ws/v1/vm0/rpmsg-raw");
    await guest.monitor("cont");

    for (const message of meanwhile) expect(await client.text()).toBe(message);
    expect(await running.guest("vm0")).toMatchObject({ state: "attached", generation: 1 });
    expect((await running.endpoints()).map((each) => each.id)).toEqual(ids);
    expect(late.socket.readyState).toBe(late.socket.OPEN);
  });

  test("after a power-off the bridge waits for the next guest, which attaches", async () => {
    await guest.run("until [ -c /dev/rpmsg0 ]; do usleep 20000; done");
    await serveRaw();
    const client = await running.connect("/ws/v1/vm0/rpmsg-raw");
    await guest.powerOff();
    expect((await client.closed).code).toBe(4001);
    expect(await running.guest("vm0")).toMatchObject({ state: "waiting", generation: 2 });
    expect((await endpoint("rpmsg-raw", "host"))?.state).toBe("declared");
    expect(existsSync(socketPath)).toBe(true);

    guest = await LinuxGuest.boot({ socketPath, flavour: "rt-armmp" });
    await guest.run("until [ -c /dev/rpmsg0 ]; do usleep 20000; done");
    await serveRaw();
    const next: Client = await running.connect("/ws/v1/vm0/rpmsg-raw");
    next.send("again");
    expect(await next.text()).toBe("again");
    expect(await running.guest("vm0")).toMatchObject({ state: "attached", generation: 2 });
  });
});
