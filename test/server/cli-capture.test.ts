import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import type { Endpoint } from "../../schemas/index.ts";
import type { ReadMessage } from "../../server/capture/message.ts";
import { readMessage } from "../../server/capture/message.ts";
import { interfaceBlock, packetBlock, sectionBlock, statisticsBlock } from "../../server/capture/pcapng.ts";
import type { CapturedItem } from "../../server/capture/pcapng-reader.ts";
import { PcapngReader } from "../../server/capture/pcapng-reader.ts";
import { dump } from "../../server/cli/dump.ts";
import { titled, unsupported } from "../rpmsg/posix/support.ts";
import { Captured } from "./capture/support.ts";
import { Command } from "./cli-support.ts";
import { readExposition } from "./exposition.ts";
import type { Client, RunningBridge } from "./support.ts";
import { eventually, testBridge, testDirectory } from "./support.ts";

/** Starts of processes take long on a busy machine. */
const SLOW = 60_000;

/** A file that is whole. */
function itemsOf(file: string | Buffer): CapturedItem[] {
  const reader = new PcapngReader();
  const items = reader.read(typeof file === "string" ? readFileSync(file) : file);
  reader.end();
  return items;
}

function messagesOf(items: readonly CapturedItem[]): ReadMessage[] {
  return items.flatMap((item) => (item.kind === "message" ? (readMessage(item.message) ?? []) : []));
}

/** A bridge of the test, and what starts a capture of it and waits until it runs. */
async function stage() {
  const running = await testBridge();
  const env = { environment: { RPMSG_BRIDGE_URL: running.url } };
  const start = async (...args: string[]): Promise<Command> => {
    const { size } = running.bridge.captures;
    const command = Command.start(args, env);
    await eventually("it captures", () => (running.bridge.captures.size > size ? true : undefined));
    return command;
  };
  return { running, env, start, directory: testDirectory() };
}

/** So many echoes, there and back. */
async function traffic(running: Awaited<ReturnType<typeof testBridge>>, count: number, text = "hello") {
  const client = await running.connect("/ws/v1/demo/echo");
  for (let i = 0; i < count; i++) {
    client.send(text);
    await client.next();
  }
  await client.close();
}

type Counted = Pick<
  Endpoint["counters"],
  "messagesToGuest" | "bytesToGuest" | "messagesFromGuest" | "bytesFromGuest"
>;

/** What the bridge has counted, by guest and by endpoint. */
async function counted({ endpoints, guest }: RunningBridge): Promise<Record<string, Counted>> {
  const guests = await Promise.all(["left", "right"].map(guest));
  const all = [
    ...guests.map(({ name, counters }) => [name, counters] as const),
    ...(await endpoints()).map((each) => [`${each.guest}/${each.name}`, each.counters] as const),
  ];
  return Object.fromEntries(
    all.map(([name, { messagesToGuest, bytesToGuest, messagesFromGuest, bytesFromGuest }]) => [
      name,
      { messagesToGuest, bytesToGuest, messagesFromGuest, bytesFromGuest },
    ]),
  );
}

/** The same of guests, by the metrics. */
async function measured({ url }: RunningBridge): Promise<Record<string, Counted>> {
  const metrics = readExposition(await (await fetch(`${url}/metrics`)).text());
  const of = (name: string, guest: string): number =>
    metrics.get(`rpmsg_guest_${name}_total`)?.series.find(({ labels }) => labels["guest"] === guest)?.value ??
    -1;
  return Object.fromEntries(
    ["left", "right"].map((guest) => [
      guest,
      {
        messagesToGuest: of("messages_to_guest", guest),
        bytesToGuest: of("bytes_to_guest", guest),
        messagesFromGuest: of("messages_from_guest", guest),
        bytesFromGuest: of("bytes_from_guest", guest),
      },
    ]),
  );
}

