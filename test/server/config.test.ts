import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { Config } from "../../schemas/index.ts";
import type { ServeFlags } from "../../server/config/load-config.ts";
import { loadConfig } from "../../server/config/load-config.ts";
import { configKeyOf, testDirectory } from "./support.ts";

function file(text: string): string {
  const path = join(testDirectory(), "bridge.yaml");
  writeFileSync(path, text);
  return path;
}

/** The configuration with this file. */
function load(text: string, flags: ServeFlags = {}, environment: NodeJS.ProcessEnv = {}): Promise<Config> {
  return loadConfig({ ...flags, config: file(text) }, environment);
}

test("with nothing given there is the guest demo on 127.0.0.1:8080, and every default", async () => {
  const config = await loadConfig({}, {});
  expect(config).toEqual({
    listen: "127.0.0.1:8080",
    hosts: [],
    origins: [],
    trustedProxies: [],
    logLevel: "info",
    auth: "tokens",
    tokens: [],
    readOnly: false,
    guests: { demo: { kind: "emulated", endpoints: [] } },
    limits: {
      slowReaderBytes: 1_048_576,
      sendTimeout: 15_000,
      sendQueueBytes: 65_536,
      pingInterval: 25_000,
      pongTimeout: 8000,
      drainTimeout: 7000,
      handoverTimeout: 5000,
      guestAnnouncements: 1024,
      pauseTimeout: 2000,
      sessionTimeout: 10_000,
      sessionBytes: 1_048_576,
      subscriptions: 1024,
      declaredEndpoints: 1024,
      announcementRate: { perSecond: 1000, burst: 4096 },
      connections: 16_384,
      connectionsPerAddress: 256,
      connectionsPerToken: 256,
      connectRate: { perSecond: 20, burst: 200 },
      requestRate: { perSecond: 50, burst: 500 },
      messageRate: { perSecond: 10_000, burst: 20_000 },
      limitLocal: false,
      eventStreams: 1024,
      captures: 16,
      captureBytes: 4_194_304,
      payloadBytes: 65_535,
      fragments: 16,
      bufferedChunks: 64,
      pendingPongs: 60,
      bodyBytes: 65_536,
      headersTimeout: 10_000,
      requestTimeout: 30_000,
      responseTimeout: 30_000,
      closeTimeout: 5000,
      waitingSessions: 1024,
      clientBytes: 268_435_456,
      guestBytes: 268_435_456,
      metricEndpoints: 1000,
      logRate: { perSecond: 10, burst: 100 },
    },
  });
  expect(await load("")).toEqual(config);
  expect(await load("# nothing\n")).toEqual(config);
  expect(await load("guests: {}\nlimits: {}\n")).toEqual(config);
  expect(await loadConfig({ guest: [], announce: [] }, {})).toEqual(config);
});

