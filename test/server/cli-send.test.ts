import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { EndpointList } from "../../schemas/index.ts";
import type { Finished, StartOptions } from "./cli-support.ts";
import { Command } from "./cli-support.ts";
import { eventually, testDirectory } from "./support.ts";

let bridge: Command;
let url: string;

beforeAll(async () => {
  bridge = new Command([
    ...["serve", "--listen", "127.0.0.1:0", "--guest", "demo=emulated"],
    // Nobody ever connects there.
    ...["--guest", "vm=vhost-user:/tmp/rpmsg-cli-send-test.sock", "--announce", "vm/raw@1040"],
    ...["--announce", "demo/two words@1040", "--announce", "demo/a@b@1041", "--announce", "demo/echo@1043"],
  ]);
  url = await bridge.url();
});

afterAll(async () => {
  expect((await bridge.kill("SIGTERM")).code).toBe(0);
});

const run = (args: string[], options?: StartOptions): Promise<Finished> =>
  Command.run(["send", ...args], { environment: { RPMSG_BRIDGE_URL: url }, ...options });

/** Messages that an endpoint has got. */
async function counted(at: string, name: string): Promise<number> {
  const list = (await (await fetch(`${at}/api/v1/endpoints?name=${name}`)).json()) as EndpointList;
  return list.endpoints[0]?.counters.messagesToGuest ?? 0;
}

