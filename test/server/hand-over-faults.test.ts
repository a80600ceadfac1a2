import { describe, expect, onTestFinished, test } from "vitest";
import { connectUnix, Poller, RecordSocket } from "../../rpmsg/index.ts";
import type { Message } from "../../server/hand-over/messages.ts";
import { decode, encode } from "../../server/hand-over/messages.ts";
import type { Command } from "./cli-support.ts";
import { Between, Dynasty } from "./hand-over-support.ts";
import { JsonClient } from "./json-client.ts";

/** A bridge, a guest, and a client whose session has to survive whatever happens. */
async function scene(input = {}) {
  const { dynasty, first } = await Dynasty.found(input);
  await dynasty.attach();
  await dynasty.endpoint("echo");
  const client = await JsonClient.open(dynasty, "/ws/v1/vm/echo");
  client.send("before", { id: 1 });
  await client.take(2);
  /** The guest noticed nothing, and the client goes on. */
  const goesOn = async (): Promise<void> => {
    const again = client.socket.readyState === client.socket.OPEN ? client : await resumed(client);
    again.send("after", { id: 2 });
    const frames = await again.take(2);
    expect(frames).toContainEqual(expect.objectContaining({ type: "message", seq: 2, data: "after" }));
    expect(await dynasty.guest()).toMatchObject({ state: "attached", generation: 1 });
    expect((await dynasty.endpoint("echo")).counters).toMatchObject({
      messagesToGuest: 2,
      messagesFromGuest: 2,
    });
  };
  return { dynasty, first, client, goesOn };
}

/** Comes back to whoever goes on, as soon as that takes clients again. */
async function resumed(client: JsonClient): Promise<JsonClient> {
  await client.closed;
  for (;;) {
    try {
      const again = await client.resume(1);
      expect(again.hello.resumed).toBe(true);
      // What came with the last message, or after it.
      await again.all();
      return again;
    } catch (error) {
      if (!/status 503|ECONNREFUSED|closed before/.test(String(error))) throw error;
    }
  }
}

/** Says something to the hand-over socket of a bridge, and gives its answer. */
async function ask(path: string, message: Message | Uint8Array): Promise<Message | undefined> {
  const poller = new Poller();
  onTestFinished(() => poller.close());
  return new Promise((resolve) => {
    const socket = new RecordSocket(connectUnix(path), poller, {
      onRecord: (payload) => resolve(decode(payload)),
      onClose: () => resolve(undefined),
    });
    socket.send(message instanceof Uint8Array ? message : encode(message));
  });
}

