import { createServer } from "node:net";
import { join } from "node:path";
import { pino } from "pino";
import { describe, expect, onTestFinished, test } from "vitest";
import type { EmulatedGuestOptions } from "../../guest/index.ts";
import { EmulatedGuest, echo, service } from "../../guest/index.ts";
import type { ConfigInput, Endpoint, Guest } from "../../schemas/index.ts";
import { closeCode, ServerFrame } from "../../schemas/index.ts";
import type { RunningBridge, StartOptions } from "../../server/index.ts";
import { ConfigError, startBridge } from "../../server/index.ts";
import { titled, unsupported } from "../rpmsg/posix/support.ts";
import { Client, eventually, testDirectory } from "../server/support.ts";

/** A bridge in this process, closed at the end of the test. */
async function start(input: ConfigInput = {}, options?: StartOptions): Promise<RunningBridge> {
  const limits = { drainTimeout: 1000, ...input.limits };
  const bridge = await startBridge({ listen: "127.0.0.1:0", ...input, limits }, options);
  onTestFinished(() => bridge.close());
  return bridge;
}

/** A bridge with the guest `board`, and a client of its `echo`. */
async function board(options: EmulatedGuestOptions = {}, input: ConfigInput = {}, protocols: string[] = []) {
  const guest = new EmulatedGuest({ services: { echo }, ...options });
  const bridge = await start(input, { guests: { board: guest } });
  return { guest, bridge, client: await open(bridge, "board/echo", protocols) };
}

function open(bridge: RunningBridge, path: string, protocols: string[] = []): Promise<Client> {
  return Client.open(`${bridge.url.replace("http", "ws")}/ws/v1/${path}`, protocols);
}

async function get<T>(bridge: RunningBridge, path: string): Promise<T> {
  return (await (await fetch(`${bridge.url}/api/v1/${path}`)).json()) as T;
}

async function names(bridge: RunningBridge): Promise<string[]> {
  const { endpoints } = await get<{ endpoints: Endpoint[] }>(bridge, "endpoints");
  return endpoints.map(({ guest, name }) => `${guest}/${name}`);
}

async function keyOf(started: Promise<unknown>): Promise<string> {
  const error: unknown = await started.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof ConfigError)) throw new Error("no configuration error", { cause: error });
  return error.key;
}

describe("startBridge", () => {
  test("listens, has the endpoints of its guests at once, and ends with 1001", async () => {
    const guest = new EmulatedGuest({
      services: {
        echo,
        twice: service(
          () =>
            ({ text, reply }) =>
              reply(text + text),
        ),
      },
    });
    const bridge = await start({}, { guests: { board: guest } });
    expect(await names(bridge)).toEqual(["board/echo", "board/twice"]);
    const client = await open(bridge, "board/twice");
    client.send("ab");
    expect(await client.text()).toBe("abab");
    await Promise.all([bridge.close(), bridge.close()]);
    expect((await client.closed).code).toBe(closeCode.drain);
    await expect(fetch(bridge.url)).rejects.toThrow();
    expect(guest.inUse).toBe(false);
    // And the guest may be used again.
    const next = await start({}, { guests: { other: guest } });
    expect(await names(next)).toEqual(["other/echo", "other/twice"]);
  });

  test("without any guest there is the demonstration", async () => {
    expect(await names(await start())).toContain("demo/sensor");
  });

  test("what the configuration says of a given guest goes for it; other guests are as ever", async () => {
    const guest = new EmulatedGuest({ profile: "linux", services: { echo } });
    const endpoints = [{ name: "rpmsg-raw", address: 1040 }];
    const bridge = await start(
      {
        guests: {
          board: { kind: "emulated", profile: "rpmsg-lite", endpoints },
          other: { kind: "emulated", profile: "openamp" },
        },
      },
      { guests: { board: guest } },
    );
    expect(guest.profile.name).toBe("rpmsg-lite");
    expect(await get<Guest>(bridge, "guests/board")).toMatchObject({ queues: { response: 8, request: 8 } });
    expect(await get<Guest>(bridge, "guests/other")).toMatchObject({ queues: { response: 16, request: 16 } });
    const client = await open(bridge, "board/rpmsg-raw");
    client.send("hello");
    await eventually("the echo", async () => ((await client.text()) === "hello" ? true : undefined));
  });

  test.each<[key: string, input: ConfigInput, options?: StartOptions]>([
    ["listen", { listen: "nowhere" }],
    ["hosts.0", { hosts: ["a:b"] }],
    ["unknown", { unknown: 1 } as never],
    ["guests.a b", {}, { guests: { "a b": new EmulatedGuest() } }],
    ["guests.a", {}, { guests: { a: {} as never } }],
    [
      "guests.a.kind",
      { guests: { a: { kind: "vhost-user", path: "/tmp/a.sock" } } },
      { guests: { a: new EmulatedGuest() } },
    ],
    [
      "guests.a",
      { guests: { a: { kind: "emulated", path: "a.js" } } },
      { guests: { a: new EmulatedGuest() } },
    ],
  ])("a mistake names its key: %s", async (key, input, options) => {
    expect(await keyOf(startBridge({ listen: "127.0.0.1:0", ...input }, options))).toBe(key);
  });

  test("one guest under two names is a mistake, and leaves nothing behind", async () => {
    const guest = new EmulatedGuest();
    const twice = startBridge({ listen: "127.0.0.1:0" }, { guests: { a: guest, b: guest } });
    expect(await keyOf(twice)).toBe("guests.b");
    expect(guest.inUse).toBe(false);
  });

  test("a port that is taken: its error, and the guest is free again", async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => {
      server.close();
    });
    const { port } = server.address() as { port: number };
    const guest = new EmulatedGuest();
    const taken = startBridge({ listen: `127.0.0.1:${port}` }, { guests: { board: guest } });
    await expect(taken).rejects.toMatchObject({ code: "EADDRINUSE" });
    expect(guest.inUse).toBe(false);
  });

  test("logs where it is told to; a service that fails is a line of it, and the guest goes on", async () => {
    const lines: Record<string, unknown>[] = [];
    const log = pino(
      { level: "info" },
      { write: (line: string) => lines.push(JSON.parse(line) as object as never) },
    );
    const guest = new EmulatedGuest({
      services: {
        picky: service(() => ({ text, reply }) => {
          if (text === "fail") throw new Error("boom");
          reply("fine");
        }),
      },
    });
    const bridge = await start({}, { guests: { board: guest }, log });
    const client = await open(bridge, "board/picky");
    client.send("fail");
    client.send("next");
    expect(await client.text()).toBe("fine");
    expect(lines.find(({ event }) => event === "guest-service")).toMatchObject({
      ...{ guest: "board", code: "failed", reason: "service picky: boom" },
    });
  });
});

