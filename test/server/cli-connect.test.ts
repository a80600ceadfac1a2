import { createHash } from "node:crypto";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Endpoint } from "../../schemas/index.ts";
import { ServerFrame } from "../../schemas/index.ts";
import type { Finished, StartOptions } from "./cli-support.ts";
import { Command, strangeServer } from "./cli-support.ts";
import { eventually, testDirectory } from "./support.ts";

let bridge: Command;
let url: string;

beforeAll(async () => {
  bridge = new Command(["serve", "--listen", "127.0.0.1:0"]);
  url = await bridge.url();
});

afterAll(async () => {
  expect((await bridge.kill("SIGTERM")).code).toBe(0);
});

const run = (args: string[], options?: StartOptions): Promise<Finished> =>
  Command.run(["connect", ...args], { environment: { RPMSG_BRIDGE_URL: url }, ...options });

const start = (...args: string[]): Command => Command.start(["connect", ...args, "--url", url]);

async function endpoint(name: string): Promise<Endpoint> {
  const list = (await (await fetch(`${url}/api/v1/endpoints?name=${name}`)).json()) as {
    endpoints: Endpoint[];
  };
  return list.endpoints[0] as Endpoint;
}

/** Frames that were printed, one a line. */
function framesOf(stdout: string): ServerFrame[] {
  return stdout
    .trimEnd()
    .split("\n")
    .map((line) => ServerFrame.parse(JSON.parse(line)));
}

