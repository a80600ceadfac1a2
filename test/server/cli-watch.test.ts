import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { EventName } from "../../schemas/index.ts";
import { events } from "../../schemas/index.ts";
import { Command, strangeServer } from "./cli-support.ts";
import { testDirectory } from "./support.ts";

/** A bridge with the guest `demo`, and with `vm`, which waits at a socket. */
async function start(): Promise<{ bridge: Command; url: string; socket: string }> {
  const socket = join(testDirectory(), "vm.sock");
  const bridge = Command.start([
    ...["serve", "--listen", "127.0.0.1:0", "--guest", "demo=emulated"],
    ...["--guest", `vm=vhost-user:${socket}`, "--announce", "vm/raw@1040"],
  ]);
  return { bridge, url: await bridge.url(), socket };
}

/** The next line, without its time. */
async function next(watch: Command): Promise<string> {
  const line = await watch.line();
  expect(line).toMatch(/^\d\d:\d\d:\d\d \S/);
  return line.slice(9);
}

/** Lines up to one that is like `last`, without their times. */
async function until(watch: Command, last: RegExp): Promise<string[]> {
  const lines = [await next(watch)];
  while (!last.test(lines.at(-1) ?? "")) lines.push(await next(watch));
  return lines;
}

/** Events up to the first of that name. */
async function eventsUntil(watch: Command, last: EventName): Promise<{ event: EventName; data: unknown }[]> {
  const all: { event: EventName; data: unknown }[] = [];
  do {
    const { event, data, ...more } = JSON.parse(await watch.line()) as { event: EventName; data: unknown };
    expect(more).toEqual({});
    expect(events[event].parse(data)).toEqual(data);
    all.push({ event, data });
  } while (all.at(-1)?.event !== last);
  return all;
}

describe("watch", () => {
  test("shows everything as it is, then ready, then each change in a line", async () => {
    const { url, socket } = await start();
    const watch = Command.start(["watch", "--url", url]);
    const first = await until(watch, /^ready/);
    expect(first.pop()).toBe("ready: 2 guests, 6 endpoints");
    expect(first.toSorted()).toEqual([
      ...["echo", "sensor", "sink", "source", "tty"].map((name) => `endpoint demo/${name} connected`),
      "endpoint vm/raw declared",
      "guest demo attached generation 1",
      "guest vm waiting generation 1",
    ]);
    const client = Command.start(["connect", "demo/echo", "--url", url]);
    expect(await next(watch)).toBe("endpoint demo/echo 1 client");
    client.endInput();
    expect(await next(watch)).toBe("endpoint demo/echo 0 clients");
    const guest = Command.start(["guest", "--socket", socket]);
    const attached = await until(
      watch,
      /^endpoint vm\/raw (connected, )?peer \d+$|^endpoint vm\/raw connected, /,
    );
    expect(attached).toContain("guest vm attached generation 1");
    expect(attached).toContain("endpoint vm/echo connected");
    await guest.kill("SIGKILL");
    const detached = await until(watch, /^guest vm waiting generation 2$/);
    expect(detached).toContain("endpoint vm/echo removed");
    expect(detached).toContain("endpoint vm/raw declared, generation 2, peer unknown");
  });

  test("--json prints the events as the bridge sends them, --guest only those about one guest", async () => {
    const { url, socket } = await start();
    const all = Command.start(["watch", "--url", url, "--json"]);
    const some = Command.start(["watch", "--url", url, "--json", "--guest", "vm"]);
    expect((await eventsUntil(all, "ready")).map((each) => each.event).toSorted()).toEqual([
      ...Array.from({ length: 6 }, () => "endpoint"),
      ...["guest", "guest", "ready"],
    ]);
    expect(await eventsUntil(some, "ready")).toMatchObject([
      { event: "guest", data: { name: "vm", state: "waiting" } },
      { event: "endpoint", data: { guest: "vm", name: "raw", state: "declared" } },
      { event: "ready" },
    ]);
    const guest = Command.start(["guest", "--socket", socket]);
    await guest.line();
    await guest.kill("SIGKILL");
    for (const { event, data } of await eventsUntil(some, "endpoint-removed")) {
      expect(data).toMatchObject(event === "guest" ? { name: "vm" } : { guest: "vm" });
    }
  });

  test.each(["SIGINT", "SIGTERM"] as const)("%s ends it with exit code 0, without a word", async (signal) => {
    const { url } = await start();
    const watch = Command.start(["watch", "--url", url]);
    await until(watch, /^ready/);
    expect(await watch.kill(signal)).toMatchObject({ code: 0, signal: null, stderr: "" });
  });

  test("so does SIGINT before the bridge has answered", async () => {
    let asked: () => void = () => {};
    const request = new Promise<void>((resolve) => {
      asked = resolve;
    });
    const watch = Command.start(["watch", "--url", await strangeServer(() => asked())]);
    await request;
    expect(await watch.kill("SIGINT")).toMatchObject({ code: 0, signal: null, stderr: "" });
  });

  test.each(["SIGTERM", "SIGKILL"] as const)("the end of the bridge by %s is exit code 1", async (signal) => {
    const { bridge, url } = await start();
    const watch = Command.start(["watch", "--url", url]);
    await until(watch, /^ready/);
    await bridge.kill(signal);
    const { code, stderr } = await watch.finished;
    expect(code).toBe(1);
    expect(stderr).toBe(
      `rpmsg-bridge: the bridge at ${url} has ended, or the way to it: watch again when it is back\n`,
    );
  });

  test("a guest that there is not is exit code 1, and named", async () => {
    const { url } = await start();
    const { code, stderr } = await Command.run(["watch", "--url", url, "--guest", "nobody"]);
    expect(code).toBe(1);
    expect(stderr).toBe(
      'rpmsg-bridge: there is no guest "nobody" (guest-unknown): rpmsg-bridge guests lists those that there are.\n',
    );
  });

  test("whoever stops reading, as head does, ends it in silence", async () => {
    const { url } = await start();
    const watch = Command.start(["watch", "--url", url]);
    await watch.line();
    watch.closeOutput();
    const client = Command.start(["connect", "demo/echo", "--url", url]);
    expect(await watch.finished).toMatchObject({ code: 0, stderr: "" });
    await client.kill("SIGTERM");
  });

  test("events in pieces, with other line ends, comments and events of a newer bridge are read", async () => {
    const ready = JSON.stringify({ instance: "grüß" });
    const pieces = Buffer.from(
      `: hello\r\nid: 1\r\nevent: comet\r\ndata: {\r\ndata:"tail": 1}\r\n\r\nevent: ready\ndata: ${ready}\n\nevent: ready\ndata: {}`,
    );
    const url = await strangeServer((_request, response) => {
      response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" });
      let at = 0;
      const piece = (): void => {
        if (at === pieces.length) response.end();
        else response.write(pieces.subarray(at, ++at), () => setImmediate(piece));
      };
      piece();
    });
    const json = await Command.run(["watch", "--url", url, "--json"]);
    expect(json.stdout).toBe(`{"event":"comet","data":{"tail":1}}\n{"event":"ready","data":${ready}}\n`);
    const { code, stdout } = await Command.run(["watch", "--url", url]);
    expect([code, stdout.slice(9)]).toEqual([1, "ready: 0 guests, 0 endpoints\n"]);
  });
});
