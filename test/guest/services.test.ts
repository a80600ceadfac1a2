import { setImmediate as nextTurn } from "node:timers/promises";
import { afterEach, describe, expect, test, vi } from "vitest";
import type { ProfileName } from "../../guest/profiles.ts";
import type { ServiceContext } from "../../guest/service.ts";
import { sensor } from "../../guest/services/sensor.ts";
import type { Client, Host } from "./support.ts";
import { bootInProcess, turns, until } from "./support.ts";

const PROFILES: ProfileName[] = ["linux", "openamp", "rpmsg-lite"];

async function open(
  service: string,
  profile: ProfileName = "linux",
): Promise<{ host: Host; client: Client; close: () => void }> {
  const { host, link } = await bootInProcess(profile);
  return { host, client: host.open({ peer: host.addressOf(service) }), close: () => link.close() };
}

async function answerTo(client: Client, text: string | Uint8Array): Promise<string> {
  const before = client.got.length;
  client.send(text);
  await until(() => client.got.length > before);
  await turns();
  return client.texts.slice(before).join("");
}

afterEach(() => {
  vi.useRealTimers();
});

describe("echo", () => {
  test("answers each sender with its own, whatever the length", async () => {
    const { host, client } = await open("echo");
    const other = host.open({ peer: host.addressOf("echo") });
    const lengths = [0, 1, 495, 496];
    for (const length of lengths) {
      client.send(Buffer.alloc(length, "a"));
      other.send(Buffer.alloc(length, "b"));
    }
    await turns();
    expect(client.texts).toEqual(lengths.map((length) => "a".repeat(length)));
    expect(other.texts).toEqual(lengths.map((length) => "b".repeat(length)));
  });

  test.each(PROFILES)("5000 messages at once come back complete and in order (%s)", async (profile) => {
    const { client } = await open("echo", profile);
    for (let i = 0; i < 5000; i++) client.send(`${i}`);
    await until(() => client.got.length === 5000);
    expect(client.texts).toEqual(Array.from({ length: 5000 }, (_, i) => `${i}`));
    expect(client.undelivered).toEqual([]);
  });
});

describe("tty", () => {
  test.each([
    { typed: "\r", shown: "\r\ndemo# " },
    { typed: "whoami\r", shown: "whoami\r\nendpoint 1025\r\ndemo# " },
    { typed: "echo a  b\n", shown: "echo a  b\r\na b\r\ndemo# " },
    { typed: "uname\r\n", shown: "uname\r\nrpmsg-bridge emulated guest, profile linux\r\ndemo# " },
    {
      typed: "helq\u007fp\r",
      shown: "helq\b \bp\r\ncommands: help, echo TEXT, uptime, uname, whoami\r\ndemo# ",
    },
    { typed: "nonsense\u0003", shown: "nonsense^C\r\ndemo# " },
    { typed: "x\r", shown: "x\r\nx: command not found\r\ndemo# " },
  ])("$typed", async ({ typed, shown }) => {
    const { client } = await open("tty");
    expect(await answerTo(client, typed)).toBe(shown);
  });

  test("a line may come in pieces, and each sender has its own", async () => {
    const { host, client } = await open("tty");
    const other = host.open({ peer: host.addressOf("tty") });
    client.send("echo ");
    other.send("echo other\r");
    client.send("mine\r");
    await turns();
    expect(client.texts.join("")).toBe("echo mine\r\nmine\r\ndemo# ");
    expect(other.texts.join("")).toBe("echo other\r\nother\r\ndemo# ");
  });

  test("output longer than a message is cut at the MTU", async () => {
    const { client } = await open("tty");
    const shown = await answerTo(client, "help\r".repeat(20));
    expect(shown.match(/commands:/g)).toHaveLength(20);
    expect(Math.max(...client.got.map(({ bytes }) => bytes.length))).toBe(496);
  });
});

