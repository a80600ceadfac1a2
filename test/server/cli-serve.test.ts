import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, openSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { Command, MAIN } from "./cli-support.ts";
import { RawClient } from "./raw-client.ts";
import { Client, eventually, testDirectory } from "./support.ts";

const FREE = ["serve", "--listen", "127.0.0.1:0"];

/** What is said to people, without the lines of the log. */
function wordsOf(stderr: string): string[] {
  return stderr.split("\n").filter((line) => line !== "" && !line.startsWith("{"));
}

describe("serve", () => {
  test("prints one JSON line on standard output when it is ready, and serves the guest demo", async () => {
    const bridge = Command.start(FREE);
    const first = JSON.parse(await bridge.line()) as { event: string; url: string };
    expect(first).toEqual({ event: "listening", url: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/) });
    expect(first.url).not.toBe("http://127.0.0.1:0");
    expect((await fetch(`${first.url}/readyz`)).status).toBe(200);
    const client = await Client.open(`${first.url.replace("http", "ws")}/ws/v1/demo/echo`);
    client.send("hello");
    expect(await client.text()).toBe("hello");
    await client.close();
    const { code, stdout, stderr } = await bridge.kill("SIGTERM");
    expect(code).toBe(0);
    expect(stdout).toBe(`${JSON.stringify(first)}\n`);
    for (const line of stderr.trim().split("\n")) expect(() => JSON.parse(line) as unknown).not.toThrow();
  });

  test.each(["SIGTERM", "SIGINT"] as const)(
    "%s closes clients with 1001 and exits 0 within 8 s",
    async (signal) => {
      const bridge = Command.start(FREE);
      const url = await bridge.url();
      const clients = await Promise.all(
        ["echo", "tty", "sink"].map((name) => Client.open(`${url.replace("http", "ws")}/ws/v1/demo/${name}`)),
      );
      const started = performance.now();
      const finished = bridge.kill(signal);
      for (const client of clients) {
        expect(await client.closed).toEqual({ code: 1001, reason: "the bridge is stopping" });
      }
      expect(await finished).toMatchObject({ code: 0, signal: null });
      expect(performance.now() - started).toBeLessThan(4000);
    },
  );

  test("connections that say nothing, and clients that do not close, do not hold it up for more than 8 s", async () => {
    const bridge = Command.start(FREE);
    const url = await bridge.url();
    const { port } = new URL(url);
    const heads = [
      "",
      "GET /healthz HTTP/1.1\r\nHost: local",
      "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ];
    const sockets = await Promise.all(
      heads.map(async (head) => {
        const socket = connect(Number(port), "127.0.0.1").on("error", () => {});
        await once(socket, "connect");
        socket.write(head);
        return socket;
      }),
    );
    await RawClient.open(url, "/ws/v1/demo/echo");
    const started = performance.now();
    expect(await bridge.kill("SIGTERM")).toMatchObject({ code: 0 });
    expect(performance.now() - started).toBeLessThan(8000);
    for (const socket of sockets) socket.destroy();
  });

  test("a second signal ends it at once", async () => {
    const bridge = Command.start(FREE);
    // Does not answer the close: the first signal alone takes seconds.
    await RawClient.open(await bridge.url(), "/ws/v1/demo/echo");
    void bridge.kill("SIGTERM");
    await bridge.says('"stopping"');
    // By the signal itself, and not in good order.
    expect(await bridge.kill("SIGTERM")).toMatchObject({ code: null, signal: "SIGTERM" });
  });

  test("takes flags, environment and file together", async () => {
    const path = join(testDirectory(), "bridge.yaml");
    writeFileSync(path, "guests: { one: { kind: emulated, profile: openamp } }\nlogLevel: silent\n");
    const bridge = Command.start(
      [...FREE, "--config", path, "--guest", "two=emulated", "--announce", "two/raw@0x410"],
      { environment: { RPMSG_BRIDGE_LISTEN: "127.0.0.1:1", RPMSG_BRIDGE_HOSTS: "bridge.lab" } },
    );
    const url = await bridge.url();
    const { guests } = (await (await fetch(`${url}/api/v1/guests`)).json()) as { guests: { name: string }[] };
    expect(guests.map((each) => each.name)).toEqual(["one", "two"]);
    const { endpoints } = (await (await fetch(`${url}/api/v1/endpoints?origin=host`)).json()) as {
      endpoints: object[];
    };
    expect(endpoints).toEqual([expect.objectContaining({ guest: "two", name: "raw", address: 1040 })]);
    expect((await bridge.kill("SIGTERM")).stderr).toBe("");
  });
});

