import { existsSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { Guest } from "../../schemas/index.ts";
import { Command } from "./cli-support.ts";
import { Client, eventually, testDirectory } from "./support.ts";
import { attachGuest, Valve } from "./vhost-guest.ts";

/** A bridge with the guest `vm` behind that socket. */
function serve(socket: string, ...more: string[]): Command {
  return Command.start(["serve", "--listen", "127.0.0.1:0", "--guest", `vm=vhost-user:${socket}`, ...more]);
}

async function guestOf(url: string): Promise<Guest> {
  return (await (await fetch(`${url}/api/v1/guests/vm`)).json()) as Guest;
}

/** Connects to an endpoint of the guest as soon as there is one of that name. */
function open(url: string, name: string): Promise<Client> {
  return eventually(`endpoint ${name}`, () =>
    Client.open(`${url.replace("http", "ws")}/ws/v1/vm/${name}`).catch(() => undefined),
  );
}

async function expectEcho(url: string, name = "echo"): Promise<Client> {
  const client = await open(url, name);
  for (let i = 0; i < 500; i++) client.send(`message ${i}`);
  for (let i = 0; i < 500; i++) expect(await client.text()).toBe(`message ${i}`);
  return client;
}

describe("a bridge and a guest in two processes", () => {
  test.each(["linux", "openamp", "rpmsg-lite"])("messages go both ways: profile %s", async (profile) => {
    const socket = join(testDirectory(), "vm.sock");
    const bridge = serve(socket, "--announce", "vm/raw@1040");
    const url = await bridge.url();
    expect(await guestOf(url)).toMatchObject({ kind: "vhost-user", state: "waiting" });
    const guest = Command.start(["guest", "--socket", socket, "--profile", profile]);
    expect(JSON.parse(await guest.line())).toEqual({ event: "attached", socket });
    const client = await expectEcho(url);
    expect(await guestOf(url)).toMatchObject({ state: "attached", generation: 1 });
    // The guest ends: its clients are told, and the bridge waits for the next one.
    expect((await guest.kill("SIGTERM")).code).toBe(0);
    expect((await client.closed).code).toBe(4001);
    expect(await guestOf(url)).toMatchObject({ state: "waiting", generation: 2 });
    expect((await bridge.kill("SIGTERM")).code).toBe(0);
    expect(existsSync(socket)).toBe(false);
  });

  test("the guest may come first: it tries again until the bridge is there, and says so once", async () => {
    const socket = join(testDirectory(), "vm.sock");
    const guest = Command.start(["guest", "--socket", socket]);
    await guest.says("cannot connect");
    const bridge = serve(socket);
    const url = await bridge.url();
    await guest.line();
    await expectEcho(url);
    const { stderr } = await guest.kill("SIGTERM");
    expect(stderr.match(/cannot connect/g)).toHaveLength(1);
  });

  test("a bridge that is killed and started again: the guest attaches again by itself", async () => {
    const socket = join(testDirectory(), "vm.sock");
    const first = serve(socket);
    const guest = Command.start(["guest", "--socket", socket]);
    const client = await expectEcho(await first.url());
    await guest.line();
    await first.kill("SIGKILL");
    expect((await client.closed).code).toBe(1006);
    expect(existsSync(socket)).toBe(true);
    const second = serve(socket);
    const url = await second.url();
    await guest.line();
    await expectEcho(url);
    expect(await guestOf(url)).toMatchObject({ state: "attached", generation: 1 });
  });

  test("a guest that is killed and started again is the next generation", async () => {
    const socket = join(testDirectory(), "vm.sock");
    const bridge = serve(socket, "--announce", "vm/raw@1040");
    const url = await bridge.url();
    for (let generation = 1; generation <= 3; generation++) {
      const guest = Command.start(["guest", "--socket", socket]);
      await guest.line();
      const client = await expectEcho(url);
      expect(await guestOf(url)).toMatchObject({ state: "attached", generation });
      await guest.kill("SIGKILL");
      expect((await client.closed).code).toBe(4001);
    }
  });

  test("the other way round: the guest listens, the bridge connects, again and again", async () => {
    const socket = join(testDirectory(), "vm.sock");
    const bridge = Command.start([
      ...["serve", "--listen", "127.0.0.1:0", "--guest", `vm=vhost-user:${socket},mode=connect`],
    ]);
    const url = await bridge.url();
    expect(await guestOf(url)).toMatchObject({ state: "waiting" });
    const first = Command.start(["guest", "--socket", socket, "--listen"]);
    await first.line();
    await expectEcho(url);
    await first.kill("SIGKILL");
    const second = Command.start(["guest", "--socket", socket, "--listen"]);
    await second.line();
    await expectEcho(url);
    expect((await second.kill("SIGTERM")).code).toBe(0);
    expect(existsSync(socket)).toBe(false);
    expect((await bridge.kill("SIGTERM")).code).toBe(0);
  });

  test("a guest that cannot listen is exit code 1 and does not hang", async () => {
    const { code, stdout, stderr } = await Command.run([
      "guest",
      "--socket",
      "/nonexistent/vm.sock",
      "--listen",
    ]);
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toMatch(/^rpmsg-bridge: cannot listen on \/nonexistent\/vm\.sock: ENOENT.*\n$/);
  });

  test("messages that a client has sent before SIGTERM all reach the guest", async () => {
    const socket = join(testDirectory(), "vm.sock");
    const bridge = serve(socket);
    const url = await bridge.url();
    const valve = new Valve(true);
    await attachGuest(socket, { profile: "rpmsg-lite", services: { valve: valve.factory } });
    const client = await open(url, "valve");
    for (let i = 0; i < 3000; i++) client.send(`message ${i}`);
    await eventually("some of them", () => (valve.taken.length > 0 ? true : undefined));
    expect((await bridge.kill("SIGTERM")).code).toBe(0);
    expect((await client.closed).code).toBe(1001);
    expect(valve.taken.length).toBe(3000);
    expect(valve.taken.findIndex((each, i) => each.toString() !== `message ${i}`)).toBe(-1);
  });
});
