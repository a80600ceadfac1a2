import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { EmulatedGuest } from "../../guest/emulated-guest.ts";
import type { ProfileName } from "../../guest/profiles.ts";
import { VhostUserGuest } from "../../guest/vhost-user-guest.ts";
import { Poller, VhostUserBackend } from "../../rpmsg/index.ts";
import { closeFd, socketPair } from "../../rpmsg/posix/unix-socket.ts";
import { descriptorCount, titled, unsupported } from "../rpmsg/posix/support.ts";
import { Host, turns, until } from "./support.ts";

const PROFILES: ProfileName[] = ["linux", "openamp", "rpmsg-lite"];

describe.skipIf(unsupported !== undefined)(titled("an emulated guest behind vhost-user"), () => {
  let poller: Poller;
  let before = 0;
  const closers: (() => void)[] = [];
  const errors: unknown[] = [];

  beforeEach(() => {
    before = descriptorCount();
    poller = new Poller({ onError: (error) => errors.push(error) });
  });
  afterEach(async () => {
    for (const close of closers.splice(0)) close();
    await turns();
    poller.close();
    expect(errors.splice(0)).toEqual([]);
    expect(descriptorCount()).toBe(before);
  });

  async function attach(profile: ProfileName, host = new Host()) {
    const [frontend, backendFd] = socketPair();
    const ends: string[] = [];
    const backend = new VhostUserBackend(backendFd, poller, host.device, {
      onRefused: (error) => expect.unreachable(error.message),
      onClose: () => ends.push("backend"),
    });
    const guest = new VhostUserGuest(new EmulatedGuest({ profile }), frontend, poller, () =>
      ends.push("guest"),
    );
    closers.push(
      () => guest.close(),
      () => backend.close(),
    );
    const known = host.announced.length;
    await guest.attach();
    await until(() => host.announced.length === known + 5);
    return { host, guest, backend, ends };
  }

  describe.each(PROFILES)("profile %s", (profile) => {
    test("attaches, announces and echoes", async () => {
      const { host, backend } = await attach(profile);
      const client = host.open({ peer: host.addressOf("echo") });
      for (const length of [0, 1, 496]) client.send(Buffer.alloc(length, "x"));
      await until(() => client.got.length === 3);
      expect(client.got.map(({ bytes }) => bytes.length)).toEqual([0, 1, 496]);
      expect(backend.queueSizes).toEqual(
        profile === "linux" ? [256, 256] : profile === "openamp" ? [16, 16] : [8, 8],
      );
      expect(backend.features).toBe(0x1_6000_0001n);
    });

    test("reboot is a reset, and the services are there again", async () => {
      const { host, guest } = await attach(profile);
      await guest.reboot();
      await until(() => host.announced.length === 10);
      expect([host.device.generation, host.withdrawn.length]).toEqual([2, 5]);
      const client = host.open({ peer: host.addressOf("echo") });
      client.send("hello");
      await until(() => client.got.length === 1);
    });

    test("pause and resume lose nothing", async () => {
      const { host, guest } = await attach(profile);
      const source = host.open({ peer: host.addressOf("source") });
      source.send("5000 8");
      for (let i = 0; i < 3; i++) {
        await until(() => source.got.length > i * 1000);
        await guest.pause();
        expect(host.device.state).toBe("suspended");
        const seen = source.got.length;
        await turns(10);
        expect(source.got).toHaveLength(seen);
        await guest.resume();
      }
      await until(() => source.got.length === 5000);
      expect(source.got.map(({ bytes }) => bytes.readUInt32LE(0))).toEqual(
        Array.from({ length: 5000 }, (_, i) => i),
      );
      expect(host.device.generation).toBe(1);
      expect(host.announced).toHaveLength(5);
    });

    test("a host announcement is bound and answered", async () => {
      const { host, guest } = await attach(profile);
      const client = host.open({ address: 0x500 });
      host.device.announce("greeter", 0x500);
      await until(() => client.got.length === 1);
      client.send("hello");
      await until(() => client.got.length === 2);
      expect(client.texts).toEqual(["", "hello"]);
      await guest.reboot();
      await until(() => client.got.length === 3);
    });

    test("source: 10,000 messages arrive complete and in order, in many turns", async () => {
      const { host } = await attach(profile);
      const source = host.open({ peer: host.addressOf("source") });
      source.send("10000 32");
      let others = 0;
      await until(() => {
        others++;
        return source.got.length === 10_000;
      });
      expect(others).toBeGreaterThan(10);
      expect(source.got.every(({ bytes }, i) => bytes.length === 32 && bytes.readUInt32LE(0) === i)).toBe(
        true,
      );
    });
  });

  test("the guest goes away and another one comes to the same device", async () => {
    const first = await attach("linux");
    first.guest.close();
    await until(() => first.ends.length === 2);
    expect(first.host.device.state).toBe("detached");
    const second = await attach("openamp", first.host);
    expect(second.host.device.generation).toBe(2);
  });

  test("the bridge goes away: the guest hears of it", async () => {
    const { backend, ends } = await attach("linux");
    backend.close();
    await until(() => ends.length === 2);
    expect(ends).toEqual(["backend", "guest"]);
  });

  test("a backend that hangs up while the guest attaches fails its attachment", async () => {
    const [frontend, other] = socketPair();
    let ended = 0;
    const guest = new VhostUserGuest(new EmulatedGuest(), frontend, poller, () => ended++);
    const attached = guest.attach();
    closeFd(other);
    await expect(attached).rejects.toMatchObject({ code: "socket" });
    expect(ended).toBe(1);
  });
});