function difference(after: Counted | undefined, before: Counted | undefined): Counted {
  const of = (key: keyof Counted): number => (after?.[key] ?? Number.NaN) - (before?.[key] ?? Number.NaN);
  return {
    messagesToGuest: of("messagesToGuest"),
    bytesToGuest: of("bytesToGuest"),
    messagesFromGuest: of("messagesFromGuest"),
    bytesFromGuest: of("bytesFromGuest"),
  };
}

/** The same of a capture. */
function sums(messages: readonly ReadMessage[]): Counted {
  const to = messages.filter(({ toGuest }) => toGuest);
  const from = messages.filter(({ toGuest }) => !toGuest);
  const bytes = (of: readonly ReadMessage[]) => of.reduce((sum, { payload }) => sum + payload.length, 0);
  return {
    messagesToGuest: to.length,
    bytesToGuest: bytes(to),
    messagesFromGuest: from.length,
    bytesFromGuest: bytes(from),
  };
}

describe("rpmsg-bridge capture", { timeout: SLOW }, () => {
  test("writes messages until it has enough, then what was counted", async () => {
    const { running, start, directory } = await stage();
    const file = join(directory, "a.pcapng");
    const command = await start("capture", "-w", file, "--endpoint", "demo/echo", "--count", "6");
    await traffic(running, 3);
    const { code, stderr } = await command.finished;
    expect([code, stderr]).toEqual([0, "6 messages captured, 0 left out\n"]);
    const items = itemsOf(file);
    expect(messagesOf(items).map(({ endpoint, toGuest }) => [endpoint, toGuest])).toEqual(
      [1, 2, 3].flatMap(() => [
        ["echo", true],
        ["echo", false],
      ]),
    );
    expect(items.at(-1)).toMatchObject({ kind: "statistics", received: 6, dropped: 0 });
  });

  test("of two guests that both talk it has what was asked for, as much as the bridge counts", async () => {
    const running = await testBridge({ guests: { left: { kind: "emulated" }, right: { kind: "emulated" } } });
    const env = { environment: { RPMSG_BRIDGE_URL: running.url } };
    for (const guest of ["left", "right"]) await running.endpoint("tty", (each) => each.guest === guest);
    const directory = testDirectory();
    // What was announced before nobody captured.
    const before = await counted(running);
    const asked = [
      ["--guest", "left"],
      ["--guest", "right"],
      ["--endpoint", "right/echo"],
    ] as const;
    const captures = asked.map((args, i) => {
      const file = join(directory, `${i}.pcapng`);
      return { file, shown: args[1], command: Command.start(["capture", "-w", file, ...args], env) };
    });
    await eventually("all capture", () => (running.bridge.captures.size === asked.length ? true : undefined));

    const open = (path: string) => running.connect(`/ws/v1/${path}`);
    const clients = await Promise.all(["left/echo", "right/echo", "right/source"].map(open));
    const [left, right, source] = clients as [Client, Client, Client];
    for (let i = 0; i < 5; i++) {
      left.send(`left ${i}`);
      right.send(`right ${i}`);
      await Promise.all([left.next(), right.next()]);
    }
    source.send("4 8");
    await source.take(4);
    right.send("the last of right");
    left.send("the last of left");
    await Promise.all([left.next(), right.next()]);
    const after = await counted(running);
    expect(await measured(running)).toEqual(
      Object.fromEntries(Object.entries(after).filter(([name]) => !name.includes("/"))),
    );

    for (const { file, shown, command } of captures) {
      const last = `the last of ${shown.split("/")[0]}`;
      // There and back.
      const complete = () => (readFileSync(file, "latin1").split(last).length === 3 ? true : undefined);
      await eventually(`${shown} is written`, complete);
      expect((await command.kill("SIGINT")).code).toBe(0);
      const messages = messagesOf(itemsOf(file));
      const whose = messages.map(({ guest, endpoint }) =>
        shown.includes("/") ? `${guest}/${endpoint}` : guest,
      );
      expect(new Set(whose), shown).toEqual(new Set([shown]));
      expect(sums(messages), shown).toEqual(difference(after[shown], before[shown]));
    }
  });

  test.each(["SIGINT", "SIGTERM"] as const)("%s ends it with 0 and a whole file", async (signal) => {
    const { running, start, directory } = await stage();
    const file = join(directory, "a.pcapng");
    const command = await start("capture", "--write", file, "--json");
    await traffic(running, 1);
    await eventually("it is written", () => (readFileSync(file).includes("hello") ? true : undefined));
    const { code, stdout } = await command.kill(signal);
    expect([code, JSON.parse(stdout)]).toEqual([
      0,
      { messages: messagesOf(itemsOf(file)).length, dropped: 0, gaps: 0 },
    ]);
  });

  test("the end of the bridge is told, and the file whole", async () => {
    const { running, start, directory } = await stage();
    const file = join(directory, "a.pcapng");
    const command = await start("capture", "-w", file);
    await traffic(running, 1);
    await running.bridge.drain();
    await running.close();
    const { code, stderr } = await command.finished;
    expect(code).toBe(1);
    expect(stderr).toContain("has ended");
    expect(messagesOf(itemsOf(file))).toHaveLength(2);
  });

  test("to standard output, for a pipe", async () => {
    const { running, start } = await stage();
    const command = await start("capture", "-w", "-", "--count", "2");
    await traffic(running, 1);
    expect(messagesOf(itemsOf(await command.bytes()))).toHaveLength(2);
  });

  test("files rotate: each can be read by itself, and the last ones stay", async () => {
    const { running, start, directory } = await stage();
    const file = join(directory, "a.b.pcapng");
    const rotate = ["--file-size", "2000", "--files", "2"];
    const command = await start("capture", "-w", file, ...rotate, "--count", "40");
    await traffic(running, 20, "x".repeat(400));
    expect((await command.finished).code).toBe(0);
    const names = readdirSync(directory).toSorted();
    expect(names).toHaveLength(2);
    for (const name of names) expect(name).toMatch(/^a\.b-000\d\d\.pcapng$/);
    const files = names.map((name) => itemsOf(join(directory, name)));
    for (const items of files) {
      expect(items.slice(0, 2).map(({ kind }) => kind)).toEqual(["section", "interface"]);
      expect(messagesOf(items).length).toBeGreaterThan(0);
    }
    expect(files.at(-1)?.at(-1)).toMatchObject({ received: 40, dropped: 0 });
  });

  test("a full disk ends it with 1, or leaves messages out and counts them", async () => {
    const { running, start } = await stage();
    const stop = await start("capture", "-w", "/dev/full", "--json");
    const drop = await start("capture", "-w", "/dev/full", "--on-full", "drop", "--json");
    await traffic(running, 5);
    const stopped = await stop.finished;
    expect(stopped.code).toBe(1);
    expect(stopped.stderr).toContain("the disk is full (ENOSPC): /dev/full is complete up to there");
    expect(JSON.parse(stopped.stdout)).toEqual({ messages: 0, dropped: 1, gaps: 0 });
    await drop.says("the disk is full (ENOSPC): messages are left out until there is room");
    // The bridge and its clients know nothing of it.
    await traffic(running, 5);
    const { code, stdout } = await drop.kill("SIGINT");
    expect(code).toBe(0);
    const { messages, dropped } = JSON.parse(stdout) as { messages: number; dropped: number };
    expect(messages).toBe(0);
    expect(dropped).toBeGreaterThan(0);
  });

  test("goes on when there is room again; the file says what it has not", async () => {
    const { running, start, directory } = await stage();
    const file = join(directory, "a.pcapng");
    const command = await start("capture", "-w", file, "--on-full", "drop", "--json");
    const allow = (bytes: string) => {
      execFileSync("prlimit", ["--pid", String(command.pid), `--fsize=${bytes}:`]);
    };
    allow("3000");
    const client = await running.connect("/ws/v1/demo/echo");
    const say = async (text: string) => {
      client.send("x".repeat(200));
      await client.next();
      return command.stderr.includes(text) ? true : undefined;
    };
    await eventually("it is full", () => say("the disk is full (EFBIG)"));
    allow("unlimited");
    await eventually("it goes on", () => say("there is room again"));
    const { code, stdout } = await command.kill("SIGINT");
    expect(code).toBe(0);
    const { messages, dropped } = JSON.parse(stdout) as { messages: number; dropped: number };
    expect(dropped).toBeGreaterThan(0);
    const items = itemsOf(file);
    expect(messagesOf(items)).toHaveLength(messages);
    expect(items.at(-1)).toMatchObject({ kind: "statistics", received: messages + dropped, dropped });
  });

  test.each([
    { args: ["-w", "/nowhere/a.pcapng"], code: 1, says: "cannot write /nowhere/a.pcapng: ENOENT" },
    { args: ["-w", "a", "--files", "2"], code: 2, says: "--files needs --file-size" },
    { args: ["-w", "a", "--count", "none"], code: 2, says: "want a whole number" },
    { args: [], code: 2, says: "--write <file>" },
  ])("$args: $code", async ({ args, code, says }) => {
    const { env } = await stage();
    const finished = await Command.run(["capture", ...args], env);
    expect([finished.code, finished.stderr.includes(says)]).toEqual([code, true]);
    expect(existsSync("a")).toBe(false);
  });

  test("where the bridge refuses, a file that was there is what it was, and another one is not made", async () => {
    const { env, directory } = await stage();
    const [old, none] = [join(directory, "old"), join(directory, "none")];
    writeFileSync(old, "a capture of yesterday");
    for (const file of [old, none]) {
      const { code, stderr } = await Command.run(["capture", "-w", file, "--guest", "nobody"], env);
      expect(code).toBe(1);
      expect(stderr).toMatch(/^rpmsg-bridge: there is no guest "nobody" \(guest-unknown\).*\n$/);
    }
    expect(readFileSync(old, "utf8")).toBe("a capture of yesterday");
    expect(existsSync(none)).toBe(false);
  });
});