describe("connect", () => {
  test("a piped line is a message, a message is a line, and it leaves after the last answer", async () => {
    const { code, stdout, stderr } = await run(["demo/echo"], { input: "one\ntwo words\n\nthree" });
    expect([code, stdout, stderr]).toEqual([0, "one\ntwo words\n\nthree\n", ""]);
  });

  test("bytes that are no text come back as they went", async () => {
    const input = Buffer.from([0xff, 0x00, 0xc3, 0x0a, 0xe2, 0x80, 0xa8, 0x0a]);
    const connected = Command.start(["connect", "demo/echo", "--url", url], { input });
    expect(await connected.bytes()).toEqual(input);
  });

  test("--hex reads and shows hexadecimal digits; a line that is none is told, and exit code 1", async () => {
    const good = await run(["demo/echo", "--hex"], { input: "00 ff\n0a\n" });
    expect([good.code, good.stdout]).toEqual([0, "00ff\n0a\n"]);
    const { code, stdout, stderr } = await run(["demo/echo", "--hex"], { input: "00 ff\nzz\n0a\n" });
    expect([code, stdout]).toEqual([1, "00ff\n0a\n"]);
    expect(stderr).toBe(
      'rpmsg-bridge: "zz" is not bytes in hexadecimal digits\nrpmsg-bridge: 1 message not delivered\n',
    );
  });

  test("--raw sends bytes as they come, line ends too, and cut where they must be", async () => {
    const input = Buffer.alloc(300_000, "a line\r\n\u00ff");
    const { code, stdout } = await run(["demo/echo", "--raw"], { input });
    expect(code).toBe(0);
    expect(stdout).toBe(input.toString());
  });

  test("while standard input is open, messages show as they come", async () => {
    const connected = start("demo/sensor");
    connected.type("start 100\n");
    for (let i = 0; i < 3; i++) expect(JSON.parse(await connected.line())).toMatchObject({ seq: i });
  });

  test("a message that is not delivered is told; it goes on, and its end is exit code 1", async () => {
    const connected = start("demo/echo");
    connected.type(`${"x".repeat(497)}\n${"y".repeat(497)}\nhello\n`);
    expect(await connected.line()).toBe("hello");
    connected.endInput();
    const { code, stderr } = await connected.finished;
    expect(code).toBe(1);
    // The reason once, though there are two.
    expect(stderr).toMatch(
      /^rpmsg-bridge: message of 497 bytes, the most is 496 \(too-large\): .*\nrpmsg-bridge: 2 messages not delivered\n$/,
    );
  });

  test("at its end it waits until it is known what became of each message", async () => {
    const own = Command.start([
      ...["serve", "--listen", "127.0.0.1:0", "--announce", "vm/raw"],
      ...["--guest", `vm=vhost-user:${join(testDirectory(), "vm.sock")}`],
    ]);
    const input = '{"data":"x","id":1,"timeout":1500}\n';
    const { code, stdout } = await run(["vm/raw", "--json", "--url", await own.url()], { input });
    expect(framesOf(stdout)).toMatchObject([{ type: "hello" }, { type: "error", id: 1, code: "no-peer" }]);
    expect(code).toBe(1);
  });

  test.each([
    [["demo/nothing"], "(endpoint-unknown)"],
    [["nobody/echo"], "(guest-unknown)"],
    [["demo/echo", "--local", "nonsense"], "(bad-request)"],
    [["demo/echo", "--share", "private", "--takeover"], "takeover=1 needs share=exclusive"],
  ])("%j is exit code 1 in the bridge's own words, though standard input is open", async (args, words) => {
    const { code, stdout, stderr } = await start(...args).finished;
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toContain(words);
  });

  test("--share exclusive keeps others out, --takeover replaces it, and it is told so", async () => {
    const first = start("demo/source", "--share", "exclusive", "--json");
    expect(JSON.parse(await first.line())).toMatchObject({ type: "hello" });
    const { code, stderr } = await run(["demo/source"]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/\(endpoint-in-use\): .*connect --share exclusive --takeover\.\n$/);
    const second = start("demo/source", "--takeover");
    second.type("1 4\n");
    await second.line();
    const replaced = await first.finished;
    expect(replaced.code).toBe(1);
    expect(replaced.stderr).toMatch(/ 4003: .*\(replaced\)/);
    // Exclusive itself.
    expect((await run(["demo/source"])).code).toBe(1);
    second.endInput();
    expect((await second.finished).code).toBe(0);
  });

  test("the end of the bridge is told with its code, exit code 1", async () => {
    const own = Command.start(["serve", "--listen", "127.0.0.1:0"]);
    const connected = Command.start(["connect", "demo/echo", "--url", await own.url()]);
    connected.type("hello\n");
    expect(await connected.line()).toBe("hello");
    await own.kill("SIGTERM");
    const { code, stderr } = await connected.finished;
    expect(code).toBe(1);
    expect(stderr).toContain("1001: the bridge is stopping (draining)");
  });

  test("the reset of a guest is told on standard error, with its new generation; exit code 1", async () => {
    const socket = join(testDirectory(), "vm.sock");
    const own = Command.start(["serve", "--listen", "127.0.0.1:0", "--guest", `vm=vhost-user:${socket}`]);
    const ownUrl = await own.url();
    const guest = Command.start(["guest", "--socket", socket]);
    await guest.line();
    const connected = Command.start(["connect", "vm/echo", "--url", ownUrl]);
    const frames = Command.start(["connect", "vm/echo", "--url", ownUrl, "--json"]);
    connected.type("hello\n");
    expect(await connected.line()).toBe("hello");
    await frames.line();
    await guest.kill("SIGKILL");
    const { code, stderr } = await connected.finished;
    expect(code).toBe(1);
    expect(stderr).toContain("rpmsg-bridge: the endpoint is down: reset, guest vm is at generation 2\n");
    expect(stderr).toContain("4001: guest detached or reset (guest-gone): ");
    const other = await frames.finished;
    expect(framesOf(other.stdout).at(-1)).toMatchObject({ type: "state", state: "down", generation: 2 });
    expect(other.code).toBe(1);
  });

  test("whoever does not read its output loses what --slow says, and is told so", async () => {
    const connected = start("demo/source", "--slow", "drop-newest", "--hex");
    connected.pause();
    // 64 MB: more than all buffers on the way.
    connected.type(`${Buffer.from("131072 496").toString("hex")}\n`);
    await eventually("drops", async () =>
      (await endpoint("source")).counters.dropped > 0 ? true : undefined,
    );
    connected.resume();
    await connected.says("dropped: read faster");
    connected.endInput();
    const { stdout, stderr } = await connected.finished;
    const dropped = [...stderr.matchAll(/rpmsg-bridge: (\d+) messages? dropped/g)].map(([, count]) =>
      Number(count),
    );
    expect(stdout.trimEnd().split("\n").length + dropped.reduce((sum, each) => sum + each, 0)).toBe(131_072);
  });

  test.each(["SIGTERM", "SIGHUP", "SIGINT"] as const)(
    "%s ends it, and frees the endpoint at once",
    async (signal) => {
      const connected = start("demo/tty", "--share", "exclusive", "--json");
      await connected.line();
      expect(await connected.kill(signal)).toMatchObject({ code: null, signal });
      expect((await endpoint("tty")).clients).toBe(0);
    },
  );
});