describe("sensor", () => {
  test("readings at the rate asked for, until stop", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "performance"] });
    const { client } = await open("sensor");
    client.send("start 20");
    await turns();
    for (let i = 0; i < 20; i++) {
      vi.advanceTimersByTime(50);
      await turns(2);
    }
    await turns();
    const readings = client.texts.map((text) => JSON.parse(text) as Record<string, number>);
    expect(readings.map(({ seq }) => seq)).toEqual(Array.from({ length: 21 }, (_, i) => i));
    expect(readings.at(-1)?.["t"]).toBeCloseTo(1, 5);
    expect(Object.keys(readings[0] ?? {})).toEqual(["seq", "t", "temperature", "pressure"]);
    client.send("stop");
    await turns();
    expect(vi.getTimerCount()).toBe(0);
  });

  test("start again changes the rate; without one it is 10 a second", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "performance"] });
    const { client } = await open("sensor");
    client.send("start 1000");
    await turns();
    client.send("start");
    await turns();
    expect(vi.getTimerCount()).toBe(1);
    client.got.length = 0;
    for (let i = 0; i < 10; i++) {
      vi.advanceTimersByTime(100);
      await turns(2);
    }
    expect(client.got).toHaveLength(10);
  });

  test.each(["", "start 0", "start 1001", "start x", "start 1 2", "stop 1", "begin", "x".repeat(200)])(
    "%j is answered by an error",
    async (command) => {
      const { client } = await open("sensor");
      expect(JSON.parse(await answerTo(client, command))).toHaveProperty("error");
    },
  );

  test("one listener more than it has room for takes the place of the oldest, which may have left", () => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
    const sent: number[] = [];
    const context: ServiceContext = {
      ...{ name: "sensor", address: 1026, peer: undefined, mtu: 496, guest: "linux" },
      send: (dst) => sent.push(dst) > 0,
      report: () => expect.unreachable(),
    };
    const service = sensor(context);
    const start = Buffer.from("start");
    for (let src = 1; src <= 257; src++) service.onMessage(src, start, 0, start.length);
    expect(vi.getTimerCount()).toBe(256);
    sent.length = 0;
    vi.advanceTimersByTime(100);
    expect(sent).toEqual(Array.from({ length: 256 }, (_, i) => i + 2));
    service.close?.();
    expect(vi.getTimerCount()).toBe(0);
  });

  test("the end of the guest ends its timers", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
    const { client, close } = await open("sensor");
    client.send("start");
    await turns();
    expect(vi.getTimerCount()).toBe(1);
    close();
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("source", () => {
  test.each(PROFILES)(
    "10,000 messages, complete and in order, while others have their turn (%s)",
    async (profile) => {
      const { client } = await open("source", profile);
      client.send("10000 16");
      let turnsOfOthers = 0;
      let most = 0;
      let seen = 0;
      while (client.got.length < 10_000) {
        await nextTurn();
        turnsOfOthers++;
        most = Math.max(most, client.got.length - seen);
        seen = client.got.length;
        if (turnsOfOthers > 50_000) expect.fail(`only ${seen} messages came`);
      }
      expect(turnsOfOthers).toBeGreaterThan(10);
      expect(most).toBeLessThanOrEqual(2048);
      await turns();
      expect(client.got).toHaveLength(10_000);
      for (const [i, { bytes }] of client.got.entries()) {
        expect(bytes.length).toBe(16);
        expect(bytes.readUInt32LE(0)).toBe(i);
      }
    },
  );

  test("bursts of two clients come one after another, each to its own", async () => {
    const { host, client } = await open("source");
    const other = host.open({ peer: host.addressOf("source") });
    client.send("300 1");
    other.send("300 496");
    await until(() => other.got.length === 300);
    expect(client.got.map(({ bytes }) => bytes[0])).toEqual(Array.from({ length: 300 }, (_, i) => i & 0xff));
    expect(other.got.every(({ bytes }, i) => bytes.length === 496 && bytes.readUInt32LE(0) === i)).toBe(true);
  });

  test.each(["", "1", "0 1", "1 0", "1 497", "10000001 1", "-1 1", "1 1 1", "x y"])(
    "%j is refused",
    async (text) => {
      const { client } = await open("source");
      expect(await answerTo(client, text)).toMatch(/^error: want/);
      expect(client.got).toHaveLength(1);
    },
  );
});

describe("sink", () => {
  test("counts messages and bytes; stat itself is not counted", async () => {
    const { client } = await open("sink");
    expect(JSON.parse(await answerTo(client, "stat"))).toEqual({ messages: 0, bytes: 0 });
    for (const text of ["", "12345", "stat?"]) client.send(text);
    expect(JSON.parse(await answerTo(client, "stat\n"))).toEqual({ messages: 3, bytes: 10 });
  });
});

test("the demo's services are these five, in this order", async () => {
  const { host } = await bootInProcess();
  expect(host.announced.map(({ name, address }) => `${name} ${address}`)).toEqual([
    "echo 1024",
    "tty 1025",
    "sensor 1026",
    "source 1027",
    "sink 1028",
  ]);
});