describe("rpmsg-bridge dump", { timeout: SLOW }, () => {
  test("prints messages as they come", async () => {
    const { running, start } = await stage();
    const command = await start("dump", "--endpoint", "demo/echo", "--count", "2");
    await traffic(running, 1, "0123456789 hello");
    const { address } = await running.endpoint("echo");
    const { code, stdout } = await command.finished;
    expect(code).toBe(0);
    const line = "  0000  30 31 32 33 34 35 36 37  38 39 20 68 65 6c 6c 6f  |0123456789 hello|";
    const lines = stdout.split("\n");
    expect([lines[1], lines[3]]).toEqual([line, line]);
    expect(lines[0]).toMatch(
      new RegExp(`^\\d\\d:\\d\\d:\\d\\d\\.\\d{6} {2}demo/echo {2}to guest {2}\\d+ > ${address} {2}16 bytes$`),
    );
    expect(lines[2]).toMatch(/ {2}from guest {2}/);
  });

  test("of a file, as JSON", async () => {
    const { running, start, env, directory } = await stage();
    const file = join(directory, "a.pcapng");
    const capture = await start("capture", "-w", file, "--count", "4");
    running.bridge.announce("demo", "svc", 3000);
    await traffic(running, 1, "hi");
    await capture.finished;
    const { stdout } = await Command.run(["dump", "--read", file, "--json"], env);
    const lines = stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(lines).toHaveLength(4);
    expect(lines[0]).toMatchObject({
      ...{ guest: "demo", endpoint: null, to: "guest", src: 53, dst: 53 },
      nameService: { name: "svc", address: 3000, created: true },
    });
    expect(lines.filter(({ data }) => data === "6869")).toMatchObject([
      { endpoint: "echo", to: "guest" },
      { endpoint: "echo", to: "host" },
    ]);
    const only = await Command.run(["dump", "--read", file, "--json", "--endpoint", "demo/echo"], env);
    expect(only.stdout.trim().split("\n")).toHaveLength(2);
  });

  test("of a file, what is asked for as of a bridge", async () => {
    const { env, directory } = await stage();
    const file = join(directory, "a.pcapng");
    const interfaces = [
      interfaceBlock("demo", "guest demo: name service, and what is for no endpoint"),
      interfaceBlock("demo/echo", "endpoint of the guest, address 1024"),
      interfaceBlock("demo/echo", "endpoint of the guest, address 1025"),
    ];
    const message = (id: number, dst: number, payload: Buffer): Buffer => {
      const bytes = Buffer.concat([Buffer.alloc(16), payload]);
      bytes.writeUInt32LE(dst, 4);
      bytes.writeUInt16LE(payload.length, 12);
      const facts = { interface: id, time: 0n, toGuest: true, originalLength: bytes.length, comments: [] };
      return packetBlock(facts, bytes, bytes.length);
    };
    const names = ["echo", "other"].map((name) => message(0, 53, Buffer.from(name.padEnd(40, "\0"))));
    const messages = [1, 2].map((id) => message(id, 1023 + id, Buffer.from([id])));
    const counts = [1, 2].map((id) => statisticsBlock(id, { received: 4, dropped: 3 }, 0n, 0n));
    writeFileSync(
      file,
      Buffer.concat([sectionBlock("", ""), ...interfaces, ...names, ...messages, ...counts]),
    );
    const dumped = (...args: string[]) => Command.run(["dump", "--read", file, "--json", ...args], env);
    const found = async (endpoint: string) => {
      const { code, stdout, stderr } = await dumped("--endpoint", endpoint);
      const lines = stdout.split("\n").filter((line) => line !== "");
      expect([code, stderr]).toEqual([0, "3 messages of demo/echo left out: read faster\n".repeat(2)]);
      return lines.map((line) => (JSON.parse(line) as { dst: number }).dst);
    };
    expect(await found("demo/echo")).toEqual([53, 1024, 1025]);
    expect(await found("demo/echo@1025")).toEqual([1025]);
    expect(await found("demo/echo@0x400")).toEqual([1024]);
    expect(await found("other/echo")).toEqual([]);
    for (const [args, says] of [
      [["--endpoint", "demo/~3"], "no ids"],
      [["--endpoint", "demo/echo", "--guest", "other"], "--guest other has no endpoint demo/echo"],
    ] as const) {
      const { code, stderr } = await dumped(...args);
      expect([code, stderr.includes(says)]).toEqual([2, true]);
    }
  });

  test("a mistake of its own is no end of the bridge", async () => {
    const { running } = await stage();
    const log = vi.spyOn(console, "log").mockImplementation(() => {
      throw new TypeError("a mistake");
    });
    onTestFinished(() => log.mockRestore());
    const dumped = expect(dump({ url: running.url })).rejects.toThrow(TypeError);
    await eventually("it captures", () => (running.bridge.captures.size > 0 ? true : undefined));
    await traffic(running, 1);
    await dumped;
  });

  test("what is no capture is told", async () => {
    const { env, directory } = await stage();
    const file = join(directory, "text");
    writeFileSync(file, "hello, I am a text");
    const { code, stderr } = await Command.run(["dump", "--read", file], env);
    expect([code, stderr]).toEqual([1, `rpmsg-bridge: cannot read ${file}: it is no pcapng\n`]);
  });
});

