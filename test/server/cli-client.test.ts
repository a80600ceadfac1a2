import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { EndpointList } from "../../schemas/resources.ts";
import type { Finished, StartOptions } from "./cli-support.ts";
import { Command } from "./cli-support.ts";

let bridge: Command;
let url: string;

beforeAll(async () => {
  bridge = new Command([
    ...[
      "serve",
      "--listen",
      "127.0.0.1:0",
      "--guest",
      "demo=emulated",
      "--guest",
      "amp=emulated,profile=openamp",
    ],
    ...[
      "--announce",
      "demo/two words@1040",
      "--announce",
      "demo/a@b@1041",
      "--announce",
      "demo/bidi\u202etxt@1042",
    ],
  ]);
  url = await bridge.url();
});

afterAll(async () => {
  expect((await bridge.kill("SIGTERM")).code).toBe(0);
});

const run = (args: string[], options?: StartOptions): Promise<Finished> =>
  Command.run(args, { environment: { RPMSG_BRIDGE_URL: url }, ...options });

describe("ls", () => {
  test("shows a table with a line for each endpoint, without colours", async () => {
    const { code, stdout, stderr } = await run(["ls"]);
    expect([code, stderr]).toEqual([0, ""]);
    const lines = stdout.trimEnd().split("\n");
    expect(lines[0]).toMatch(/^GUEST +NAME +ADDRESS +ORIGIN +STATE +CLIENTS +PATH$/);
    expect(lines).toHaveLength(14);
    const columns = [...(lines[0] ?? "").matchAll(/\S+/g)].map((each) => each.index);
    for (const line of lines.slice(1)) {
      for (const at of columns.slice(1)) expect(line.slice(at - 2, at + 1)).toMatch(/^ {2}\S$/);
    }
    expect(
      lines.some((line) => /^amp +echo +\d+ +guest +connected +0 +\/ws\/v1\/amp\/echo$/.test(line)),
    ).toBe(true);
    // What would steer a terminal is not shown.
    expect(stdout).toContain("bidi\ufffdtxt");
    expect(stdout).not.toContain("\u001b");
    expect(stdout).not.toContain("\u202e");
  });

  test("--json prints what the bridge says, --guest only those of one guest", async () => {
    const { code, stdout } = await run(["ls", "--json", "--guest", "amp"]);
    expect(code).toBe(0);
    const { endpoints } = EndpointList.strict().parse(JSON.parse(stdout));
    expect(endpoints.map((each) => each.name)).toEqual(["echo", "tty", "sensor", "source", "sink"]);
    expect(new Set(endpoints.map((each) => each.guest))).toEqual(new Set(["amp"]));
  });

  test("--url goes before the environment; a bridge that is not there is exit code 1", async () => {
    const free = createServer().listen(0, "127.0.0.1");
    await once(free, "listening");
    const nobody = `http://127.0.0.1:${(free.address() as AddressInfo).port}`;
    await new Promise((resolve) => free.close(resolve));
    const { code, stderr } = await run(["ls", "--url", nobody]);
    expect(code).toBe(1);
    expect(stderr).toBe(`rpmsg-bridge: cannot reach the bridge at ${nobody}: ECONNREFUSED\n`);
    const reached = await run(["ls", "--url", url], { environment: { RPMSG_BRIDGE_URL: nobody } });
    expect(reached.code).toBe(0);
  });
});

describe("send", () => {
  test("says nothing and exits 0 when the message is on its way", async () => {
    expect(await run(["send", "demo/sink", "hello"])).toEqual({
      code: 0,
      signal: null,
      stdout: "",
      stderr: "",
    });
    const { stdout } = await run(["send", "demo/sink", "stat", "--wait"]);
    expect(JSON.parse(stdout)).toEqual({ messages: 1, bytes: 5 });
  });

  test.each([
    [["demo/echo", "hello", "--wait"], "hello\n"],
    [["demo/echo", "grüß 🦊", "--wait", "5"], "grüß 🦊\n"],
    [["demo/echo", "", "--wait"], "\n"],
    [["demo/echo", "00ff 0A", "--hex", "--wait"], "00ff0a\n"],
    [["demo/echo", "hello", "--wait", "--json"], '{"data":"hello","encoding":"utf8"}\n'],
    [["demo/echo", "ff00", "--hex", "--wait", "--json"], '{"data":"ff00","encoding":"hex"}\n'],
    [["demo/two words", "x", "--wait", "--share", "private"], "x\n"],
    [["demo/a@b@1041", "x", "--wait", "--share", "private"], "x\n"],
    [["demo/echo", "x", "--wait", "--local", "0x1388"], "x\n"],
    [["demo/~e1", "x", "--wait", "--share", "private"], "x\n"],
  ])("%j prints %j", async (args, expected) => {
    const { code, stdout, stderr } = await run(["send", ...args]);
    expect([code, stdout, stderr]).toEqual([0, expected, ""]);
  });

  test.each([
    [["demo/nothing", "x"], "(endpoint-unknown)"],
    [["nobody/echo", "x"], "(guest-unknown)"],
    [["demo/echo", "x".repeat(497)], "1009"],
    [["demo/echo", "x", "--local", "53"], "(local-in-use)"],
    [["demo/echo", "x", "--local", "nonsense"], "(bad-request)"],
    [["demo/echo", "x", "--share", "nonsense"], "(bad-request)"],
    [["demo/sink", "x", "--wait", "0.2"], "no reply within 0.2 seconds"],
    [["demo/echo", "x".repeat(497), "--wait"], "1009"],
  ])("%j is exit code 1 in the bridge's own words", async (args, words) => {
    const { code, stdout, stderr } = await run(["send", ...args]);
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toMatch(/^rpmsg-bridge: .*\n$/);
    expect(stderr).toContain(words);
  });
});

