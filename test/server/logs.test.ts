import { readFileSync } from "node:fs";
import { pino } from "pino";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { newTicket, newToken } from "../../server/access/credentials.ts";
import { BurstLog, LineRate } from "../../server/burst-log.ts";
import { Log } from "../../server/log.ts";
import type { LogEvent } from "../../server/log-events.ts";
import { logEvents } from "../../server/log-events.ts";
import { Tally } from "../../server/tally.ts";
import { Command } from "./cli-support.ts";
import type { LogLine } from "./support.ts";
import { Client, eventually, testBridge } from "./support.ts";

const TOKEN = newToken();
const TICKET = newTicket();
const levels = { debug: 20, info: 30, warn: 40, error: 50 };

/** Lines of a log of everything. */
function collect(level = "debug"): { log: Log; lines: LogLine[] } {
  const lines: LogLine[] = [];
  const sink = { write: (line: string) => lines.push(JSON.parse(line) as LogLine) };
  return { log: new Log(pino({ level, base: null }, sink)), lines };
}

test("docs/logs.md has all events, with their levels and fields, and no others", () => {
  const page = readFileSync(new URL("../../docs/logs.md", import.meta.url), "utf8");
  const rows = [
    ...page.matchAll(/^\| `([a-z-]+)`\s+\| (error|warn|info|debug)\s+\| (.*?)\s*\| (.*?)\s*\|$/gm),
  ];
  expect(rows.map((cells) => cells.slice(1))).toEqual(
    Object.entries(logEvents).map(([name, { level, text, fields, maybe = {} }]: [string, LogEvent]) => [
      name,
      level,
      text,
      [
        ...Object.entries(fields).map(([field, meaning]) => `\`${field}\`: ${meaning}`),
        ...Object.entries(maybe).map(([field, meaning]) => `\`${field}\`, perhaps: ${meaning}`),
      ].join("<br>"),
    ]),
  );
});

describe("a line", () => {
  test("has the level of its event, its name, its guest and its fields", () => {
    const { log, lines } = collect();
    log.forGuest("vm").write("guest-state", { state: "attached", generation: 3 });
    log.write("upgrade-refused", { code: "not-found", peer: "::1", path: "/ws/x" });
    expect(lines).toEqual([
      {
        level: 30,
        time: expect.any(Number),
        guest: "vm",
        event: "guest-state",
        state: "attached",
        generation: 3,
      },
      {
        ...{ level: 20, time: expect.any(Number), event: "upgrade-refused", code: "not-found" },
        ...{ peer: "::1", path: "/ws/x" },
      },
    ]);
  });

  test.each([
    ["line ends", 'a\r\n{"level":50}', 'a\\u{d}\\u{a}{"level":50}'],
    ["escapes of terminals", "\u001b[2J\u009b1m\u0007", "\\u{1b}[2J\\u{9b}1m\\u{7}"],
    ["reading direction", "\u202egnp.exe\u2066", "\\u{202e}gnp.exe\\u{2066}"],
    ["what is not seen", "a\u200bb\ufeffc\u{e0041}", "a\\u{200b}b\\u{feff}c\\u{e0041}"],
    ["other line ends", "a\u2028b\u2029c\u0085d", "a\\u{2028}b\\u{2029}c\\u{85}d"],
    ["half characters", "a\ud800b", "a\\u{d800}b"],
    ["quotes and markup", "\"'`<script>\\", "\"'`<script>\\"],
    ["letters of all kinds", "grüß 日本 🦀", "grüß 日本 🦀"],
    ["credentials", `/${TOKEN}/${TICKET}x?${TOKEN}`, "/rpmsg_.../rpmsgt_...x?rpmsg_..."],
    ["a credential at the end of what is kept", `${"x".repeat(500)}${TOKEN}`, `${"x".repeat(500)}rpmsg_...`],
    ["what is shorter than one", "rpmsg_name rpmsgt_name", "rpmsg_name rpmsgt_name"],
    ["512 characters", "x".repeat(512), "x".repeat(512)],
    ["one more", "x".repeat(513), `${"x".repeat(512)}...`],
  ])("with text of others is legible and bounded: %s", (_what, text, written) => {
    const { log, lines } = collect();
    log.write("guest-service", { code: "c", reason: text });
    expect(lines[0]?.["reason"]).toBe(written);
  });
});

