import { afterEach, describe, expect, test, vi } from "vitest";
import { service } from "../../guest/define-service.ts";
import { EmulatedGuest } from "../../guest/emulated-guest.ts";
import type { ProfileName } from "../../guest/profiles.ts";
import { echo } from "../../guest/services/echo.ts";
import { boot, probe, RawHost, turns, until } from "./support.ts";

const PROFILES: { profile: ProfileName; buffers: number }[] = [
  { profile: "linux", buffers: 256 },
  { profile: "openamp", buffers: 16 },
  { profile: "rpmsg-lite", buffers: 8 },
];

afterEach(() => {
  vi.useRealTimers();
});

describe.each(PROFILES)("neverRefill, $profile", ({ profile, buffers }) => {
  test("takes as many messages as there are buffers, and goes on when it is switched off", async () => {
    const { host, guest } = await boot({ profile, services: { echo } }, 1);
    guest.faults.neverRefill = true;
    const client = host.open({ peer: host.addressOf("echo") });
    for (let i = 0; i < 600; i++) client.send(`${i}`);
    await until(() => client.got.length === buffers);
    guest.faults.dropReceived = 0;
    await turns(10);
    expect(client.got).toHaveLength(buffers);
    guest.faults.neverRefill = false;
    await until(() => client.got.length === 600);
    expect(client.texts).toEqual(Array.from({ length: 600 }, (_, i) => `${i}`));
  });

  test("outlives a reboot, which posts all buffers again", async () => {
    const { host, guest, link } = await boot({ profile, services: { echo } }, 1);
    guest.faults.neverRefill = true;
    host.open({ peer: host.addressOf("echo") }).send("x");
    await turns();
    link.reboot();
    await until(() => host.announced.length === 2);
    const client = host.open({ peer: host.addressOf("echo") });
    for (let i = 0; i < 600; i++) client.send(`${i}`);
    await until(() => client.got.length === buffers);
    await turns(10);
    expect(client.got).toHaveLength(buffers);
  });
});

test("neverRefill switched off while a message waits to be taken: it stays whole", async () => {
  let fill: (text: string) => void = () => {};
  const filler = service(({ send }) => {
    fill = (text) => send(text, 0x500);
  });
  const { host, guest } = await boot({ profile: "rpmsg-lite", services: { echo, filler } }, 2);
  const client = host.open({ peer: host.addressOf("echo") });
  guest.faults.neverRefill = true;
  for (const text of ["0", "1", "2"]) client.send(text);
  await until(() => client.got.length === 3);
  host.device.hold();
  for (let i = 0; i < 8; i++) fill("no buffer is left");
  for (const text of ["3", "4"]) client.send(text);
  await turns();
  guest.faults.neverRefill = false;
  for (const text of ["5", "6", "7", "8"]) client.send(text);
  await turns();
  host.device.release();
  await until(() => client.got.length === 9);
  expect(client.texts).toEqual(Array.from({ length: 9 }, (_, i) => `${i}`));
});

describe.each(PROFILES)("delay, $profile", ({ profile, buffers }) => {
  test("each message is handled so much after it arrived, in order", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
    const { host, guest } = await boot({ profile, services: { echo } }, 1);
    const client = host.open({ peer: host.addressOf("echo") });
    guest.faults.delay = 100;
    client.send("first");
    await turns();
    vi.advanceTimersByTime(60);
    client.send("second");
    await turns();
    vi.advanceTimersByTime(39);
    await turns();
    expect(client.texts).toEqual([]);
    vi.advanceTimersByTime(1);
    await turns();
    expect(client.texts).toEqual(["first"]);
    vi.advanceTimersByTime(60);
    await turns();
    expect(client.texts).toEqual(["first", "second"]);
  });

  test("messages that wait have their buffers; a change counts for them, too", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
    const { host, guest } = await boot({ profile, services: { echo } }, 1);
    const client = host.open({ peer: host.addressOf("echo") });
    guest.faults.delay = 1000;
    for (let i = 0; i < 2 * buffers; i++) client.send(`${i}`);
    await turns();
    expect(host.device.counters.messagesToGuest).toBe(buffers);
    vi.advanceTimersByTime(10);
    guest.faults.delay = 0;
    await until(() => client.got.length === 2 * buffers);
    expect(client.texts).toEqual(Array.from({ length: 2 * buffers }, (_, i) => `${i}`));
    client.send("at once");
    await until(() => client.got.length === 2 * buffers + 1);
    expect(vi.getTimerCount()).toBe(0);
  });

  test("a reset forgets what waits", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
    const probed = probe();
    const { host, guest, link } = await boot({ profile, services: { probe: probed.factory } }, 1);
    guest.faults.delay = 50;
    host.open({ peer: host.addressOf("probe") }).send("lost");
    await turns();
    expect(vi.getTimerCount()).toBe(1);
    link.reboot();
    expect(vi.getTimerCount()).toBe(0);
    await until(() => host.announced.length === 2);
    vi.advanceTimersByTime(1000);
    await turns();
    expect(probed.got).toEqual([]);
    link.close();
  });
});