/**
 * A capture: what clients sent to echo and sink, and what the guest sent from there and to `log`.
 * @param step nanoseconds between two messages
 */
function example(directory: string, guest = "old", step = 5_000_000n): string {
  const file = join(directory, `${guest}.pcapng`);
  const interfaces = [
    interfaceBlock(`${guest}/echo`, "endpoint of the guest, address 1024"),
    interfaceBlock(`${guest}/sink`, "endpoint of the guest, address 1030"),
    interfaceBlock(`${guest}/log`, "endpoint of the host, address 2000"),
  ];
  let time = 1_700_000_000_000_000_000n;
  const message = (id: number, toGuest: boolean, src: number, dst: number, text: string): Buffer => {
    const bytes = Buffer.alloc(16 + text.length);
    bytes.writeUInt32LE(src, 0);
    bytes.writeUInt32LE(dst, 4);
    bytes.writeUInt16LE(text.length, 12);
    bytes.write(text, 16);
    time += step;
    const facts = { interface: id, time, toGuest, originalLength: bytes.length, comments: [] };
    return packetBlock(facts, bytes, bytes.length);
  };
  const messages = [
    message(0, true, 1024, 1024, "one"),
    message(0, false, 1024, 1024, "one"),
    message(2, false, 1031, 2000, ""),
    message(2, false, 1031, 2000, "booted"),
    message(0, true, 1024, 1024, "two"),
    message(1, true, 1025, 1030, "go"),
    message(1, false, 1030, 1025, "first"),
    message(1, false, 1030, 1025, "second"),
  ];
  writeFileSync(file, Buffer.concat([sectionBlock("", ""), ...interfaces, ...messages]));
  return file;
}