describe("listening on a Unix socket", () => {
  const get = (socketPath: string, path: string): Promise<number | undefined> =>
    new Promise((resolve, reject) => {
      request({ socketPath, path, headers: { host: "localhost" } }, (response) => {
        response.resume();
        resolve(response.statusCode);
      })
        .on("error", reject)
        .end();
    });

  test("serves there, refuses a second bridge, and takes the socket away at its end", async () => {
    const path = join(testDirectory(), "bridge.sock");
    const bridge = Command.start(["serve", "--listen", `unix:${path}`]);
    expect(JSON.parse(await bridge.line())).toEqual({ event: "listening", url: `unix:${path}` });
    expect(await get(path, "/readyz")).toBe(200);
    const second = await Command.run(["serve", "--listen", `unix:${path}`]);
    expect(second).toMatchObject({ code: 1, stdout: "" });
    expect(second.stderr).toContain("EADDRINUSE");
    expect(await get(path, "/readyz")).toBe(200);
    expect((await bridge.kill("SIGTERM")).code).toBe(0);
    expect(existsSync(path)).toBe(false);
  });

  test("a socket that a killed bridge left is no obstacle, a file is one and stays", async () => {
    const path = join(testDirectory(), "bridge.sock");
    const killed = Command.start(["serve", "--listen", `unix:${path}`]);
    await killed.line();
    await killed.kill("SIGKILL");
    expect(existsSync(path)).toBe(true);
    const next = Command.start(["serve", "--listen", `unix:${path}`]);
    await next.line();
    await next.kill("SIGTERM");
    writeFileSync(path, "precious");
    expect(await Command.run(["serve", "--listen", `unix:${path}`])).toMatchObject({ code: 1, stdout: "" });
    expect(existsSync(path)).toBe(true);
  });
});

describe("what cannot be listened on is exit code 1, in one readable line", () => {
  test("a port in use", async () => {
    const bridge = Command.start(FREE);
    const { host } = new URL(await bridge.url());
    const { code, stdout, stderr } = await Command.run(["serve", "--listen", host]);
    expect([code, stdout]).toEqual([1, ""]);
    expect(wordsOf(stderr)).toEqual([`rpmsg-bridge: cannot listen on ${host}: EADDRINUSE`]);
  });

  test.each([
    ["an address of somebody else", "192.0.2.1:0"],
    ["a name that there is not", "nobody.invalid:0"],
    ["a directory that there is not", "unix:/nonexistent/bridge.sock"],
  ])("%s", async (_what, listen) => {
    const { code, stdout, stderr } = await Command.run(["serve", "--listen", listen]);
    expect([code, stdout]).toEqual([1, ""]);
    expect(wordsOf(stderr)).toEqual([expect.stringMatching(/^rpmsg-bridge: cannot listen on .*: E[A-Z_]+$/)]);
  });

  test("an idle vhost-user guest does not keep a bridge alive that cannot listen", async () => {
    const guest = `vm=vhost-user:${join(testDirectory(), "vm.sock")}`;
    expect(await Command.run(["serve", "--listen", "192.0.2.1:0", "--guest", guest])).toMatchObject({
      code: 1,
    });
  });
});