describe("what a client of the bridge sees of a fault", () => {
  /** A client of `echo` that speaks JSON, greeted already. */
  async function json(options: EmulatedGuestOptions = {}) {
    const { client, ...rest } = await board(options, {}, ["rpmsg.v1.json"]);
    const next = async () => ServerFrame.parse(JSON.parse(await client.text()));
    const send = (frame: object) => client.socket.send(JSON.stringify({ type: "send", ...frame }));
    expect((await next()).type).toBe("hello");
    return { ...rest, client, next, send };
  }

  test("neverRefill: no-buffer, after the time that it may take: close 4004", async () => {
    const { guest, client } = await board({ profile: "rpmsg-lite" }, { limits: { sendTimeout: 200 } });
    guest.faults.neverRefill = true;
    for (let i = 0; i < 9; i++) client.send(`${i}`);
    expect((await client.take(8)).map(String)).toEqual(["0", "1", "2", "3", "4", "5", "6", "7"]);
    expect(await client.closed).toEqual({ code: 4004, reason: "no-buffer" });
  });

  test("neverRefill: no-buffer as an error frame; switched off, messages arrive again", async () => {
    const { guest, next, send } = await json({ profile: "rpmsg-lite" });
    guest.faults.neverRefill = true;
    for (let i = 0; i < 8; i++) send({ data: "x" });
    for (let i = 0; i < 8; i++) expect(await next()).toMatchObject({ type: "message", data: "x" });
    send({ id: 9, data: "too many", timeout: 50 });
    expect(await next()).toMatchObject({ type: "error", id: 9, code: "no-buffer" });
    guest.faults.neverRefill = false;
    send({ data: "again" });
    expect(await next()).toMatchObject({ type: "message", data: "again" });
  });

  test("delay: sent, and no answer for so long", async () => {
    const { guest, next, send } = await json();
    guest.faults.delay = 3_600_000;
    send({ id: 1, data: "slow" });
    expect(await next()).toEqual({ type: "sent", id: 1 });
    send({ id: 2, data: "slower" });
    expect(await next()).toEqual({ type: "sent", id: 2 });
    guest.faults.delay = 0;
    expect(await next()).toMatchObject({ type: "message", data: "slow" });
    expect(await next()).toMatchObject({ type: "message", data: "slower" });
  });

  test("dropReceived: sent, and never an answer", async () => {
    const { guest, next, send } = await json();
    guest.faults.dropReceived = 1;
    send({ id: 1, data: "unheard" });
    send({ id: 2, data: "heard" });
    const frames = [await next(), await next(), await next()];
    expect(frames).toContainEqual({ type: "sent", id: 1 });
    expect(frames).toContainEqual({ type: "sent", id: 2 });
    expect(frames.find(({ type }) => type === "message")).toMatchObject({ seq: 1, data: "heard" });
  });

  test("corruptLength: never an answer, the bridge counts `malformed` and goes on", async () => {
    const { guest, bridge, client } = await board();
    guest.faults.corruptLength = 1;
    client.send("garbled");
    client.send("whole");
    expect(await client.text()).toBe("whole");
    const { counters, state } = await get<Guest>(bridge, "guests/board");
    expect({ malformed: counters.malformed, brokenQueues: counters.brokenQueues, state }).toEqual({
      ...{ malformed: 1, brokenQueues: 0, state: "attached" },
    });
  });

  test("reboot: close 4001, a new generation, endpoints there again", async () => {
    const { guest, bridge, client } = await board();
    await guest.reboot();
    expect((await client.closed).code).toBe(4001);
    expect(await get<Guest>(bridge, "guests/board")).toMatchObject({ state: "attached", generation: 2 });
    const next = await open(bridge, "board/echo");
    next.send("hello");
    expect(await next.text()).toBe("hello");
  });

  test("pause: nothing closes, messages wait; resume: they arrive", async () => {
    const { guest, bridge, client } = await board();
    await guest.pause();
    expect(await get<Guest>(bridge, "guests/board")).toMatchObject({ state: "suspended", generation: 1 });
    client.send("patience");
    await eventually("the message waits", async () => {
      const { endpoints } = await get<{ endpoints: Endpoint[] }>(bridge, "endpoints");
      return endpoints[0]?.counters.accepted === 1 ? true : undefined;
    });
    expect(client.received).toBe(0);
    await guest.resume();
    expect(await client.text()).toBe("patience");
  });

  test("announce and withdraw: an endpoint comes, and goes with 4002", async () => {
    const { guest, bridge } = await board();
    guest.announce(
      "late",
      service(
        () =>
          ({ reply }) =>
            reply("better than never"),
      ),
    );
    const late = await eventually("the endpoint", () => open(bridge, "board/late").catch(() => undefined));
    late.send("?");
    expect(await late.text()).toBe("better than never");
    guest.withdraw("late");
    expect((await late.closed).code).toBe(4002);
    expect(await names(bridge)).toEqual(["board/echo"]);
  });
});

