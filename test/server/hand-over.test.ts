import { existsSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { Watcher } from "./events-watcher.ts";
import { Dynasty, noMoreThan, openDescriptors } from "./hand-over-support.ts";
import { JsonClient } from "./json-client.ts";
import { Client, eventually } from "./support.ts";
import { isolation, Valve } from "./vhost-guest.ts";

const SERVICE = { name: "service", address: 1040 };
const guests = (vm: string, more = {}) => ({
  vm: { kind: "vhost-user" as const, path: vm, isolation, endpoints: [SERVICE], ...more },
});

describe("a bridge that hands over", { timeout: 60_000 }, () => {
  test("leaves everything as it was: guests, endpoints, ids, paths, counters, generation, instance", async () => {
    const { dynasty, first } = await Dynasty.found();
    const valve = new Valve();
    const attached = await dynasty.attach({ profile: "rpmsg-lite", services: { valve: valve.factory } });
    await dynasty.endpoint("valve");
    const declare = (name: string) =>
      fetch(`${dynasty.url}/api/v1/guests/vm/endpoints`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ name, ns: "down" }),
      });
    await declare("gone");
    const { id } = await dynasty.endpoint("gone");
    await declare("kept");
    await fetch(`${dynasty.url}/api/v1/guests/vm/endpoints/${id}`, { method: "DELETE" });
    await dynasty.endpoint("kept", ({ state }) => state === "connected");
    const client = await JsonClient.open(dynasty, "/ws/v1/vm/valve");
    // Eight fill the guest's buffers, two wait.
    for (let i = 0; i < 10; i++) client.send(`message ${i}`, { id: i });
    for (let i = 0; i < 8; i++) expect(await client.next("sent")).toMatchObject({ id: i });
    await client.all();
    const [endpoints, guest] = [await dynasty.endpoints(), await dynasty.guest()];

    const second = await dynasty.handOver(first);
    expect(await client.closed).toEqual({ code: 1012, reason: "the bridge goes on in another process" });
    expect(await dynasty.endpoints()).toEqual(endpoints);
    expect(await dynasty.guest()).toEqual(guest);
    const again = await client.resume();
    expect(again.hello).toEqual({ ...client.hello, endpointState: "connected", resumed: true });
    // Whether they arrived nobody knows.
    for (let i = 0; i < 8; i++) expect(await again.next("sent")).toMatchObject({ id: i });
    valve.release(attached);
    for (const i of [8, 9]) expect(await again.next("sent")).toMatchObject({ id: i });
    await eventually("the rest", () => (valve.taken.length === 10 ? true : undefined));
    expect(valve.taken.map(String)).toEqual(Array.from({ length: 10 }, (_, i) => `message ${i}`));
    await declare("new");
    const ids = (await dynasty.endpoints()).map((each) => each.id);
    expect(ids).not.toContain(id);
    expect(new Set(ids).size).toBe(ids.length);
    expect(await second.kill("SIGTERM")).toMatchObject({ code: 0 });
    expect(existsSync(dynasty.vm)).toBe(false);
    expect(existsSync(dynasty.handover)).toBe(false);
  });

  test("hands over again and again, without a descriptor more", async () => {
    let { dynasty, first: bridge } = await Dynasty.found();
    await dynasty.attach();
    await dynasty.endpoint("echo");
    const client = await dynasty.channel("echo");
    let before: Record<string, number> | undefined;
    for (let i = 0; i < 4; i++) {
      bridge = await dynasty.handOver(bridge);
      await client.send(`message ${i}`);
      expect((await client.receive()).text).toBe(`message ${i}`);
      before ??= openDescriptors(bridge.pid);
    }
    await noMoreThan(before as Record<string, number>, bridge.pid);
    expect(await dynasty.guest()).toMatchObject({ generation: 1, state: "attached" });
  });

  test("a virtual machine that is paused resumes in the successor; its clients' messages wait so long", async () => {
    const { dynasty, first } = await Dynasty.found();
    const { vm } = await dynasty.attach();
    await dynasty.endpoint("echo");
    const client = await JsonClient.open(dynasty, "/ws/v1/vm/echo");
    await vm.pause();
    expect(await client.next("state")).toMatchObject({ guestState: "suspended" });
    client.send("held", { id: 1 });
    await client.all();
    await dynasty.handOver(first);
    expect(await dynasty.guest()).toMatchObject({ state: "suspended", generation: 1 });
    const again = await client.resume();
    expect(again.hello).toMatchObject({ resumed: true, guestState: "suspended" });
    await vm.resume();
    const frames = await again.take(3);
    expect(frames.map(({ type }) => type).toSorted()).toEqual(["message", "sent", "state"]);
    expect(await dynasty.guest()).toMatchObject({ state: "attached", generation: 1 });
  });

  test("a guest that is reset right after is reset as ever, and what it had not read is told", async () => {
    const { dynasty, first } = await Dynasty.found();
    const valve = new Valve();
    const { vm } = await dynasty.attach({ profile: "rpmsg-lite", services: { valve: valve.factory } });
    await dynasty.endpoint("valve");
    const client = await JsonClient.open(dynasty, "/ws/v1/vm/valve");
    client.send("never read", { id: 7 });
    expect(await client.next("sent")).toMatchObject({ id: 7 });
    await dynasty.handOver(first);
    const again = await client.resume();
    expect(await again.next("sent")).toMatchObject({ id: 7 });
    await vm.reboot();
    expect(await again.next("state")).toMatchObject({ guestState: "suspended" });
    expect(await again.next("error")).toMatchObject({ id: 7, code: "guest-gone" });
    expect((await again.closed).code).toBe(4001);
    expect(await dynasty.endpoint("valve", ({ generation }) => generation === 2)).toBeDefined();
  });

  test("messages of raw clients that wait are delivered by the successor; services end with their client", async () => {
    const { dynasty, first } = await Dynasty.found();
    const valve = new Valve();
    const attached = await dynasty.attach({ profile: "rpmsg-lite", services: { valve: valve.factory } });
    await dynasty.endpoint("valve");
    const url = dynasty.url.replace("http", "ws");
    const raw = await Client.open(`${url}/ws/v1/vm/valve`);
    const service = await Client.open(`${url}/ws/v1/vm?announce=mine`);
    await dynasty.endpoint("mine");
    for (let i = 0; i < 12; i++) raw.send(`message ${i}`);
    await dynasty.endpoint("valve", ({ counters }) => counters.accepted === 12);
    await dynasty.handOver(first);
    for (const client of [raw, service]) expect((await client.closed).code).toBe(1012);
    expect((await dynasty.endpoints()).map(({ name }) => name)).not.toContain("mine");
    valve.release(attached);
    await eventually("the rest", () => (valve.taken.length === 12 ? true : undefined));
    expect(valve.taken.map(String)).toEqual(Array.from({ length: 12 }, (_, i) => `message ${i}`));
    expect((await dynasty.endpoint("valve")).counters).toMatchObject({ messagesToGuest: 12, undelivered: 0 });
  });

  test("readers of events go on behind the last one that they had", async () => {
    const { dynasty, first } = await Dynasty.found();
    await dynasty.attach();
    await dynasty.endpoint("echo");
    const before = await Watcher.ready(dynasty.url);
    await dynasty.handOver(first);
    await before.ended;
    const after = await Watcher.ready(dynasty.url, before.lastId, before);
    expect(after.seen.map(({ name }) => name)).toEqual(["ready"]);
    expect(after.seen.at(-1)?.id).toBe(before.lastId);
  });

  test("the successor's configuration counts: guests and endpoints that it has not are gone, new ones are there", async () => {
    const directory = { path: "" };
    const { dynasty, first } = await Dynasty.found();
    directory.path = join(dynasty.directory, "other.sock");
    await dynasty.attach();
    await dynasty.endpoint("echo");
    const second = await dynasty.handOver(first, { guests: guests(dynasty.vm) });
    expect(await dynasty.endpoint("service", ({ state }) => state !== "declared")).toMatchObject({
      address: 1040,
    });
    const { id } = await dynasty.endpoint("service");
    const third = await dynasty.handOver(second, {
      guests: { ...guests(dynasty.vm), other: { kind: "vhost-user", path: directory.path } },
    });
    expect((await dynasty.endpoint("service")).id).toBe(id);
    expect(await dynasty.guest("other")).toMatchObject({ state: "waiting" });
    const fourth = await dynasty.handOver(third);
    expect((await dynasty.endpoints()).map(({ name }) => name)).not.toContain("service");
    expect(existsSync(directory.path)).toBe(false);
    const fifth = await dynasty.handOver(fourth, { guests: { lone: { kind: "emulated" } } });
    await fifth.says("guest-released");
    expect(
      (await dynasty.get<{ guests: { name: string }[] }>("/guests")).guests.map(({ name }) => name),
    ).toEqual(["lone"]);
    expect(existsSync(dynasty.vm)).toBe(false);
  });

  test("an emulated guest starts anew, with a higher generation, and its sessions end", async () => {
    const { dynasty, first } = await Dynasty.found({ guests: { demo: { kind: "emulated" } } });
    const client = await JsonClient.open(dynasty, "/ws/v1/demo/echo");
    client.send("hello");
    await client.next("message");
    await dynasty.handOver(first);
    const again = await client.resume(1);
    expect(again.hello).toMatchObject({ generation: 2, resumed: false, instance: client.hello.instance });
    again.send("again");
    expect(await again.next("message")).toMatchObject({ seq: 1, data: "again" });
  });

  test("the token that was made at the start is good in the successor, which makes none", async () => {
    const listen = "0.0.0.0:0";
    const { dynasty, first } = await Dynasty.found({ listen });
    await first.says("#ticket=");
    const [token = ""] = /rpmsg_[\w-]{43}/.exec(first.stderr) ?? [];
    const second = await dynasty.handOver(first);
    const status = async (headers: Record<string, string>) => {
      const { status } = await fetch(`${dynasty.url.replace("0.0.0.0", "127.0.0.1")}/api/v1/guests`, {
        headers,
      });
      return status;
    };
    expect([await status({}), await status({ authorization: `Bearer ${token}` })]).toEqual([401, 200]);
    expect(second.stderr).not.toMatch(/rpmsgt?_[\w-]{43}/);
  });

  test("a bridge that listens on a Unix socket keeps its file", async () => {
    const { dynasty, first } = await Dynasty.found();
    await dynasty.attach();
    const path = join(dynasty.directory, "http.sock");
    const listen = `unix:${path}`;
    const get = () =>
      new Promise<number | undefined>((resolve, reject) => {
        request({ socketPath: path, path: "/healthz", headers: { host: "localhost" } }, (response) => {
          response.resume();
          resolve(response.statusCode);
        })
          .on("error", reject)
          .end();
      });
    const second = dynasty.successor({ listen });
    await second.line();
    await first.finished;
    expect(await get()).toBe(200);
    const third = dynasty.successor({ listen });
    await third.line();
    expect(await second.finished).toMatchObject({ code: 0 });
    expect(await get()).toBe(200);
  });
});
