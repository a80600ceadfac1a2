import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { closeFd, connectUnix, listenUnix } from "../../rpmsg/index.ts";
import { Command } from "./cli-support.ts";
import { Dynasty } from "./hand-over-support.ts";
import { JsonClient } from "./json-client.ts";
import { eventually } from "./support.ts";
import { Valve } from "./vhost-guest.ts";

/** Posts a message; what becomes of the answer does not matter. */
async function post(dynasty: Dynasty, id: string, body: object): Promise<number | undefined> {
  const answer = await fetch(`${dynasty.url}/api/v1/guests/vm/endpoints/${id}/messages`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  }).catch(() => undefined);
  return answer?.status;
}

describe("clients over a hand-over", { timeout: 60_000 }, () => {
  test("messages that were posted and wait for the guest are delivered, and their addresses are free then", async () => {
    const { dynasty, first } = await Dynasty.found();
    const valve = new Valve();
    const attached = await dynasty.attach({ profile: "rpmsg-lite", services: { valve: valve.factory } });
    const { id } = await dynasty.endpoint("valve");
    const numbers = Array.from({ length: 12 }, (_, i) => i);
    for (const i of numbers) void post(dynasty, id, { data: `message ${i}`, local: 2000 + i });
    await dynasty.endpoint("valve", ({ counters }) => counters.accepted === numbers.length);
    await dynasty.handOver(first);
    valve.release(attached);
    const { counters } = await dynasty.endpoint(
      "valve",
      (endpoint) => endpoint.counters.messagesToGuest === numbers.length,
    );
    expect(counters).toMatchObject({ accepted: numbers.length, undelivered: 0, unconfirmed: 0 });
    await eventually("all of them", () => (valve.taken.length === numbers.length ? true : undefined));
    expect(valve.taken.map(String).toSorted()).toEqual(numbers.map((i) => `message ${i}`).toSorted());
    for (const i of numbers) {
      const client = await JsonClient.open(dynasty, `/ws/v1/vm/valve?local=${2000 + i}`);
      expect(client.hello.local).toBe(2000 + i);
    }
  });

  test("a session does not go on with rights that its client has no more", async () => {
    const { dynasty, first } = await Dynasty.found();
    await dynasty.attach();
    await dynasty.endpoint("echo");
    const client = await JsonClient.open(dynasty, "/ws/v1/vm/echo");
    await dynasty.handOver(first, { readOnly: true });
    const again = await client.resume();
    expect(again.hello.resumed).toBe(false);
    again.send("not to be sent", { id: 1 });
    expect(await again.next("error")).toMatchObject({ id: 1, code: "read-only" });
    expect((await dynasty.endpoint("echo")).counters.accepted).toBe(0);
  });

  test("the time of a session stands still while nobody can come back", async () => {
    // Requests hold up a hand-over for 40 % of its time: longer than a session lives.
    const limits = { sessionTimeout: 500, handoverTimeout: 5000 };
    const { dynasty, first } = await Dynasty.found({ limits });
    await dynasty.attach({ services: { valve: new Valve().factory } });
    const { id } = await dynasty.endpoint("valve");
    const client = await JsonClient.open(dynasty, "/ws/v1/vm/valve");
    void post(dynasty, id, { data: "asks for an answer that does not come", wait: 30_000 });
    await dynasty.endpoint("valve", ({ counters }) => counters.accepted === 1);
    const handedOver = dynasty.handOver(first, { limits });
    await client.closed;
    // Waits in the backlog from now on.
    expect((await client.resume()).hello.resumed).toBe(true);
    await handedOver;
  });
});

describe("the sockets of a bridge that hands over", { timeout: 60_000 }, () => {
  test("one whose file is gone cannot be handed over: the bridge says so and goes on", async () => {
    const { dynasty, first } = await Dynasty.found();
    const path = join(dynasty.directory, "http.sock");
    const second = dynasty.successor({ listen: `unix:${path}` });
    await second.line();
    await first.finished;
    rmSync(path);
    const third = dynasty.successor({ listen: `unix:${path}` });
    expect(await third.finished).toMatchObject({ code: 1, stderr: expect.stringContaining("ENOENT") });
    await second.says("hand-over-failed");
    // Its own socket is there still: another one is told the same.
    expect((await dynasty.successor({ listen: `unix:${path}` }).finished).stderr).toContain("ENOENT");
  });

  test("one that was handed over leaves no file behind", async () => {
    const { dynasty, first } = await Dynasty.found();
    const path = join(dynasty.directory, "http.sock");
    const second = dynasty.successor({ listen: `unix:${path}` });
    await second.line();
    await first.finished;
    const third = dynasty.successor({ listen: `unix:${path}` });
    await third.line();
    await second.finished;
    expect(await third.kill("SIGTERM")).toMatchObject({ code: 0 });
    expect(existsSync(path)).toBe(false);
  });

  test("one that is too busy to take a connection is not taken for an abandoned one", async () => {
    const { dynasty } = await Dynasty.found();
    const path = join(dynasty.directory, "busy.sock");
    const listener = listenUnix(path);
    const waiting: number[] = [];
    for (let fd = connectUnix(path); fd >= 0; fd = connectUnix(path)) waiting.push(fd);
    const other = Command.start(["serve", "--listen", `unix:${path}`]);
    expect(await other.finished).toMatchObject({
      code: 1,
      stderr: expect.stringContaining(`cannot listen on unix:${path}: EADDRINUSE`),
    });
    for (const fd of [listener, ...waiting]) closeFd(fd);
    // Now it is.
    const next = Command.start(["serve", "--listen", `unix:${path}`]);
    expect(await eventually("the next one", () => next.line())).toContain("listening");
  });

  test("localhost, which may be two, is a mistake in the configuration", async () => {
    const { dynasty } = await Dynasty.found();
    const { code, stderr } = await dynasty.successor({ listen: "localhost:0" }).finished;
    expect([code, stderr]).toEqual([2, expect.stringContaining("configuration: listen: localhost")]);
  });
});