test("delay: a service that cannot take a message yet gets it again, and those behind it wait", async () => {
  const { host, guest } = await boot({ profile: "rpmsg-lite", services: { echo } }, 1);
  const client = host.open({ peer: host.addressOf("echo") });
  host.device.hold();
  // Without a delay first: what waits already comes before what is delayed.
  for (let i = 0; i < 10; i++) client.send(`${i}`);
  await turns();
  guest.faults.delay = 1;
  for (let i = 10; i < 40; i++) client.send(`${i}`);
  await turns();
  host.device.release();
  await until(() => client.got.length === 40);
  expect(client.texts).toEqual(Array.from({ length: 40 }, (_, i) => `${i}`));
});

test("delay: what could not be taken before it was set is not delayed", async () => {
  const { host, guest } = await boot({ profile: "rpmsg-lite", services: { echo } }, 1);
  const client = host.open({ peer: host.addressOf("echo") });
  host.device.hold();
  for (let i = 0; i < 9; i++) client.send(`${i}`);
  await turns();
  guest.faults.delay = 3_600_000;
  client.send("delayed");
  await turns();
  host.device.release();
  await until(() => client.got.length === 9);
  await turns();
  expect(client.texts).toEqual(Array.from({ length: 9 }, (_, i) => `${i}`));
});

test("delay: with a length that fits no buffer, Linux loses the buffer and goes on with the next message", () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setImmediate", "performance"] });
  const probed = probe();
  const host = new RawHost("linux", { probe: probed.factory });
  host.guest.faults.delay = 10;
  const { address } = probed.contexts[0] as { address: number };
  host.send(7, address, "four", { len: 400 });
  host.send(7, address, "next");
  vi.advanceTimersByTime(20);
  expect(probed.got).toEqual([`7>${address} next`]);
  expect(host.postedSince(256)).toBe(1);
});

describe("dropReceived", () => {
  test("so many messages are thrown away, and their buffers posted again", async () => {
    const { host, guest } = await boot({ profile: "rpmsg-lite", services: { echo } }, 1);
    const client = host.open({ peer: host.addressOf("echo") });
    guest.faults.dropReceived = 20;
    for (let i = 0; i < 25; i++) client.send(`${i}`);
    await until(() => client.got.length === 5);
    expect(client.texts).toEqual(["20", "21", "22", "23", "24"]);
    expect(guest.faults.dropReceived).toBe(0);
  });

  test("all, until it is cleared; announcements of the host are heard", async () => {
    const { host, guest } = await boot({ services: { echo } }, 1);
    guest.faults.dropReceived = Number.POSITIVE_INFINITY;
    const client = host.open({ address: 0x500 });
    host.device.announce("greeter", 0x500);
    await until(() => client.got.length === 1);
    client.send("unheard");
    await turns();
    guest.faults.clear();
    client.send("heard");
    await until(() => client.got.length === 2);
    expect(client.texts).toEqual(["", "heard"]);
  });
});

describe("corruptLength", () => {
  test("so many messages have a length beyond their buffers; the device counts them and goes on", async () => {
    const { host, guest } = await boot({ services: { echo } }, 1);
    const client = host.open({ peer: host.addressOf("echo") });
    guest.faults.corruptLength = 2;
    for (let i = 0; i < 5; i++) client.send(`${i}`);
    await until(() => client.got.length === 3);
    expect(client.texts).toEqual(["2", "3", "4"]);
    expect(host.device.counters).toMatchObject({ malformed: 2, brokenQueues: 0 });
  });

  test("announcements stay whole", async () => {
    const { host, guest, link } = await boot({ services: { echo } }, 1);
    guest.faults.corruptLength = Number.POSITIVE_INFINITY;
    link.reboot();
    await until(() => host.announced.length === 2);
    host.open({ peer: host.addressOf("echo") }).send("x");
    await until(() => host.device.counters.malformed === 1);
    expect(guest.faults.corruptLength).toBe(Number.POSITIVE_INFINITY);
  });
});

describe("values", () => {
  const { faults } = new EmulatedGuest();

  test("can be read back, and cleared", () => {
    Object.assign(faults, { neverRefill: true, delay: 1.5, dropReceived: 3, corruptLength: 4 });
    const { neverRefill, delay, dropReceived, corruptLength } = faults;
    expect({ neverRefill, delay, dropReceived, corruptLength }).toEqual({
      ...{ neverRefill: true, delay: 1.5, dropReceived: 3, corruptLength: 4 },
    });
    faults.clear();
    expect([faults.neverRefill, faults.delay, faults.dropReceived, faults.corruptLength]).toEqual([
      ...[false, 0, 0, 0],
    ]);
  });

  test.each(["delay", "dropReceived", "corruptLength"] as const)(
    "%s: what is no amount is refused",
    (key) => {
      for (const value of [-1, Number.NaN, key === "delay" ? 2 ** 31 : 1.5]) {
        expect(() => {
          faults[key] = value;
        }).toThrow(`${key}: want`);
      }
      expect(faults[key]).toBe(0);
    },
  );
});
