import { once } from "node:events";
import { connect } from "node:net";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, onTestFinished, test } from "vitest";
import type { Holder } from "../../server/memory-budget.ts";
import { MemoryBudget } from "../../server/memory-budget.ts";
import { emulatedBridge, Sluice } from "./mux-client.ts";
import { opcode, RawClient } from "./raw-client.ts";
import { eventually, reached, testBridge, testDirectory } from "./support.ts";

const LIMIT = 6400;

/** Somebody who lets go as clients do: told in good order, later or never; told at once, at once. */
class Client implements Holder {
  heldBytes = 0;
  told = 0;
  cut = false;
  readonly #budget: MemoryBudget;

  constructor(budget: MemoryBudget) {
    this.#budget = budget;
  }

  hold(bytes: number): void {
    if (this.cut) return;
    this.heldBytes += bytes;
    this.#budget.grown(this, bytes);
  }

  shed(atOnce: boolean): void {
    this.told++;
    if (!atOnce) return;
    this.cut = true;
    this.heldBytes = 0;
  }
}

function budgetOf(count: number) {
  let shed = 0;
  const budget = new MemoryBudget(LIMIT, () => shed++);
  const clients = Array.from({ length: count }, () => new Client(budget));
  return { budget, clients, shed: () => shed };
}

describe("the budget", () => {
  test("up to three quarters of the limit nobody is told; one byte more, the largest", () => {
    const { budget, clients, shed } = budgetOf(3);
    const [small, large, middle] = clients as [Client, Client, Client];
    small.hold(100);
    large.hold(3000);
    middle.hold(1700);
    expect([budget.bytes, shed()]).toEqual([4800, 0]);
    small.hold(1);
    expect([small.told, large.told, middle.told]).toEqual([0, 1, 0]);
    expect([large.cut, shed()]).toEqual([false, 1]);
  });

  test("whoever was told and does not let go is cut off before the limit is passed", () => {
    const { budget, clients } = budgetOf(2);
    const [small, large] = clients as [Client, Client];
    large.hold(4900);
    expect([large.told, large.cut]).toEqual([1, false]);
    let most = 0;
    for (let i = 0; i < 200; i++) {
      small.hold(10);
      most = Math.max(most, budget.bytes);
    }
    expect([large.cut, small.told, small.heldBytes]).toEqual([true, 0, 2000]);
    expect(most).toBeLessThanOrEqual(LIMIT);
  });

  test("what has left does not count, though nobody says so", () => {
    const { clients, shed } = budgetOf(2);
    const [one] = clients as [Client, Client];
    for (let i = 0; i < 1000; i++) {
      one.hold(1000);
      one.heldBytes = 0;
    }
    expect(shed()).toBe(0);
  });

  test("whatever comes and goes, there is no more than the limit and what came at once, and a small one is never told", () => {
    const step = fc.record({ who: fc.nat(9), bytes: fc.nat(99), leave: fc.boolean() });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 800 }), (steps) => {
        const { budget, clients } = budgetOf(10);
        const fast = clients[0] as Client;
        for (const { who, bytes, leave } of steps) {
          const client = clients[who] as Client;
          if (leave || client === fast) client.heldBytes = 0;
          client.hold(bytes * (client === fast ? 1 : 10));
          expect(budget.bytes).toBeLessThanOrEqual(LIMIT + 990);
        }
        expect(fast.told).toBe(0);
      }),
      { numRuns: 300 },
    );
  });
});

test("clientBytes: clients that do not read are closed with 1013 for it, one that reads is not", async () => {
  const running = await testBridge({ limits: { clientBytes: 2 ** 20, slowReaderBytes: 2 ** 20 } });
  await running.endpoint("source");
  const slow = await Promise.all([1, 2, 3, 4].map(() => RawClient.open(running.url, "/ws/v1/demo/source")));
  const fast = await running.connect("/ws/v1/demo/source");
  for (const client of slow) client.socket.pause();
  let rounds = 0;
  // Each alone may have 1 MiB; the kernel takes a few megabytes of each before anything waits.
  while (reached(running, "clientBytes") === 0) {
    for (const client of slow) client.send(opcode.text, Buffer.from("2000 480"));
    fast.send("200 480");
    await fast.take(200);
    if (++rounds > 200) throw new Error("nobody was closed");
  }
  expect(running.bridge.channels.budget.bytes).toBeLessThanOrEqual(2 ** 20);
  fast.send("10 100");
  await fast.take(10);
  expect(reached(running, "clientBytes")).toBeGreaterThan(0);
  for (const client of slow) client.socket.resume();
  const ended = slow.map((client) => client.ended.then(() => client));
  const first = await Promise.race(ended);
  const close = first.frames.find((each) => each.opcode === opcode.close);
  expect(close?.payload.readUInt16BE(0) ?? 1006).toSatisfy((code) => code === 1013 || code === 1006);
});

