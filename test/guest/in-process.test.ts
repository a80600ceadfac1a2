import { describe, expect, test } from "vitest";
import { EmulatedGuest } from "../../guest/emulated-guest.ts";
import { attachInProcess } from "../../guest/in-process.ts";
import type { ProfileName } from "../../guest/profiles.ts";
import { bootInProcess, Host, turns, until } from "./support.ts";

const PROFILES: ProfileName[] = ["linux", "openamp", "rpmsg-lite"];

describe.each(PROFILES)("an emulated guest in this process, %s", (profile) => {
  test("reboot: a new generation, all services withdrawn and announced again, and they answer", async () => {
    const { host, link } = await bootInProcess(profile);
    const before = host.open({ peer: host.addressOf("echo") });
    before.send("never answered");
    link.reboot();
    await until(() => host.announced.length === 10);
    expect(host.device.generation).toBe(2);
    expect(host.withdrawn).toHaveLength(5);
    const client = host.open({ peer: host.addressOf("echo") });
    client.send("hello");
    await until(() => client.got.length > 0);
    expect(client.texts).toEqual(["hello"]);
    expect(host.states).toEqual(["attached", "suspended", "detached", "attached"]);
  });

  test("pause and resume: nothing is lost, nothing is announced again", async () => {
    const { host, link } = await bootInProcess(profile);
    const source = host.open({ peer: host.addressOf("source") });
    source.send("2000 8");
    await until(() => source.got.length > 100);
    for (let i = 0; i < 5; i++) {
      link.pause();
      link.pause();
      const seen = source.got.length;
      await turns(10);
      expect(source.got).toHaveLength(seen);
      link.resume();
      link.resume();
      await until(() => source.got.length > seen || seen === 2000);
    }
    await until(() => source.got.length === 2000);
    expect(source.got.map(({ bytes }) => bytes.readUInt32LE(0))).toEqual(
      Array.from({ length: 2000 }, (_, i) => i),
    );
    expect(host.device.generation).toBe(1);
    expect(host.announced).toHaveLength(5);
    expect(host.withdrawn).toEqual([]);
  });

  test("messages sent while it is paused are answered after it", async () => {
    const { host, link } = await bootInProcess(profile);
    const client = host.open({ peer: host.addressOf("echo") });
    client.send("one");
    await until(() => client.got.length === 1);
    link.pause();
    for (let i = 0; i < 50; i++) client.send(`${i}`);
    await turns(10);
    expect(client.got).toHaveLength(1);
    link.resume();
    await until(() => client.got.length === 51);
    expect(client.texts.slice(1)).toEqual(Array.from({ length: 50 }, (_, i) => `${i}`));
  });

  test("a pause before its first kick arrived: the kick is made up for", async () => {
    const host = new Host();
    host.open({ address: 0x500 });
    const announcement = host.device.announce("greeter", 0x500);
    const link = attachInProcess(new EmulatedGuest({ profile }), host.device);
    link.pause();
    await turns(10);
    expect(announcement.told).toBe(false);
    link.resume();
    await until(() => announcement.told);
    expect(host.device.generation).toBe(1);
  });

  test("a reboot out of a pause", async () => {
    const { host, link } = await bootInProcess(profile);
    link.pause();
    link.reboot();
    await until(() => host.announced.length === 10);
    expect(host.device.generation).toBe(2);
  });

  test("host announcements are told again after a reboot, and bound again", async () => {
    const { host, link } = await bootInProcess(profile);
    const client = host.open({ address: 0x500 });
    host.device.announce("greeter", 0x500);
    await until(() => client.got.length === 1);
    link.reboot();
    await until(() => client.got.length === 2);
    client.send("again");
    await until(() => client.got.length === 3);
    expect(client.texts).toEqual(["", "", "again"]);
  });

  test("close: the services are withdrawn and it is silent", async () => {
    const { host, link } = await bootInProcess(profile);
    const source = host.open({ peer: host.addressOf("source") });
    source.send("100000 8");
    await until(() => source.got.length > 0);
    link.close();
    const seen = source.got.length;
    await turns(20);
    expect(source.got).toHaveLength(seen);
    expect(host.withdrawn).toHaveLength(5);
    expect(host.device.state).toBe("detached");
  });

  test("traffic in both directions beyond every wrap of the rings", async () => {
    const { host } = await bootInProcess(profile);
    const clients = Array.from({ length: 4 }, () => host.open({ peer: host.addressOf("echo") }));
    for (let i = 0; i < 20_000; i++) clients[i % 4]?.send(`${i}`);
    await until(() => clients.every(({ got }) => got.length === 5000));
    for (const [n, client] of clients.entries()) {
      expect(client.texts).toEqual(Array.from({ length: 5000 }, (_, i) => `${i * 4 + n}`));
    }
    expect(host.device.counters).toMatchObject({ malformed: 0, unknownAddress: 0, brokenQueues: 0 });
  });
});

test("its services are announced before anything else has its turn", async () => {
  const host = new Host();
  const link = attachInProcess(new EmulatedGuest(), host.device);
  await Promise.resolve();
  expect(host.announced).toHaveLength(5);
  link.reboot();
  await Promise.resolve();
  expect(host.announced).toHaveLength(10);
});

test("two guests and two devices know nothing of each other", async () => {
  const one = await bootInProcess("linux");
  const two = await bootInProcess("rpmsg-lite");
  one.link.reboot();
  await until(() => one.host.announced.length === 10);
  expect([one.host.device.generation, two.host.device.generation]).toEqual([2, 1]);
  expect(two.host.announced).toHaveLength(5);
});

test("a host that holds the guest's messages gets them later, in order", async () => {
  const host = new Host();
  attachInProcess(new EmulatedGuest({ profile: "rpmsg-lite" }), host.device);
  await until(() => host.announced.length === 5);
  const source = host.open({ peer: host.addressOf("source") });
  source.send("100 4");
  host.device.hold();
  await turns(20);
  const held = source.got.length;
  host.device.release();
  await until(() => source.got.length === 100);
  expect(held).toBeLessThan(100);
  expect(source.got.map(({ bytes }) => bytes.readUInt32LE(0))).toEqual(
    Array.from({ length: 100 }, (_, i) => i),
  );
});