describe("rpmsg-bridge replay", { timeout: SLOW }, () => {
  test.each([[["--fast"]], [[]]])("sends what clients had sent %j", async (fast: string[]) => {
    const { running, env, directory } = await stage();
    const captured = await Captured.start(running.url);
    const args = ["replay", example(directory), "--to", "demo", "--json", ...fast];
    const { code, stdout } = await Command.run(args, env);
    const { milliseconds, ...result } = JSON.parse(stdout) as { milliseconds: number };
    expect([code, result]).toEqual([0, { sent: 3, endpoints: 2 }]);
    // From the first to the last one of the capture.
    if (fast.length === 0) expect(milliseconds).toBeGreaterThanOrEqual(25);
    await captured.until(
      "all are there",
      () => captured.messages.filter(({ toGuest }) => toGuest).length === 3,
    );
    // Each endpoint has a connection of its own: which of them is read first nobody says.
    const sent = captured.messages
      .filter(({ toGuest }) => toGuest)
      .toSorted((a, b) => (a.endpoint ?? "").localeCompare(b.endpoint ?? ""));
    expect(sent.map(({ endpoint, payload }) => `${endpoint} ${payload.toString()}`)).toEqual([
      ...["echo one", "echo two", "sink go"],
    ]);
  });

  test("of several guests the one that is named, and to no endpoint that is not there", async () => {
    const { env, directory } = await stage();
    const file = join(directory, "both.pcapng");
    writeFileSync(file, Buffer.concat(["old", "new"].map((name) => readFileSync(example(directory, name)))));
    const both = await Command.run(["replay", file, "--to", "demo"], env);
    expect([both.code, both.stderr]).toEqual([
      ...[1, `rpmsg-bridge: ${file}: it has several guests: old, new (say which with --from)\n`],
    ]);
    const one = await Command.run(["replay", file, "--to", "demo", "--from", "new", "--fast"], env);
    expect(one.stdout).toBe("3 messages sent to 2 endpoints of demo\n");
    const none = await Command.run(["replay", file, "--to", "demo", "--from", "other"], env);
    expect(none.stderr).toContain('it has no messages of guest "other"');
    const nowhere = await Command.run(["replay", file, "--to", "nobody", "--from", "new"], env);
    expect(nowhere.stderr).toContain("guest-unknown");
    const sunk = join(directory, "sunk.pcapng");
    writeFileSync(sunk, readFileSync(file, "latin1").replaceAll("/sink", "/sunk"), "latin1");
    const missing = await Command.run(["replay", sunk, "--to", "demo", "--from", "new"], env);
    expect(missing.stderr).toContain('guest "demo" has no endpoint "sunk" (endpoint-unknown)');
    for (const args of [[], ["--to", "demo", "--socket", "/tmp/x"]]) {
      expect((await Command.run(["replay", file, ...args], env)).code).toBe(2);
    }
  });

  test("waits longer than a timer can", async () => {
    const { running, env, directory } = await stage();
    const file = example(directory, "old", 30n * 86_400n * 1_000_000_000n);
    const command = Command.start(["replay", file, "--to", "demo"], env);
    await running.endpoint("echo", ({ counters }) => counters.messagesToGuest === 1);
    const timers = vi.spyOn(globalThis, "setTimeout");
    onTestFinished(() => timers.mockRestore());
    const days = () => timers.mock.calls.flatMap(([, wait = 0]) => (wait > 86_400_000 ? [wait] : []));
    const emulated = await testBridge({ guests: { old: { kind: "emulated", path: file } } });
    const client = await emulated.connect("/ws/v1/old/echo");
    client.send("what?");
    await eventually("it waits", () => days()[0]);
    expect(new Set(days())).toEqual(new Set([2 ** 31 - 1]));
    // Node says so of a timer that is too long, and takes it for none.
    expect((await command.kill("SIGKILL")).stderr).toBe("");
  });

  test("names of a file do not steer the terminal", async () => {
    const { env, directory } = await stage();
    const file = join(directory, "both.pcapng");
    const files = ["old", "new\u001b[31m\u009d\u202e"].map((name) => readFileSync(example(directory, name)));
    writeFileSync(file, Buffer.concat(files));
    const both = await Command.run(["replay", file, "--to", "demo"], env);
    const name = "new\u{fffd}[31m\u{fffd}\u{fffd}";
    expect(both.stderr).toBe(
      `rpmsg-bridge: ${file}: it has several guests: old, ${name} (say which with --from)\n`,
    );
    const served = await Command.run(["serve", "--guest", `demo=emulated:${file}`]);
    expect([served.code, served.stderr]).toEqual([
      ...[2, `rpmsg-bridge: configuration: guests.demo.path: ${file}: it has several guests: old, ${name}\n`],
    ]);
  });

  test("an emulated guest of the bridge plays the file", async () => {
    const path = example(testDirectory());
    const running = await testBridge({
      guests: { demo: { kind: "emulated", path, endpoints: [{ name: "log" }] } },
    });
    await expectPlayed(running, "demo");
  });

  test("a file that is none is a mistake of the configuration", async () => {
    const path = join(testDirectory(), "a.pcapng");
    writeFileSync(path, "nothing");
    const { code, stderr } = await Command.run(["serve", "--guest", `demo=emulated:${path}`]);
    expect([code, stderr]).toEqual([
      ...[2, `rpmsg-bridge: configuration: guests.demo.path: ${path}: it is no pcapng\n`],
    ]);
  });

  test.skipIf(unsupported !== undefined)(titled("a guest behind a socket does"), async () => {
    const directory = testDirectory();
    const path = join(directory, "vm.sock");
    const running = await testBridge({
      guests: { vm: { kind: "vhost-user", path, endpoints: [{ name: "log" }] } },
    });
    const command = Command.start(["replay", example(directory), "--socket", path, "--fast"]);
    expect(JSON.parse(await command.line())).toEqual({ event: "attached", socket: path });
    await expectPlayed(running, "vm");
    const played = [await command.line(), await command.line(), await command.line()].toSorted();
    expect(played.map((line) => JSON.parse(line) as unknown)).toEqual([
      { event: "played", endpoint: "echo", messages: 1 },
      { event: "played", endpoint: "log", messages: 1 },
      { event: "played", endpoint: "sink", messages: 2 },
    ]);
    expect((await command.kill("SIGTERM")).code).toBe(0);
  });
});

/** The guest of `example` says what it said. */
async function expectPlayed(running: Awaited<ReturnType<typeof testBridge>>, guest: string): Promise<void> {
  const sink = await running.endpoint("sink");
  expect(sink).toMatchObject({ guest, address: 1030, origin: "guest" });
  // Where nobody listened, it was said all the same.
  await running.endpoint("log", ({ counters }) => counters.bytesFromGuest === "booted".length);
  for (const [name, asked, said] of [
    ["sink", "go", ["first", "second"]],
    ["echo", "what?", ["one"]],
  ] as const) {
    const client = await running.connect(`/ws/v1/${guest}/${name}`);
    client.send(asked);
    for (const each of said) expect(await client.text()).toBe(each);
  }
}