describe("connect --json", () => {
  test("prints frames as the bridge sends them; a line of input is a send frame or what is in one", async () => {
    const input = [
      '{"data":"plain"}',
      '{"type":"send","id":"a","data":"AP8=","encoding":"base64"}',
      '{"id":2,"data":"6869","encoding":"hex","dst":1024,"timeout":1000}',
      '{"type":"ping"}',
    ].join("\n");
    const { code, stdout, stderr } = await run(["demo/echo", "--json"], { input });
    expect([code, stderr]).toEqual([0, ""]);
    const [hello, ...frames] = framesOf(stdout);
    expect(hello).toMatchObject({ type: "hello", guest: "demo", endpoint: "echo", generation: 1, mtu: 496 });
    expect(frames.filter((each) => each.type === "message")).toEqual([
      { type: "message", seq: 1, src: 1024, data: "plain", encoding: "utf8" },
      { type: "message", seq: 2, src: 1024, data: "AP8=", encoding: "base64" },
      { type: "message", seq: 3, src: 1024, data: "hi", encoding: "utf8" },
    ]);
    expect(frames.filter((each) => each.type !== "message")).toEqual([
      { type: "sent", id: "a" },
      { type: "sent", id: 2 },
      { type: "pong" },
    ]);
  });

  test("--hex forces the encoding of what comes", async () => {
    const { stdout } = await run(["demo/echo", "--json", "--hex"], { input: '{"data":"hi"}\n' });
    expect(framesOf(stdout)).toMatchObject([{ type: "hello" }, { data: "6869", encoding: "hex" }]);
  });

  test("what is wrong with a line comes back as an error frame; it goes on, and its end is exit code 1", async () => {
    const input =
      'nonsense\n[1]\n{"id":7}\n{"id":8,"data":"x","encoding":"morse"}\n{"id":[],"data":"x"}\n{"data":"fine"}\n';
    const { code, stdout, stderr } = await run(["demo/echo", "--json"], { input });
    expect(framesOf(stdout)).toMatchObject([
      { type: "hello" },
      { type: "error", code: "bad-frame" },
      { type: "error", code: "bad-frame" },
      { type: "error", code: "bad-frame", id: 7 },
      { type: "error", code: "bad-frame", id: 8 },
      { type: "error", code: "bad-frame" },
      { type: "message", data: "fine" },
    ]);
    expect([code, stderr]).toEqual([1, "rpmsg-bridge: 5 messages not delivered\n"]);
  });
});

describe("another bridge", () => {
  const hello = {
    type: "hello",
    protocol: "rpmsg.v1.json",
    ...{ guest: "demo", endpoint: "echo", id: "e1", local: 1030, generation: 1, mtu: 496 },
    ...{ endpointState: "connected", guestState: "attached", instance: "i", session: "s", resumed: false },
  };
  const message = { type: "message", seq: 1, src: 1024, data: "ZWFybHk=", encoding: "base64" };

  /** Answers the upgrade and sends frames, all in one segment. */
  const greeting = (
    frames: object[],
    subprotocol = "Sec-WebSocket-Protocol: rpmsg.v1.json\r\n",
  ): Promise<string> =>
    strangeServer(
      (_request, response) => response.end(),
      ({ headers }, stream) => {
        stream.on("error", () => {});
        const accept = createHash("sha1")
          .update(`${headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
          .digest("base64");
        const answer = `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${accept}\r\n${subprotocol}\r\n`;
        const parts = frames.map((frame) => {
          const text = Buffer.from(JSON.stringify(frame));
          return Buffer.concat([Buffer.from([0x81, 126, text.length >> 8, text.length & 255]), text]);
        });
        stream.write(Buffer.concat([Buffer.from(answer), ...parts]));
      },
    );

  test("messages that come together with the handshake are shown, frames of a newer bridge left out", async () => {
    const strange = await greeting([hello, { type: "comet" }, message]);
    const connected = Command.start(["connect", "demo/echo", "--url", strange]);
    expect(await connected.line()).toBe("early");
    const frames = Command.start(["connect", "demo/echo", "--url", strange, "--json"]);
    for (const frame of [hello, { type: "comet" }, message]) {
      expect(JSON.parse(await frames.line())).toEqual(frame);
    }
  });

  test.each([
    ["another greeting", [{ ...hello, protocol: "rpmsg.v2.json" }], undefined],
    ["no such subprotocol", [], ""],
  ])("%s: exit code 1 in a clear text", async (_what, frames, subprotocol) => {
    const strange = await greeting(frames, subprotocol);
    for (const args of [
      ["connect", "demo/echo"],
      ["send", "demo/echo", "x"],
    ]) {
      const { code, stdout, stderr } = await Command.run([...args, "--url", strange]);
      expect([code, stdout]).toEqual([1, ""]);
      expect(stderr).toContain(`what answers at ${strange} is no rpmsg-bridge, or one of another version`);
    }
  });
});