describe("a mistake in flags or configuration is exit code 2, in one readable line that names it", () => {
  test.each([
    [["serve", "--lisen", "127.0.0.1:0"], "--lisen"],
    [["serve", "--listen"], "--listen"],
    [["serve", "--listen", "8080"], "listen: "],
    [["serve", "--guest", "a"], "--guest: "],
    [["serve", "--guest", "a=qemu"], "guests.a.kind: "],
    [["serve", "--guest", "a=vhost-user"], "guests.a.path: "],
    [["serve", "--announce", "nobody/x"], "--announce: "],
    [["serve", "--announce", "demo/x@53"], "guests.demo.endpoints: "],
    [["serve", "--config", "/nonexistent.yaml"], "config: "],
    [[...FREE, "--guest", "a=vhost-user:/nonexistent/a.sock"], "guests.a.path: "],
    [["serve", "surplus"], "argument"],
    [["sevre"], "sevre"],
    [["guest"], "--socket"],
    [["guest", "--socket", "x", "--profile", "rtos"], "--profile"],
    [["guest", "--socket", "x", "--listen", "--connect"], "--listen"],
    [["ls", "--url", "nonsense"], "--url"],
    [["guests", "surplus"], "argument"],
    [["watch", "--url", "ftp://127.0.0.1"], "--url"],
    [["info"], "endpoint"],
    [["info", "demo/"], "GUEST/ENDPOINT"],
    [["connect", "demo"], "GUEST/ENDPOINT"],
    [["connect", "demo/echo", "--share", "nonsense"], "--share"],
    [["connect", "demo/echo", "--slow", "nonsense"], "--slow"],
    [["connect", "demo/echo", "--origin", "nonsense"], "--origin"],
    [["connect", "demo/echo", "--raw", "--hex"], "--raw"],
    [["connect", "demo/echo", "--raw", "--json"], "--raw"],
    [["send", "demo/echo"], "data"],
    [["send", "demo", "x"], "GUEST/ENDPOINT"],
    [["send", "demo/", "x"], "GUEST/ENDPOINT"],
    [["send", "demo/echo", "xyz", "--hex"], "xyz"],
    [["send", "demo/echo", "abc", "--hex"], "abc"],
    [["send", "demo/echo", "x", "--wait", "0"], "seconds"],
    [["send", "demo/echo", "x", "--timeout", "never"], "seconds"],
    [["send", "demo/echo", "x", "--dst", "0xffffffff"], "--dst"],
    [["config", "check"], "file"],
    [["completion"], "shell"],
    [["completion", "fish"], "fish"],
  ])("%j", async (args, named) => {
    const { code, stdout, stderr } = await Command.run(args);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toContain(named);
    expect(stderr).not.toMatch(/^\s+at /m);
    // With commander's "did you mean" and the pointer to --help at the most.
    expect(wordsOf(stderr).length).toBeLessThanOrEqual(3);
  });

  test.each([
    ["limits: { pingInterval: 0 }\n", "limits.pingInterval: "],
    ["guests: *nothing\n", "config: "],
    ["a: [\n", "config: "],
  ])("in the file: %j", async (text, key) => {
    const path = join(testDirectory(), "bridge.yaml");
    writeFileSync(path, text);
    const { code, stdout, stderr } = await Command.run(["serve", "--config", path]);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toMatch(/^rpmsg-bridge: configuration: .*\n$/);
    expect(stderr).toContain(key);
  });
});

describe("help", () => {
  test.each([
    [["--help"], "rpmsg-bridge serve"],
    [["serve", "--help"], "vm0=vhost-user:/run/rpmsg/vm0.sock"],
    [["guest", "--help"], "rpmsg-bridge guest --socket"],
    [["ls", "--help"], "rpmsg-bridge ls --json"],
    [["guests", "--help"], "rpmsg-bridge guests --json"],
    [["info", "--help"], "rpmsg-bridge info demo/echo"],
    [["watch", "--help"], "rpmsg-bridge watch --json"],
    [["connect", "--help"], "rpmsg-bridge connect demo/tty"],
    [["send", "--help"], "rpmsg-bridge send demo/echo hello --wait"],
    [["config", "--help"], "rpmsg-bridge config example"],
    [["config", "check", "--help"], "rpmsg-bridge config check bridge.yaml"],
    [["config", "example", "--help"], "rpmsg-bridge config example > bridge.yaml"],
    [["completion", "--help"], "source <(rpmsg-bridge completion bash)"],
    [["help", "send"], "rpmsg-bridge send demo/echo hello --wait"],
  ])("%j shows an example, without colours, and exits 0", async (args, example) => {
    const { code, stdout, stderr } = await Command.run(args);
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout).toContain(example);
    expect(stdout).not.toContain("\u001b");
  });

  test("what cannot be written to standard output is an error", () => {
    const full = openSync("/dev/full", "w");
    const { status, stderr } = spawnSync(process.execPath, [MAIN, "config", "example"], {
      stdio: ["ignore", full, "pipe"],
      encoding: "utf8",
    });
    closeSync(full);
    expect([status, stderr]).toEqual([
      1,
      "rpmsg-bridge: standard output: ENOSPC: no space left on device, write\n",
    ]);
  });

  test("without a command, help is shown as a mistake", async () => {
    const { code, stdout, stderr } = await Command.run([]);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toContain("serve");
  });
});

test("the port is free again at once", async () => {
  const first = Command.start(FREE);
  const { host } = new URL(await first.url());
  const client = await Client.open(`ws://${host}/ws/v1/demo/echo`);
  await first.kill("SIGKILL");
  await client.closed;
  const second = Command.start(["serve", "--listen", host]);
  expect(await second.url()).toBe(`http://${host}`);
  await eventually("it serves", async () => ((await fetch(`http://${host}/readyz`)).ok ? true : undefined));
});