describe("addresses and announcements", () => {
  test("an endpoint with agreed addresses, one that the host announces, and one that both do", async () => {
    const where = service(
      ({ name, address }) =>
        ({ reply }) =>
          reply(`${name} ${address}`),
    );
    const guest = new EmulatedGuest({
      services: {
        agreed: { service: where, ns: "none", address: 41 },
        down: { service: where, ns: "down" },
        up: { service: where, ns: "up", address: 2000 },
        both: { service: where, ns: "both", address: 2001 },
      },
      otherService: () => undefined,
    });
    const endpoints = [
      { name: "agreed", ns: "none" as const, address: 1040, peer: 41 },
      { name: "down", ns: "down" as const },
      { name: "up", ns: "up" as const },
    ];
    const bridge = await start(
      { guests: { board: { kind: "emulated", endpoints } } },
      { guests: { board: guest } },
    );
    const answers: string[] = [];
    for (const name of ["agreed", "down", "up", "both"]) {
      const client = await open(bridge, `board/${name}`);
      client.send("?");
      // The first message of a channel that the host announced is empty.
      answers.push(await eventually("an answer", async () => (await client.text()) || undefined));
    }
    expect(answers).toEqual(["agreed 41", "down 1024", "up 2000", "both 2001"]);
  });

  test("a service may reboot its own guest", async () => {
    const held: { guest?: EmulatedGuest } = {};
    const { guest, bridge } = await board({
      services: { echo, reset: service(() => () => held.guest?.reboot()) },
    });
    held.guest = guest;
    const client = await open(bridge, "board/reset");
    client.send("now");
    expect((await client.closed).code).toBe(4001);
    const next = await open(bridge, "board/echo");
    next.send("hello");
    expect(await next.text()).toBe("hello");
    expect(await get<Guest>(bridge, "guests/board")).toMatchObject({ state: "attached", generation: 2 });
  });
});

describe.skipIf(unsupported !== undefined)(
  titled("a guest of this process behind a socket of the bridge"),
  () => {
    test("attaches, answers, reboots and leaves", async () => {
      const path = join(testDirectory(), "vm.sock");
      const bridge = await start({ guests: { vm: { kind: "vhost-user", path } } });
      const guest = new EmulatedGuest({ services: { echo } });
      const connection = guest.connect(path);
      onTestFinished(() => connection.close());
      await connection.attached();
      const client = await eventually("echo", () => open(bridge, "vm/echo").catch(() => undefined));
      client.send("hello");
      expect(await client.text()).toBe("hello");
      await guest.reboot();
      expect((await client.closed).code).toBe(4001);
      expect(await get<Guest>(bridge, "guests/vm")).toMatchObject({ kind: "vhost-user", generation: 2 });
      connection.close();
      await eventually("the guest is gone", async () =>
        (await get<Guest>(bridge, "guests/vm")).state === "waiting" ? true : undefined,
      );
    });
  },
);