test("the example file is right, and the limits that it shows are the defaults", async () => {
  const example = readFileSync(new URL("../../rpmsg-bridge.example.yaml", import.meta.url), "utf8");
  const { guests } = await load(example);
  expect(Object.keys(guests).length).toBeGreaterThan(0);
  const [, limits = ""] = /^(# limits:\n(?:# {3}.*\n?)*)/m.exec(example) ?? [];
  expect((await load(limits.replaceAll(/^# /gm, ""))).limits).toEqual((await loadConfig({}, {})).limits);
  expect(limits.split("\n").filter((line) => line.startsWith("#   "))).toHaveLength(38);
});

describe("flags go before the environment, that before the file, that before defaults", () => {
  const text = "listen: 127.0.0.1:1\nlogLevel: error\nhosts: [File.lab]\norigins: ['https://file.lab']\n";

  test("listen", async () => {
    const environment = { RPMSG_BRIDGE_LISTEN: "127.0.0.1:2" };
    expect((await load(text)).listen).toBe("127.0.0.1:1");
    expect((await load(text, {}, environment)).listen).toBe("127.0.0.1:2");
    expect((await load(text, { listen: "127.0.0.1:3" }, environment)).listen).toBe("127.0.0.1:3");
    expect((await loadConfig({}, environment)).listen).toBe("127.0.0.1:2");
  });

  test("lists and the log level", async () => {
    expect(await load(text)).toMatchObject({
      logLevel: "error",
      hosts: ["file.lab"],
      origins: ["https://file.lab"],
    });
    const environment = {
      RPMSG_BRIDGE_LOG_LEVEL: "debug",
      RPMSG_BRIDGE_HOSTS: " One.lab, two.lab ,,",
      RPMSG_BRIDGE_ORIGINS: "https://one.lab,http://two.lab:8080",
    };
    expect(await load(text, {}, environment)).toMatchObject({
      logLevel: "debug",
      hosts: ["one.lab", "two.lab"],
      origins: ["https://one.lab", "http://two.lab:8080"],
    });
  });

  test("the file itself: the flag before the environment", async () => {
    const [first, second] = [file("listen: 127.0.0.1:1"), file("listen: 127.0.0.1:2")];
    expect((await loadConfig({}, { RPMSG_BRIDGE_CONFIG: first })).listen).toBe("127.0.0.1:1");
    expect((await loadConfig({ config: second }, { RPMSG_BRIDGE_CONFIG: first })).listen).toBe("127.0.0.1:2");
  });

  test("guests of flags come to those of the file, and replace those of the same name", async () => {
    const guests = "guests:\n  a: { kind: emulated, profile: openamp, endpoints: [{ name: x }] }\n";
    expect((await load(guests, { guest: ["b=vhost-user:/run/b.sock,mode=connect"] })).guests).toEqual({
      a: { kind: "emulated", profile: "openamp", endpoints: [{ name: "x", ns: "down" }] },
      b: {
        kind: "vhost-user",
        path: "/run/b.sock",
        mode: "connect",
        dialect: "linux",
        isolation: "none",
        poll: "off",
        endpoints: [],
      },
    });
    expect((await load(guests, { guest: ["a=emulated"] })).guests).toEqual({
      a: { kind: "emulated", endpoints: [] },
    });
  });

  test("announcements of flags come to those of the guest", async () => {
    const guests = "guests:\n  a: { kind: emulated, endpoints: [{ name: x, address: 5 }] }\n";
    const flags = { guest: ["b=emulated"], announce: ["a/y@0x10", "b/z", "a/x"] };
    const config = await load(guests, flags);
    expect(config.guests["a"]?.endpoints).toEqual([
      { name: "x", address: 5, ns: "down" },
      { name: "y", address: 16, ns: "down" },
      { name: "x", ns: "down" },
    ]);
    expect(config.guests["b"]?.endpoints).toEqual([{ name: "z", ns: "down" }]);
    expect((await loadConfig({ announce: ["demo/x"] }, {})).guests["demo"]?.endpoints).toEqual([
      { name: "x", ns: "down" },
    ]);
  });
});

describe("a mistake names its key", () => {
  test.each([
    ["listen: 5", "listen"],
    ["lisen: x", "lisen"],
    ["hosts: bridge.lab", "hosts"],
    ["hosts: [1]", "hosts.0"],
    ["origins: [panel]", "origins.0"],
    // The origin of these is "null", which any page can make its own.
    ["origins: ['chrome-extension://abcdefgh']", "origins.0"],
    ["origins: ['https://panel.example', 'file:///index.html']", "origins.1"],
    ["logLevel: loud", "logLevel"],
    ["limits: 5", "limits"],
    ["limits: { slowReaderBytes: 10 }", "limits.slowReaderBytes"],
    ["limits: { slowReaderBytes: 1.5 }", "limits.slowReaderBytes"],
    ["limits: { sendTimeout: 0 }", "limits.sendTimeout"],
    ["limits: { sendTimeout: 15s }", "limits.sendTimeout"],
    ["limits: { sendQueueBytes: 0 }", "limits.sendQueueBytes"],
    ["limits: { what: 1 }", "limits.what"],
    ["guests: [demo]", "guests"],
    ["guests: 5", "guests"],
    ["guests: { 'a.b': { kind: emulated } }", "guests.a.b"],
    ["guests: { _a: { kind: emulated } }", "guests._a"],
    [`guests: { ${"a".repeat(64)}: { kind: emulated } }`, `guests.${"a".repeat(64)}`],
    ["guests: { a: 5 }", "guests.a"],
    ["guests: { a: }", "guests.a"],
    ["guests: { a: { } }", "guests.a.kind"],
    ["guests: { a: { kind: qemu } }", "guests.a.kind"],
    ["guests: { a: { kind: emulated, profile: rtos } }", "guests.a.profile"],
    ["guests: { a: { kind: vhost-user } }", "guests.a.path"],
    ["guests: { a: { kind: vhost-user, path: '' } }", "guests.a.path"],
    [`guests: { a: { kind: vhost-user, path: ${"x".repeat(108)} } }`, "guests.a.path"],
    ["guests: { a: { kind: vhost-user, path: /x, mode: wait } }", "guests.a.mode"],
    ["guests: { a: { kind: vhost-user, path: /x, dialect: qnx } }", "guests.a.dialect"],
    ["guests: { a: { kind: vhost-user, path: /x, isolation: yes } }", "guests.a.isolation"],
    ["guests: { a: { kind: emulated, isolation: process } }", "guests.a.isolation"],
    ["guests: { a: { kind: emulated, endpoints: x } }", "guests.a.endpoints"],
    ["guests: { a: { kind: emulated, endpoints: [x] } }", "guests.a.endpoints.0"],
    ["guests: { a: { kind: emulated, endpoints: [{ name: '' }] } }", "guests.a.endpoints.0.name"],
    [
      `guests: { a: { kind: emulated, endpoints: [{ name: ${"ü".repeat(16)} }] } }`,
      "guests.a.endpoints.0.name",
    ],
    ['guests: { a: { kind: emulated, endpoints: [{ name: "a\\0b" }] } }', "guests.a.endpoints.0.name"],
    [
      "guests: { a: { kind: emulated, endpoints: [{ name: x, address: -1 }] } }",
      "guests.a.endpoints.0.address",
    ],
    [
      "guests: { a: { kind: emulated, endpoints: [{ name: x, address: 0xffffffff }] } }",
      "guests.a.endpoints.0.address",
    ],
    ["guests: { a: { kind: emulated, endpoints: [{ name: x, port: 1 }] } }", "guests.a.endpoints.0.port"],
    // Not a mapping, or not YAML at all.
    ["listen: [", "config"],
    ["a: 1\na: 2", "config"],
    ["a: b: c", "config"],
    ["listen: *nothing", "config"],
    ["---\na: 1\n---\nb: 2", "config"],
  ])("%s", async (text, key) => {
    expect(await configKeyOf(() => load(text))).toBe(key);
  });

  test("of a file that is not a mapping, or cannot be read", async () => {
    const path = file("- a\n- b\n");
    expect(await configKeyOf(() => loadConfig({ config: path }, {}))).toBe(path);
    expect(await configKeyOf(() => loadConfig({ config: "/nonexistent.yaml" }, {}))).toBe("config");
    expect(await configKeyOf(() => loadConfig({}, { RPMSG_BRIDGE_CONFIG: "/nonexistent.yaml" }))).toBe(
      "config",
    );
  });

  test("of the environment, and of flags", async () => {
    expect(await configKeyOf(() => loadConfig({}, { RPMSG_BRIDGE_LOG_LEVEL: "loud" }))).toBe("logLevel");
    expect(await configKeyOf(() => loadConfig({}, { RPMSG_BRIDGE_ORIGINS: "panel" }))).toBe("origins.0");
    expect(await configKeyOf(() => loadConfig({ guest: ["a=qemu"] }, {}))).toBe("guests.a.kind");
    expect(await configKeyOf(() => loadConfig({ guest: ["a=emulated,profil=x"] }, {}))).toBe(
      "guests.a.profil",
    );
    expect(await configKeyOf(() => loadConfig({ guest: ["a=emulated", "a=emulated"] }, {}))).toBe("--guest");
    expect(await configKeyOf(() => loadConfig({ announce: ["nobody/x"] }, {}))).toBe("--announce");
    expect(await configKeyOf(() => loadConfig({ announce: ["toString/x"] }, {}))).toBe("--announce");
    expect(await configKeyOf(() => loadConfig({ announce: ["demo/"] }, {}))).toBe(
      "guests.demo.endpoints.0.name",
    );
    expect(await configKeyOf(() => load("guests: { a: 5 }", { announce: ["a/x"] }))).toBe("guests.a");
    expect(await configKeyOf(() => load("guests: { a: { endpoints: 5 } }", { announce: ["a/x"] }))).toBe(
      "guests.a.endpoints",
    );
  });
});