describe("a hand-over that fails", { timeout: 60_000 }, () => {
  test.each(["state", "ready"] as const)(
    "the successor is killed before %s passes: the predecessor goes on",
    async (step) => {
      const { dynasty, first, goesOn } = await scene();
      let successor: Command | undefined;
      const path = Between.until(dynasty, step, () => successor?.kill("SIGKILL"));
      successor = dynasty.successor({}, path);
      await first.says('"event":"hand-over-failed","reason":"the successor has gone"');
      await goesOn();
      // And the next one has it.
      await dynasty.handOver(first);
      expect(await dynasty.guest()).toMatchObject({ state: "attached", generation: 1 });
    },
  );

  test.each(["ready", "yours"] as const)(
    "the predecessor is killed before %s passes: the successor goes on",
    async (step) => {
      const { dynasty, first, goesOn } = await scene();
      const path = Between.until(dynasty, step, () => first.kill("SIGKILL"));
      const successor = dynasty.successor({}, path);
      dynasty.url = await successor.url();
      await goesOn();
      const third = dynasty.successor();
      dynasty.url = await third.url();
      expect(await successor.finished).toMatchObject({ code: 0 });
    },
  );

  test("the predecessor is killed before the successor has the state: that says so and exits with 1", async () => {
    const { dynasty, first } = await scene();
    const path = Between.until(dynasty, "state", () => first.kill("SIGKILL"));
    const { code, stderr } = await dynasty.successor({}, path).finished;
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^rpmsg-bridge: .*between\.sock is not the hand-over socket of a running bridge: the connection was closed$/m,
    );
  });

  test("one that takes too long is given up, and a second one is refused meanwhile", async () => {
    const { dynasty, first, goesOn } = await scene({ limits: { handoverTimeout: 3000 } });
    let slow: Command | undefined;
    await new Promise<void>((resolve) => {
      slow = dynasty.successor({}, Between.until(dynasty, "ready", resolve));
    });
    expect(
      await ask(dynasty.handover, { type: "hello", protocol: "rpmsg-bridge-hand-over", version: 1 }),
    ).toEqual({
      type: "refused",
      reason: "another hand-over is running",
    });
    await first.says('"event":"hand-over-failed","reason":"it took longer than 3000 ms"');
    await goesOn();
    const metrics = await (await fetch(`${dynasty.url}/metrics`)).text();
    expect(metrics).toContain('rpmsg_bridge_limit_reached_total{limit="handoverTimeout"} 1\n');
    await slow?.kill("SIGKILL");
  });

  test("a successor whose configuration cannot be had beside what it inherits exits with 2; the predecessor goes on", async () => {
    const { dynasty, first, goesOn } = await scene();
    const post = await fetch(`${dynasty.url}/api/v1/guests/vm/endpoints`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ name: "declared", ns: "none", address: 1040, peer: 1 }),
    });
    expect(post.status).toBe(201);
    const endpoints = [{ name: "other", address: 1040 }];
    const { code, stderr } = await dynasty.successor({
      guests: { vm: { kind: "vhost-user", path: dynasty.vm, endpoints } },
    }).finished;
    expect(code).toBe(2);
    expect(stderr).toContain("guests.vm.endpoints");
    await first.says("hand-over-failed");
    await goesOn();
  });

  test("a configuration that is wrong ends the successor with 2 before the running bridge hears of it", async () => {
    const { dynasty, first, client } = await scene();
    const { code, stderr } = await dynasty.successor({ listen: "nowhere" }).finished;
    expect(code).toBe(2);
    expect(stderr).toContain("listen: ");
    client.send("still here", { id: 2 });
    await client.take(2);
    expect((await first.kill("SIGTERM")).stderr).not.toContain("hand-over");
  });

  test("another version, and what is no hand-over, are refused with a reason", async () => {
    const { dynasty, first, client } = await scene();
    const hello = { type: "hello", protocol: "rpmsg-bridge-hand-over", version: 99 } as const;
    expect(await ask(dynasty.handover, hello)).toEqual({
      type: "refused",
      reason: "the successor speaks version 99 of the hand-over, this bridge version 1",
    });
    expect(await ask(dynasty.handover, { type: "ready" })).toMatchObject({
      reason: "what connected is no successor",
    });
    expect(await ask(dynasty.handover, Buffer.from("GET / HTTP/1.1"))).toBeUndefined();
    client.send("still here", { id: 2 });
    await client.take(2);
    await dynasty.handOver(first);
  });

  test.each([
    ["nothing", (dynasty: Dynasty) => `${dynasty.directory}/nothing`, "cannot connect to .*: ENOENT"],
    ["a guest's socket", (dynasty: Dynasty) => dynasty.vm, "is not the hand-over socket of a running bridge"],
  ])("a successor of %s exits with 1 and says why", async (_what, path, reason) => {
    // Without a guest, whose frontend would be first in the queue.
    const { dynasty } = await Dynasty.found();
    const { code, stderr } = await dynasty.successor({}, path(dynasty)).finished;
    expect(code).toBe(1);
    expect(stderr).toMatch(new RegExp(reason));
  });

  test("a bridge that is told to stop in the middle gives the hand-over up, and stops", async () => {
    const { dynasty, first } = await scene();
    // Not waited for: its end waits for the hand-over's.
    const path = Between.until(dynasty, "ready", () => void first.kill("SIGTERM"));
    const successor = dynasty.successor({}, path);
    expect(await first.finished).toMatchObject({ code: 0 });
    expect((await first.finished).stderr).toContain('"reason":"the bridge is stopping"');
    expect(await successor.finished).toMatchObject({ code: 1 });
  });
});
