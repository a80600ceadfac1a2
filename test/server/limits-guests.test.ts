import { pino } from "pino";
import { describe, expect, test } from "vitest";
import { encodeNameService, NAME_SERVICE_ADDRESS } from "../../rpmsg/index.ts";
import { BurstLog, LineRate } from "../../server/burst-log.ts";
import type { CountedLimit } from "../../server/counted-limits.ts";
import { Log } from "../../server/log.ts";
import { Tally } from "../../server/tally.ts";
import { JsonClient } from "./json-client.ts";
import type { LogLine } from "./support.ts";
import { eventually, reached, testBridge } from "./support.ts";
import { Valve, vhostBridge } from "./vhost-guest.ts";

/** A guest that says to the name service what the test wants. */
async function talker(
  limits: NonNullable<Parameters<typeof testBridge>[0]>["limits"],
  onLog?: (line: LogLine) => void,
) {
  const running = await vhostBridge({ limits }, {}, onLog);
  const valve = new Valve(true);
  await running.attach({ services: { valve: valve.factory } });
  await running.endpoint("valve");
  const { context } = valve;
  /** Announces a service, or withdraws it. @returns whether a buffer was free */
  const say = (name: string, created: boolean) =>
    context?.send(NAME_SERVICE_ADDRESS, encodeNameService({ name, address: 3000, created })) === true;
  const sayAll = async (count: number, name: (i: number) => string, created = (_i: number) => true) => {
    for (let i = 0; i < count; i++) {
      await eventually("a buffer", () => (say(name(i), created(i)) ? true : undefined));
    }
  };
  return { ...running, say, sayAll };
}

test("a guest that announces 1000 services at its start is not held up", async () => {
  const running = await talker({});
  await running.sayAll(1000, (i) => `s${i}`);
  await eventually("all of them", () =>
    running.bridge.directory.list(() => true).endpoints.length === 1001 ? true : undefined,
  );
  expect(reached(running, "announcementRate")).toBe(0);
});

test("announcementRate: beyond it the guest waits, and nothing that it says is lost or out of order", async () => {
  const running = await talker({ announcementRate: { perSecond: 200, burst: 20 } });
  // 19 are left: the first was the service itself.
  await running.sayAll(19, (i) => `s${i}`);
  await running.endpoint("s18");
  expect(reached(running, "announcementRate")).toBe(0);
  const start = performance.now();
  await running.sayAll(100, (i) => `t${i}`);
  await running.endpoint("t99");
  // 20 at once, and the others 5 ms apart.
  expect(performance.now() - start).toBeGreaterThan(350);
  expect(reached(running, "announcementRate")).toBeGreaterThan(0);
  const names = (await running.endpoints()).map(({ name }) => name);
  expect(names).toEqual([
    "valve",
    ...Array.from({ length: 19 }, (_, i) => `s${i}`),
    ...Array.from({ length: 100 }, (_, i) => `t${i}`),
  ]);
});

test("announcementRate: a guest that comes and goes with a service costs others no events and no lines", async () => {
  const lines: LogLine[] = [];
  const running = await talker({ announcementRate: { perSecond: 1, burst: 10 } }, (line) => lines.push(line));
  const before = lines.length;
  let events = 0;
  running.bridge.events.subscribe(() => events++);
  // Far more than its buffers hold: what it could not say waits with the guest.
  let said = 0;
  await eventually("a full ring", () => {
    while (running.say("flood", said % 2 === 0)) said++;
    return reached(running, "announcementRate") > 0 && said > 200 ? true : undefined;
  });
  // The first ten, and one or two for the time that it took.
  expect(events).toBeLessThan(100);
  expect(lines.length - before).toBeLessThan(10);
  expect((await fetch(`${running.url}/healthz`)).status).toBe(200);
});

test("what changes nothing is not counted: 20,000 are no matter for a guest that says nothing else", async () => {
  const running = await talker({ guestAnnouncements: 100, announcementRate: { perSecond: 1, burst: 200 } });
  await running.sayAll(20_000, (i) => `flood${i}`);
  await eventually("that all were read", async () => {
    const { counters } = await running.guest("vm");
    return counters.nameServiceLimit === 20_000 - 99 ? true : undefined;
  });
  expect(await running.endpoints()).toHaveLength(100);
  expect(reached(running, "announcementRate")).toBe(0);
});

test("metricEndpoints: endpoints beyond it have none", async () => {
  const running = await testBridge({ limits: { metricEndpoints: 2 } });
  await running.endpoint("sink");
  const text = await (await fetch(`${running.url}/metrics`)).text();
  expect(text.match(/^rpmsg_endpoint_clients\{/gm)).toHaveLength(2);
  expect(text).toContain("\nrpmsg_endpoints_without_metrics 3\n");
});

describe("waitingSessions: one of whoever has most ends where there are too many", () => {
  test.each([
    ["of one address, the one that came last", ["9", "9", "9"], [true, true, false]],
    ["of one that has as many as others, the one that came last", ["9", "10", "11"], [true, true, false]],
    ["of two addresses, the last one of that with more", ["9", "10", "10"], [true, true, false]],
    ["whoever comes when another has more loses nothing", ["9", "9", "10"], [true, false, true]],
  ])("%s", async (_what, addresses, expected) => {
    const running = await testBridge({ trustedProxies: ["loopback"], limits: { waitingSessions: 2 } });
    await running.endpoint("echo");
    const path = "/ws/v1/demo/echo";
    const openAs = (address: string, query = "") =>
      JsonClient.open(running, path + query, { "x-forwarded-for": `203.0.113.${address}` });
    const clients = [];
    for (const address of addresses) clients.push(await openAs(address));
    for (const [i, client] of clients.entries()) {
      client.socket.terminate();
      await eventually("that it is away", () =>
        running.bridge.channels.waitingSessions === Math.min(i + 1, 2) &&
        reached(running, "waitingSessions") === (i === 2 ? 1 : 0)
          ? true
          : undefined,
      );
    }
    const answers = [];
    for (const { hello } of clients)
      answers.push((await openAs("9", `?resume=${hello.session}&after=0`)).hello.resumed);
    expect(answers).toEqual(expected);
    expect(running.bridge.channels.waitingSessions).toBe(0);
  });
});

test("logRate: lines beyond it are left out, and the next one says how many", () => {
  let now = 0;
  const lines: LogLine[] = [];
  const logger = pino(
    { base: null, timestamp: false },
    { write: (line: string) => lines.push(JSON.parse(line) as LogLine) },
  );
  const counts = new Tally<CountedLimit>();
  const rate = new LineRate({ perSecond: 1, burst: 3 }, counts, () => now);
  const log = new Log(logger);
  const logs = [new BurstLog(log, rate), new BurstLog(log, rate)];
  // Each has another code, so that no burst takes them together.
  for (let i = 0; i < 10; i++) logs[i % 2]?.write("guest-service", { code: `c${i}`, reason: "" });
  expect(lines.map(({ code }) => code)).toEqual(["c0", "c1", "c2"]);
  expect([...counts.entries()]).toEqual([["logRate", 7]]);
  // A mistake of the bridge is never left out.
  logs[0]?.write("internal-error", { reason: "r", stack: "" });
  expect(lines.at(-1)).toMatchObject({ event: "internal-error" });
  now += 1000;
  logs[0]?.write("guest-service", { code: "c10", reason: "" });
  expect(lines.slice(4).map(({ event, lines: left }) => [event, left])).toEqual([
    ["log-lines-left-out", 7],
    ["guest-service", undefined],
  ]);
});
