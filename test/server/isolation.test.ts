import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, expect, onTestFinished, test } from "vitest";
import { EmulatedGuest } from "../../guest/emulated-guest.ts";
import type { ConfigInput } from "../../schemas/index.ts";
import { guestProcesses, openDescriptors, relayMappings, truncatableGuest } from "./isolated-guests.ts";
import type { Client, LogLine, RunningBridge } from "./support.ts";
import { eventually, testBridge, testDirectory } from "./support.ts";
import { attachGuest, Valve } from "./vhost-guest.ts";

/** A bridge with two isolated guests, `one` and `two`. */
async function isolatedBridge(input: Omit<ConfigInput, "guests"> = {}) {
  const directory = testDirectory();
  const lines: LogLine[] = [];
  const path = (name: string) => join(directory, `${name}.sock`);
  const guest = (name: string) => ({
    kind: "vhost-user" as const,
    path: path(name),
    isolation: "process" as const,
  });
  const running = await testBridge({ ...input, guests: { one: guest("one"), two: guest("two") } }, (line) =>
    lines.push(line),
  );
  return {
    ...running,
    path,
    lines,
    pid: (name: string) => eventually(`the process of ${name}`, () => guestProcesses().get(path(name))),
    /** The end of a guest's process, as the bridge has logged it. */
    exit: (name: string) =>
      eventually(`the end of the process of ${name}`, () =>
        lines.find((line) => line["event"] === "guest-process-exited" && line["guest"] === name),
      ),
  };
}

async function echo(client: Client, text: string): Promise<void> {
  client.send(text);
  expect(await client.text()).toBe(text);
}

/** The endpoint of a guest, as soon as it is listed. */
function listed(running: RunningBridge, guest: string, generation: number) {
  return running.endpoint("echo", (each) => each.guest === guest && each.generation === generation);
}

