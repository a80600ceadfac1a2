import { describe, expect, test } from "vitest";
import type { Endpoint } from "../../schemas/index.ts";
import { Watcher } from "./events-watcher.ts";
import type { RunningBridge } from "./support.ts";
import { eventually, testBridge } from "./support.ts";

/** Tells so many events, whatever they say. */
function tell({ bridge }: RunningBridge, count: number): void {
  for (let i = 0; i < count; i++) {
    bridge.events.publish("guest", bridge.guest("demo"), { guest: "demo" });
  }
}

/** A bridge on which something has happened, and a watcher that has seen it all. */
async function eventful() {
  const running = await testBridge();
  const watcher = await Watcher.ready(running.url);
  const happen = async (): Promise<void> => {
    const client = await running.connect("/ws/v1/demo/echo");
    const count = () => [...watcher.endpoints.values()].find(({ name }) => name === "echo")?.clients;
    await watcher.until("it is there", () => count() === 1);
    await client.close();
    await watcher.until("it is gone", () => count() === 0);
  };
  for (let i = 0; i < 5; i++) await happen();
  return { running, watcher, happen };
}

/** Numbers of the ids of what came before ready. */
function missed(watcher: Watcher): (string | undefined)[] {
  return watcher.seen
    .slice(
      0,
      watcher.seen.findIndex(({ name }) => name === "ready"),
    )
    .map(({ id }) => id);
}

describe("with Last-Event-ID", () => {
  test("what came after it comes once more, with its ids, then ready with the latest, then what changes", async () => {
    const { running, watcher, happen } = await eventful();
    const { changes } = watcher;
    expect(changes.length).toBe(10);
    const late: Watcher[] = [];
    for (const [i, { id }] of changes.entries()) {
      const resumed = await Watcher.ready(running.url, id);
      late.push(resumed);
      const at = resumed.seen.findIndex(({ name }) => name === "ready");
      expect(resumed.seen.slice(0, at)).toEqual(changes.slice(i + 1));
      expect(resumed.seen[at]?.id).toBe(changes.at(-1)?.id);
    }
    await happen();
    const latest = watcher.lastId;
    for (const [i, resumed] of late.entries()) {
      await resumed.until("the latest", () => resumed.lastId === latest);
      // All that the other one saw after that, once and in order; ready is none of it.
      expect(resumed.seen.filter(({ name }) => name !== "ready")).toEqual(watcher.changes.slice(i + 1));
    }
  });

  test("of ready: what came after the state that it ended", async () => {
    const { running, watcher } = await eventful();
    const ready = watcher.seen.find(({ name }) => name === "ready");
    const resumed = await Watcher.ready(running.url, ready?.id);
    expect(resumed.seen.slice(0, -1)).toEqual(watcher.changes);
  });

  test("what had changed and was not told yet is told first, to everybody", async () => {
    const { running, watcher } = await eventful();
    const client = await running.connect("/ws/v1/demo/tty");
    // It may have been told already; it is told once anyhow.
    const resumed = await Watcher.ready(running.url, watcher.lastId);
    await client.close();
    const last = await running.connect("/ws/v1/demo/sink");
    for (const each of [watcher, resumed]) {
      await each.until("sink", () =>
        each.seen.some(({ id, data }) => id !== undefined && (data as Endpoint).name === "sink"),
      );
    }
    const ids = resumed.seen.filter(({ name }) => name !== "ready").map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids).toEqual(
      watcher.changes
        .slice(10)
        .map(({ id }) => id)
        .slice(-ids.length),
    );
    await last.close();
  });

  test.each([
    ["of another bridge", () => "00000000-0000-4000-8000-000000000000:3"],
    ["that is none", () => "nonsense"],
    ["that is empty", () => ""],
    ["yet to come", (instance: string) => `${instance}:1000000`],
    ["negative", (instance: string) => `${instance}:-1`],
  ])("an id %s: the whole state again", async (_what, idOf) => {
    const { running } = await eventful();
    const resumed = await Watcher.ready(running.url, idOf(running.bridge.instance));
    expect(missed(resumed)).toEqual(Array(6).fill(undefined));
    expect(resumed.seen.map(({ name }) => name)).toEqual(["guest", ...Array(5).fill("endpoint"), "ready"]);
  });

  test("an id that is too old: the whole state again, without what is gone", async () => {
    const { running, watcher } = await eventful();
    const client = await running.connect("/ws/v1/demo?announce=gone");
    await watcher.until("it is there", () =>
      [...watcher.endpoints.values()].some(({ name }) => name === "gone"),
    );
    watcher.close();
    await watcher.ended;
    await client.close();
    await running.endpoint("echo");
    await eventually("it is gone", async () =>
      (await running.endpoints()).every(({ name }) => name !== "gone") ? true : undefined,
    );
    tell(running, 8192);
    const resumed = await Watcher.ready(running.url, watcher.lastId, watcher);
    expect(missed(resumed)).toEqual(Array(6).fill(undefined));
    expect([...resumed.endpoints.values()].map(({ name }) => name)).not.toContain("gone");
    expect(resumed.endpoints.size).toBe(5);
  });

  test("4096 events are still known", async () => {
    const { running, watcher } = await eventful();
    const { lastId } = watcher;
    tell(running, 4096);
    const resumed = await Watcher.ready(running.url, lastId);
    const number = Number(lastId?.split(":")[1]);
    const { instance } = running.bridge;
    expect(missed(resumed)).toEqual(Array.from({ length: 4096 }, (_, i) => `${instance}:${number + 1 + i}`));
  });
});

test("a watcher that always comes back knows what one knows that never left", async () => {
  const { running, watcher, happen } = await eventful();
  let restless = await Watcher.ready(running.url);
  for (let i = 0; i < 8; i++) {
    restless.close();
    await restless.ended;
    await happen();
    restless = await Watcher.ready(running.url, restless.lastId, restless);
  }
  await restless.until("all", () => restless.lastId === watcher.lastId);
  expect(restless.view).toEqual(watcher.view);
});