describe("bursts", () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  test("of one event and code are two lines, whatever else is in them", () => {
    const { log, lines } = collect();
    const burst = new BurstLog(log, new LineRate({ perSecond: 1000, burst: 1000 }, new Tally()));
    for (let i = 0; i < 100_000; i++) burst.write("guest-service", { code: "threw", reason: `reason ${i}` });
    burst.write("guest-service", { code: "address", reason: "another code" });
    vi.advanceTimersByTime(10_000);
    expect(lines.map(({ code, reason, repeated }) => [code, reason, repeated])).toEqual([
      ["threw", "reason 0", undefined],
      ["address", "another code", undefined],
      ["threw", "reason 0", 99_999],
    ]);
    burst.write("guest-service", { code: "threw", reason: "later" });
    expect(lines.at(-1)).toMatchObject({ reason: "later" });
  });

  test("of ever other mistakes are bounded, too", () => {
    const { log, lines } = collect();
    const burst = new BurstLog(log, new LineRate({ perSecond: 1000, burst: 1000 }, new Tally()));
    for (let i = 0; i < 100_000; i++) burst.write("internal-error", { reason: `reason ${i}`, stack: "" });
    vi.advanceTimersByTime(10_000);
    expect(lines.length).toBe(258);
    expect(lines.at(-1)).toMatchObject({ repeated: 100_000 - 257 });
  });
});

test("clients are logged at debug, and at info where they are closed for what they did", async () => {
  const lines: LogLine[] = [];
  const running = await testBridge({ logLevel: "debug" }, (line) => lines.push(line));
  await running.endpoint("echo");
  const good = await running.connect("/ws/v1/demo/echo?slow=pause");
  await good.close();
  const bad = await running.connect("/ws/v1/demo/echo", ["rpmsg.v1.json"]);
  bad.send("binary");
  await bad.closed;
  await running.refusal("/ws/v1/demo/no%0a?slow=pause", { protocols: ["secret"] });
  const ofClients = await eventually("all is logged", () => {
    const found = lines.filter(({ event }) => /^client|^upgrade/.test(String(event)));
    return found.length === 5 ? found : undefined;
  });
  const about = (protocol: string) => ({ protocol, peer: "127.0.0.1", path: "/ws/v1/demo/echo" });
  expect(ofClients.map(({ time: _time, ...line }) => line)).toEqual([
    { level: levels.debug, event: "client-connected", ...about("raw") },
    { level: levels.debug, event: "client-gone", cause: "client", ...about("raw") },
    { level: levels.debug, event: "client-connected", ...about("json") },
    { level: levels.info, event: "client-closed", code: "unsupported", ...about("json") },
    {
      ...{ level: levels.debug, event: "upgrade-refused", code: "bad-request", peer: "127.0.0.1" },
      ...{ path: "/ws/v1/demo/no%0a" },
    },
  ]);
  expect(JSON.stringify(lines)).not.toContain("secret");
});

test("standard error of `serve` is one JSON object a line, with events that the page has", async () => {
  const bridge = Command.start(["serve", "--listen", "127.0.0.1:0"], {
    environment: { RPMSG_BRIDGE_LOG_LEVEL: "debug" },
  });
  const url = await bridge.url();
  const client = await Client.open(`${url.replace("http", "ws")}/ws/v1/demo/echo`);
  await client.close();
  const { stderr } = await bridge.kill("SIGTERM");
  const events = stderr
    .trimEnd()
    .split("\n")
    .map((line) => (JSON.parse(line) as { event: string }).event);
  for (const event of events) expect(Object.keys(logEvents)).toContain(event);
  expect(events).toEqual(expect.arrayContaining(["guest-state", "client-connected", "stopping", "stopped"]));
});