describe("clientBytes: answers over HTTP", () => {
  /** A bridge whose list of endpoints, and whose metrics, are 1 MB at least, more than the kernel takes for a Unix socket. */
  async function listing(clientBytes: number, target = "/metrics") {
    const path = join(testDirectory(), "socket");
    const running = await testBridge({
      listen: `unix:${path}`,
      limits: { clientBytes, declaredEndpoints: 3000, metricEndpoints: 4000 },
    });
    for (let i = 0; i < 3000; i++)
      running.bridge.declare("demo", { name: "n".repeat(31), ns: "none", address: 5000 + i });
    const ask = () => {
      const socket = connect(path);
      onTestFinished(() => void socket.destroy());
      socket.write(`GET ${target} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
      return socket;
    };
    return { running, ask };
  }

  test("one that waits counts until it is taken", async () => {
    const { running, ask } = await listing(2 ** 28);
    const { budget } = running.bridge.channels;
    const sockets = [ask(), ask(), ask()];
    await eventually("three answers", () => budget.bytes > 3_000_000 || undefined);
    for (const socket of sockets) socket.resume();
    await eventually("none", () => budget.bytes === 0 || undefined);
    expect(reached(running, "clientBytes")).toBe(0);
  });

  test("a long list is made as it is taken: of each only a part waits, and counts until it is taken", async () => {
    const { running, ask } = await listing(2 ** 28, "/api/v1/endpoints?limit=10000");
    const { budget } = running.bridge.channels;
    const sockets = [ask(), ask(), ask()];
    await Promise.all(sockets.map((socket) => once(socket, "readable")));
    await eventually("three answers", () => budget.bytes > 3 * 20_000 || undefined);
    for (const socket of sockets) socket.resume();
    let most = 0;
    await eventually("none", () => {
      most = Math.max(most, budget.bytes);
      return budget.bytes === 0 || undefined;
    });
    expect(most).toBeLessThan(3 * 200_000);
    expect(reached(running, "clientBytes")).toBe(0);
  });

  test("one with which it is too much is not given, however little waited before", async () => {
    const { running, ask } = await listing(2 ** 20);
    const socket = ask();
    let taken = 0;
    socket.on("data", ({ length }) => {
      taken += length;
    });
    await once(socket, "close");
    expect([taken, reached(running, "clientBytes"), running.bridge.channels.budget.bytes]).toEqual([0, 1, 0]);
  });
});

/** The value of a metric. */
async function metric(url: string, name: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const line = text.split("\n").find((each) => each.startsWith(`${name} `)) ?? "";
  return Number(line.slice(name.length));
}

const GUEST_BYTES = 'rpmsg_bridge_waiting_bytes{for="guests"}';
const GUEST_LIMIT = 'rpmsg_bridge_limit_reached_total{limit="guestBytes"}';

test("guestBytes: who has sent most to guests that do not take it is closed with 1013; what others sent arrives", async () => {
  const sluice = new Sluice("sluice", "other");
  const running = await emulatedBridge(
    { demo: sluice.guest },
    { limits: { guestBytes: 2 ** 20, sendQueueBytes: 2 ** 20 } },
  );
  const small = await running.connect("/ws/v1/demo/other");
  small.send("small");
  const large = await running.connect("/ws/v1/demo/sluice");
  for (let i = 0; i < 3000; i++) large.send(Buffer.alloc(400));
  expect(await large.closed).toEqual({ code: 1013, reason: "too much waits for the guests" });
  expect(await metric(running.url, GUEST_BYTES)).toBeLessThan(2 ** 20);
  expect(await metric(running.url, GUEST_LIMIT)).toBe(1);
  sluice.let(20);
  await eventually("the small one", () =>
    sluice.taken.some((each) => each.toString() === "small") ? true : undefined,
  );
});

test("guestBytes: what clients have left behind counts, and is given up", async () => {
  const sluice = new Sluice("sluice");
  const running = await emulatedBridge({ demo: sluice.guest }, { limits: { guestBytes: 2 ** 20 } });
  let sent = 0;
  while ((await metric(running.url, GUEST_LIMIT)) === 0) {
    const client = await running.connect("/ws/v1/demo/sluice");
    for (let i = 0; i < 100; i++) client.send(Buffer.alloc(400));
    await client.close();
    if (++sent > 100) throw new Error("nothing was given up");
  }
  expect(await metric(running.url, GUEST_BYTES)).toBeLessThanOrEqual(2 ** 20);
  const { counters } = await running.endpoint("sluice");
  expect(counters.undelivered).toBeGreaterThan(0);
});
