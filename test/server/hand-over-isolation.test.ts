import { existsSync } from "node:fs";
import { describe, expect, test } from "vitest";
import type { Command } from "./cli-support.ts";
import { Between, Dynasty, noMoreThan, openDescriptors } from "./hand-over-support.ts";
import { guestProcess } from "./isolated-guests.ts";
import { JsonClient } from "./json-client.ts";
import { eventually } from "./support.ts";
import { Valve } from "./vhost-guest.ts";

/** A bridge with an isolated guest, which is attached. */
async function scene() {
  const { dynasty, first } = await Dynasty.found({}, "process");
  const attached = await dynasty.attach();
  await dynasty.endpoint("echo");
  return { dynasty, first, attached, pid: await child(dynasty) };
}

function child(dynasty: Dynasty): Promise<number> {
  return eventually("the guest's process", () => guestProcess(dynasty.vm));
}

async function gone(pid: number): Promise<void> {
  await eventually(`the end of process ${pid}`, () => (existsSync(`/proc/${pid}/exe`) ? undefined : true));
}

async function echo(dynasty: Dynasty, text: string): Promise<void> {
  const channel = await dynasty.channel("echo");
  await channel.send(text);
  expect((await channel.receive()).text).toBe(text);
  channel.close();
}

describe("a bridge with an isolated guest that hands over", { timeout: 60_000 }, () => {
  test("leaves guest, endpoints and the process as they were", async () => {
    const { dynasty, first } = await Dynasty.found({}, "process");
    const valve = new Valve();
    const attached = await dynasty.attach({ profile: "rpmsg-lite", services: { valve: valve.factory } });
    await dynasty.endpoint("valve");
    const client = await JsonClient.open(dynasty, "/ws/v1/vm/valve");
    // Eight fill the guest's buffers, two wait.
    for (let i = 0; i < 10; i++) client.send(`message ${i}`, { id: i });
    for (let i = 0; i < 8; i++) expect(await client.next("sent")).toMatchObject({ id: i });
    await client.all();
    const [endpoints, guest, pid] = [await dynasty.endpoints(), await dynasty.guest(), await child(dynasty)];
    expect(guest).toMatchObject({ state: "attached", generation: 1 });

    await dynasty.handOver(await dynasty.handOver(first));
    expect(await dynasty.endpoints()).toEqual(endpoints);
    expect(await dynasty.guest()).toEqual(guest);
    expect(await child(dynasty)).toBe(pid);
    await client.closed;
    const again = await client.resume();
    for (let i = 0; i < 8; i++) expect(await again.next("sent")).toMatchObject({ id: i });
    valve.release(attached);
    for (const i of [8, 9]) expect(await again.next("sent")).toMatchObject({ id: i });
    await eventually("the rest", () => (valve.taken.length === 10 ? true : undefined));
    expect(valve.taken.map(String)).toEqual(Array.from({ length: 10 }, (_, i) => `message ${i}`));
  });

  test("the process that dies after it is noticed, and the successor's own takes the next frontend", async () => {
    const { dynasty, first, attached, pid } = await scene();
    const second = await dynasty.handOver(first);
    const client = await JsonClient.open(dynasty, "/ws/v1/vm/echo");
    process.kill(pid, "SIGKILL");
    expect((await client.closed).code).toBe(4001);
    await attached.closed;
    await second.says(`"event":"guest-process-exited","pid":${pid}`);
    // The socket has been there all the time.
    await dynasty.attach();
    await dynasty.endpoint("echo", ({ generation }) => generation === 2);
    await echo(dynasty, "again");
    const next = await child(dynasty);
    expect(next).not.toBe(pid);

    // And that one is handed over as the first one was.
    const third = await dynasty.handOver(second);
    await echo(dynasty, "and again");
    expect(await dynasty.guest()).toMatchObject({ state: "attached", generation: 2 });
    process.kill(next, "SIGKILL");
    await third.says(`"pid":${next}`);
  });

  test("frontends come and go after it, at the process that was handed over", async () => {
    const { dynasty, first, attached, pid } = await scene();
    await dynasty.handOver(first);
    for (const generation of [2, 3]) {
      (generation === 2 ? attached : await dynasty.attach()).vm.close();
      await eventually("its end", async () =>
        (await dynasty.guest()).state === "waiting" ? true : undefined,
      );
      const { vm } = await dynasty.attach();
      await dynasty.endpoint("echo");
      await echo(dynasty, `generation ${generation}`);
      vm.close();
      await eventually("its end", async () =>
        (await dynasty.guest()).state === "waiting" ? true : undefined,
      );
    }
    expect(await child(dynasty)).toBe(pid);
  });

  test("needs no descriptor more, however often it does", async () => {
    let { dynasty, first: bridge, pid } = await scene();
    let before: Record<string, number> | undefined;
    for (let i = 0; i < 4; i++) {
      bridge = await dynasty.handOver(bridge);
      await echo(dynasty, `message ${i}`);
      await eventually("no client", async () =>
        (await dynasty.endpoint("echo")).clients === 0 ? true : undefined,
      );
      before ??= openDescriptors(bridge.pid);
    }
    await noMoreThan(before as Record<string, number>, bridge.pid);
    expect(await child(dynasty)).toBe(pid);
  });

  test("ends the process when the successor is told to stop, and its socket is gone", async () => {
    const { dynasty, first, attached, pid } = await scene();
    const second = await dynasty.handOver(first);
    expect(await second.kill("SIGTERM")).toMatchObject({ code: 0 });
    await gone(pid);
    await attached.closed;
    expect(existsSync(dynasty.vm)).toBe(false);
  });

  test("a process that stands still is killed by the successor that stops", async () => {
    const { dynasty, first, pid } = await scene();
    const second = await dynasty.handOver(first);
    process.kill(pid, "SIGSTOP");
    expect(await second.kill("SIGTERM")).toMatchObject({ code: 0 });
    await gone(pid);
  });

  test.each(["state", "ready"] as const)(
    "the successor is killed before %s passes: the predecessor goes on, with the process",
    async (step) => {
      const { dynasty, first, attached, pid } = await scene();
      let successor: Command | undefined;
      const path = Between.until(dynasty, step, () => successor?.kill("SIGKILL"));
      successor = dynasty.successor({}, path);
      await first.says('"event":"hand-over-failed"');
      await eventually("clients again", async () =>
        echo(dynasty, "still here").then(
          () => true,
          () => undefined,
        ),
      );
      expect(await dynasty.guest()).toMatchObject({ state: "attached", generation: 1 });
      expect(await child(dynasty)).toBe(pid);
      // Whose end it notices as ever.
      process.kill(pid, "SIGKILL");
      await attached.closed;
      await first.says('"signal":"SIGKILL"');
      await dynasty.attach();
      await dynasty.endpoint("echo", ({ generation }) => generation === 2);
      await echo(dynasty, "again");
    },
  );

  test.each(["ready", "yours"] as const)(
    "the predecessor is killed before %s passes: the successor goes on, with the process",
    async (step) => {
      const { dynasty, first, pid } = await scene();
      const path = Between.until(dynasty, step, () => first.kill("SIGKILL"));
      dynasty.url = await dynasty.successor({}, path).url();
      await echo(dynasty, "still here");
      expect(await dynasty.guest()).toMatchObject({ state: "attached", generation: 1 });
      expect(await child(dynasty)).toBe(pid);
    },
  );

  test("the process that dies in the middle of it is replaced by whoever goes on", async () => {
    const { dynasty, first, attached, pid } = await scene();
    const { path } = new Between(dynasty, (kind) => {
      if (kind === "ready") process.kill(pid, "SIGKILL");
      return true;
    });
    const second = dynasty.successor({}, path);
    dynasty.url = await second.url();
    await first.finished;
    await attached.closed;
    await second.says(`"event":"guest-process-exited","pid":${pid}`);
    await dynasty.attach();
    await dynasty.endpoint("echo", ({ generation }) => generation === 2);
    await echo(dynasty, "again");
    expect(await child(dynasty)).not.toBe(pid);
  });

  test("a frontend that goes in the middle of it, and the next one that comes, are followed afterwards", async () => {
    const { dynasty, first, attached, pid } = await scene();
    const client = await JsonClient.open(dynasty, "/ws/v1/vm/echo");
    let next: ReturnType<Dynasty["attach"]> | undefined;
    const { path } = new Between(dynasty, (kind) => {
      if (kind === "ready") {
        attached.vm.close();
        // It waits for the answers of a bridge that stands still.
        next = dynasty.attach();
      }
      return true;
    });
    dynasty.url = await dynasty.successor({}, path).url();
    await first.finished;
    await next;
    await dynasty.endpoint("echo", ({ generation }) => generation === 2);
    expect((await client.resume()).hello).toMatchObject({ generation: 2, resumed: false });
    await echo(dynasty, "again");
    expect(await child(dynasty)).toBe(pid);
  });

  test.each([
    ["process", "none"],
    ["none", "process"],
  ] as const)(
    "isolation from %s to %s: the frontend has to come again, to the same socket",
    async (from, to) => {
      const { dynasty, first } = await Dynasty.found({}, from);
      const attached = await dynasty.attach();
      await dynasty.endpoint("echo");
      const second = await dynasty.handOver(first, {
        guests: { vm: { kind: "vhost-user", path: dynasty.vm, isolation: to } },
      });
      await second.says("guest-not-inherited");
      await attached.closed;
      await dynasty.attach();
      await dynasty.endpoint("echo", ({ generation }) => generation === 2);
      await echo(dynasty, "again");
      expect(guestProcess(dynasty.vm) === undefined).toBe(to === "none");
    },
  );
});