describe("the process of an isolated guest", () => {
  test("that is killed ends that guest's attachment, and the next frontend finds a new one", async () => {
    const running = await isolatedBridge();
    const [first] = [await attachGuest(running.path("one")), await attachGuest(running.path("two"))];
    await listed(running, "one", 1);
    await listed(running, "two", 1);
    const victim = await running.connect("/ws/v1/one/echo");
    const other = await running.connect("/ws/v1/two/echo");
    await echo(victim, "hello");
    process.kill(await running.pid("one"), "SIGKILL");
    expect((await victim.closed).code).toBe(4001);
    await first.closed;
    await echo(other, "still here");
    expect(await running.exit("one")).toMatchObject({ signal: "SIGKILL" });

    // The socket has been there all the time.
    await attachGuest(running.path("one"));
    await listed(running, "one", 2);
    await echo(await running.connect("/ws/v1/one/echo"), "again");
    await echo(other, "and here");
    expect(await running.guest("two")).toMatchObject({ state: "attached", generation: 1 });
  });

  test("dies of a memory file that shrinks, and nobody else does", async () => {
    const running = await isolatedBridge();
    await attachGuest(running.path("two"));
    await listed(running, "two", 1);
    const other = await running.connect("/ws/v1/two/echo");
    const guest = await truncatableGuest(running.path("one"), "echo");
    await listed(running, "one", 1);
    expect(running.lines.filter(({ event }) => event === "memory-not-sealed")).toMatchObject([
      { guest: "one", advice: "use memory-backend-memfd" },
    ]);
    const victim = await running.connect("/ws/v1/one/echo");
    victim.send("one");
    await running.endpoint("echo", (each) => each.guest === "one" && each.counters.messagesToGuest === 1);
    guest.truncate();
    victim.send("two");
    guest.kick();
    expect((await victim.closed).code).toBe(4001);
    await guest.closed;
    expect(await running.exit("one")).toMatchObject({ signal: "SIGBUS" });
    await echo(other, "still here");
    await attachGuest(running.path("one"));
    await listed(running, "one", 2);
    await echo(await running.connect("/ws/v1/one/echo"), "again");
  });

  test("that stands still holds up nobody else, and goes on with what waited for it", async () => {
    const running = await isolatedBridge();
    const valve = new Valve(true);
    await attachGuest(running.path("one"), { services: { echo: valve.factory } });
    await attachGuest(running.path("two"));
    await listed(running, "one", 1);
    await listed(running, "two", 1);
    const stopped = await running.connect("/ws/v1/one/echo");
    const other = await running.connect("/ws/v1/two/echo");
    const pid = await running.pid("one");
    process.kill(pid, "SIGSTOP");
    try {
      for (let i = 0; i < 1000; i++) stopped.send(`${i}`);
      for (let i = 0; i < 100; i++) await echo(other, `${i}`);
      expect(await running.guest("one")).toMatchObject({ state: "attached" });
    } finally {
      process.kill(pid, "SIGCONT");
    }
    await eventually("all messages", () => (valve.taken.length === 1000 ? true : undefined));
    expect(valve.taken.map(String)).toEqual(Array.from({ length: 1000 }, (_, i) => `${i}`));
    expect(stopped.socket.readyState).toBe(stopped.socket.OPEN);
  });

  // `npm run faults -- guest-process-kills` kills it more often.
  test("takes nothing with it, however often it is killed", { timeout: 120_000 }, async () => {
    const kills = 10;
    const running = await isolatedBridge();
    let before: [descriptors: number, mappings: number] | undefined;
    for (let i = 1; i <= kills; i++) {
      const attached = await attachGuest(running.path("one"));
      await listed(running, "one", i);
      const client = await running.connect("/ws/v1/one/echo");
      await echo(client, `${i}`);
      process.kill(await running.pid("one"), "SIGKILL");
      expect((await client.closed).code).toBe(4001);
      await attached.closed;
      await eventually("the next process", () => guestProcesses().get(running.path("one")));
      await nextTurn();
      before ??= [openDescriptors(), relayMappings()];
    }
    await eventually("what it was", () =>
      openDescriptors() <= (before?.[0] ?? 0) && relayMappings() <= (before?.[1] ?? 0) ? true : undefined,
    );
    expect(guestProcesses().size).toBe(2);
  });

  test("ends with the bridge, and knows nothing of its environment", async () => {
    const running = await isolatedBridge();
    const pid = await running.pid("one");
    expect(readFileSync(`/proc/${pid}/environ`, "utf8")).toBe("");
    await running.close();
    await eventually("its end", () => (existsSync(`/proc/${pid}`) ? undefined : true));
    expect(running.lines.filter((line) => line["event"] === "guest-process-exited")).toEqual([]);
  });

  test("is in a group of its own, not in that which a terminal sends signals to", async () => {
    const running = await isolatedBridge();
    const pid = await running.pid("one");
    // ESRCH where there is no such group (kill(2)).
    expect(process.kill(-pid, 0)).toBe(true);
  });

  test("connects by itself where the guest's monitor listens, and again when that or the process has gone", async () => {
    const path = join(testDirectory(), "vm.sock");
    let boots = 0;
    const listen = () => new EmulatedGuest().listen(path, { onAttached: () => boots++ });
    const running = await testBridge({
      guests: { vm: { kind: "vhost-user", mode: "connect", path, isolation: "process" } },
    });
    const first = listen();
    onTestFinished(() => first.close());
    const served = async (generation: number): Promise<Client> => {
      await listed(running, "vm", generation);
      const client = await running.connect("/ws/v1/vm/echo");
      await echo(client, `generation ${generation}`);
      expect(boots).toBe(generation);
      return client;
    };
    const client = await served(1);
    process.kill(guestProcesses().get(path) as number, "SIGKILL");
    expect((await client.closed).code).toBe(4001);
    const again = await served(2);
    const pid = guestProcesses().get(path);
    first.close();
    expect((await again.closed).code).toBe(4001);
    const second = listen();
    onTestFinished(() => second.close());
    await served(3);
    expect(guestProcesses().get(path)).toBe(pid);
  });
});