describe("connect", () => {
  test("a piped line is a message, a message is a line, and it leaves after the last answer", async () => {
    const { code, stdout, stderr } = await run(["connect", "demo/echo"], {
      input: "one\ntwo words\n\nthree",
    });
    expect([code, stdout, stderr]).toEqual([0, "one\ntwo words\n\nthree\n", ""]);
  });

  test("--hex reads and shows hexadecimal digits, and goes on after a line that is none", async () => {
    const { code, stdout, stderr } = await run(["connect", "demo/echo", "--hex"], {
      input: "00 ff\nzz\n0a\n",
    });
    expect([code, stdout]).toEqual([0, "00ff\n0a\n"]);
    expect(stderr).toContain('"zz" is not bytes');
  });

  test("--json shows a message with what cannot be shown", async () => {
    const { stdout } = await run(["connect", "demo/echo", "--json"], { input: "hello\n" });
    expect(JSON.parse(stdout)).toEqual({ data: "hello", encoding: "utf8" });
  });

  test("--raw sends bytes as they come, line ends too, and cut where they must be", async () => {
    const input = Buffer.alloc(3000, "a line\r\n");
    const { code, stdout } = await run(["connect", "demo/echo", "--raw"], { input });
    expect([code, stdout]).toEqual([0, input.toString()]);
  });

  test("while standard input is open, messages show as they come", async () => {
    const connected = Command.start(["connect", "demo/sensor", "--url", url]);
    connected.type("start 100\n");
    for (let i = 0; i < 3; i++) expect(JSON.parse(await connected.line())).toMatchObject({ seq: i });
  });

  test("a message that is too long ends it with exit code 1, though standard input is open", async () => {
    const connected = Command.start(["connect", "demo/echo", "--url", url]);
    connected.type(`${"x".repeat(497)}\n`);
    const { code, stderr } = await connected.finished;
    expect(code).toBe(1);
    expect(stderr).toContain("1009");
  });

  test("an endpoint that is not there is exit code 1", async () => {
    const connected = Command.start(["connect", "demo/nothing", "--url", url]);
    expect(await connected.finished).toMatchObject({ code: 1, stdout: "" });
  });

  test("the end of the bridge is told with its code, exit code 1", async () => {
    const own = Command.start(["serve", "--listen", "127.0.0.1:0"]);
    const connected = Command.start(["connect", "demo/echo", "--url", await own.url()]);
    connected.type("hello\n");
    expect(await connected.line()).toBe("hello");
    await own.kill("SIGTERM");
    const { code, stderr } = await connected.finished;
    expect(code).toBe(1);
    expect(stderr).toContain("1001: the bridge is stopping");
  });

  test("a message that comes together with the handshake is shown", async () => {
    const { createHash } = await import("node:crypto");
    const server = createServer((socket) => {
      socket.on("error", () => {});
      socket.once("data", (head: Buffer) => {
        const key = /^sec-websocket-key: (.*)$/im.exec(head.toString())?.[1]?.trim() ?? "";
        const accept = createHash("sha1")
          .update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
          .digest("base64");
        const answer = `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`;
        // One segment: the answer and a frame with "early".
        socket.write(Buffer.concat([Buffer.from(answer), Buffer.from([0x82, 5]), Buffer.from("early")]));
      });
    }).listen(0, "127.0.0.1");
    onTestFinished(() => {
      server.close();
    });
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    const connected = Command.start(["connect", "demo/echo", "--url", `http://127.0.0.1:${port}`]);
    expect(await connected.line()).toBe("early");
  });
});