describe("send", () => {
  test("says nothing and exits 0 when the message is with the guest", async () => {
    expect(await run(["demo/sink", "hello"])).toEqual({ code: 0, signal: null, stdout: "", stderr: "" });
    const { stdout } = await run(["demo/sink", "stat", "--wait"]);
    expect(JSON.parse(stdout)).toEqual({ messages: 1, bytes: 5 });
  });

  const guestEcho = ["demo/echo", "--origin", "guest"];
  test.each([
    [[...guestEcho, "hello", "--wait"], "hello\n"],
    [[...guestEcho, "grüß 🦊", "--wait", "5"], "grüß 🦊\n"],
    [[...guestEcho, "", "--wait"], "\n"],
    [[...guestEcho, "00ff 0A", "--hex", "--wait"], "00ff0a\n"],
    [[...guestEcho, "hello", "--wait", "--json"], '{"src":1024,"data":"hello","encoding":"utf8"}\n'],
    [[...guestEcho, "ff00", "--hex", "--wait", "--json"], '{"src":1024,"data":"ff00","encoding":"hex"}\n'],
    [[...guestEcho, "hello", "--json"], '{"result":"sent"}\n'],
    [[...guestEcho, "x", "--wait", "--local", "0x1388"], "x\n"],
    [[...guestEcho, "x", "--wait", "--dst", "0x400"], "x\n"],
    [[...guestEcho, "x", "--wait", "--share", "exclusive", "--timeout", "0.5"], "x\n"],
    [["demo/two words", "x", "--wait", "--share", "private"], "x\n"],
    [["demo/a@b@1041", "x", "--wait", "--share", "private"], "x\n"],
    [["demo/echo@1024", "x", "--wait"], "x\n"],
    [["demo/~e1", "x", "--wait", "--share", "private"], "x\n"],
  ])("%j prints %j", async (args, expected) => {
    const { code, stdout, stderr } = await run(args);
    expect([code, stdout, stderr]).toEqual([0, expected, ""]);
  });

  test.each([
    ["bytes as they are", [], Buffer.from([0, 255, 10]), "00ff0a"],
    ["digits with --hex", ["--hex"], "00 ff\n0a\n", "00ff0a"],
    ["nothing", [], "", ""],
  ])("- sends standard input: %s", async (_what, flags, input, expected) => {
    const others = ["connect", "demo/two words", "--share", "shared", "--json", "--hex", "--url", url];
    const listening = Command.start(others);
    await listening.line();
    const { code, stderr } = await run(["demo/two words", "-", ...flags], { input });
    expect([code, stderr]).toEqual([0, ""]);
    expect(JSON.parse(await listening.line())).toMatchObject({ type: "message", data: expected });
    listening.endInput();
    await listening.finished;
  });

  test("a reply that is not text is shown byte by byte, and as base64 in JSON", async () => {
    const input = Buffer.from([0xff, 0x41]);
    const shown = Command.start(["send", ...guestEcho, "-", "--wait", "--url", url], { input });
    expect(await shown.bytes()).toEqual(Buffer.from([0xff, 0x41, 0x0a]));
    const { stdout } = await run([...guestEcho, "-", "--wait", "--json"], { input });
    expect(JSON.parse(stdout)).toEqual({ src: 1024, data: "/0E=", encoding: "base64" });
  });

  test.each([
    [["demo/nothing", "x"], "(endpoint-unknown): rpmsg-bridge ls lists those that there are."],
    [["nobody/echo", "x"], "(guest-unknown): rpmsg-bridge guests lists those that there are."],
    [["demo/echo@1024", "x".repeat(497)], "message of 497 bytes, the most is 496 (too-large): "],
    [["demo/echo@1024", "x".repeat(497), "--wait"], "(too-large): "],
    [["demo/echo@1024", "x", "--local", "53"], "(local-in-use): Choose another --local"],
    [["demo/echo@1024", "x", "--local", "nonsense"], "local: "],
    [["demo/echo@1024", "x", "--dst", "99"], "(forbidden): Send to the channel's peer"],
    [["demo/echo@1024", "x", "--dst", "53"], "(forbidden): "],
    [["demo/sink", "x", "--wait", "0.2"], "no reply within 0.2 seconds (no-reply): "],
    [
      ["vm/raw", "x", "--timeout", "0.2"],
      "rpmsg-bridge: The guest has not spoken on this endpoint yet: wait",
    ],
    [["vm/raw", "x", "--timeout", "0.2", "--wait"], "(no-peer)"],
  ])("%j is exit code 1, with the code and what to do", async (args, words) => {
    const { code, stdout, stderr } = await run(args);
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toMatch(/^rpmsg-bridge: [^()]*\([a-z-]+\)(: [^()]*)?\n$/);
    // What to do is said once.
    const sentences = stderr.split(/[:.]\s/);
    expect(new Set(sentences).size).toBe(sentences.length);
    expect(stderr).toContain(words);
  });

  test("standard input that is longer than any message is not read to its end", async () => {
    const endless = Command.start(["send", "demo/sink", "-", "--url", url]);
    endless.type("x".repeat(65_536));
    expect(await endless.finished).toMatchObject({ code: 1, stderr: expect.stringContaining("(too-large)") });
  });

  test("a reset of the guest before a reply is exit code 1", async () => {
    const socket = `${testDirectory()}/vm.sock`;
    const own = Command.start(["serve", "--listen", "127.0.0.1:0", "--guest", `vm=vhost-user:${socket}`]);
    const guest = Command.start(["guest", "--socket", socket]);
    await guest.line();
    const ownUrl = await own.url();
    const waiting = Command.start(["send", "vm/sink", "x", "--wait", "60", "--url", ownUrl]);
    await eventually("it is sent", async () => ((await counted(ownUrl, "sink")) > 0 ? true : undefined));
    await guest.kill("SIGKILL");
    expect(await waiting.finished).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("(guest-gone)"),
    });
  });

  test("SIGTERM while it waits frees the endpoint at once", async () => {
    const exclusive = ["demo/sink", "x", "--share", "exclusive", "--url", url];
    const before = await counted(url, "sink");
    const waiting = Command.start(["send", ...exclusive, "--wait", "60"]);
    await eventually("it is sent", async () => ((await counted(url, "sink")) > before ? true : undefined));
    expect(await waiting.kill("SIGTERM")).toMatchObject({ code: null, signal: "SIGTERM" });
    expect(await run(exclusive)).toMatchObject({ code: 0 });
  });
});
