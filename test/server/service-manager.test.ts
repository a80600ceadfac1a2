import type { ChildProcess } from "node:child_process";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { describe, expect, onTestFinished, test } from "vitest";
import { missingTool, titledWith } from "../support/missing-tool.ts";
import { Command } from "./cli-support.ts";
import { testDirectory } from "./support.ts";

const noPython = missingTool("python3");

// What systemd has of a service, in another language: a datagram socket at a path or with an abstract name.
const RECEIVER = `
import json, socket, sys
name = sys.argv[1]
receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
receiver.bind("\\0" + name[1:] if name.startswith("@") else name)
print('"bound"', flush=True)
while True:
    print(json.dumps(receiver.recv(8192).decode()), flush=True)
`;

/** A service manager that keeps what it is told. */
class Receiver {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  private constructor(name: string) {
    this.#child = spawn("python3", ["-c", RECEIVER, name], { stdio: ["ignore", "pipe", "inherit"] });
    onTestFinished(() => {
      this.#child.kill();
    });
    this.#lines = createInterface({ input: this.#child.stdout as NodeJS.ReadableStream })[
      Symbol.asyncIterator
    ]();
  }

  static async start(name: string): Promise<Receiver> {
    const receiver = new Receiver(name);
    expect(await receiver.next()).toEqual(["bound"]);
    return receiver;
  }

  /** The next message, by lines. */
  async next(): Promise<string[]> {
    const { value, done } = await this.#lines.next();
    if (done === true) throw new Error("the receiver has ended");
    return (JSON.parse(value) as string).split("\n");
  }
}

const serve = (environment: NodeJS.ProcessEnv) =>
  Command.start(["serve", "--listen", "127.0.0.1:0"], { environment });

describe("a service manager", () => {
  const told = titledWith(noPython, "%s is told that the bridge listens, lives and stops");
  test.skipIf(noPython !== undefined).each([
    ["at a path", () => join(testDirectory(), "notify")],
    ["with an abstract name", () => `@rpmsg-bridge/${process.pid}`],
  ])(told, async (_, name) => {
    const socket = name();
    const receiver = await Receiver.start(socket);
    const bridge = serve({ NOTIFY_SOCKET: socket, WATCHDOG_USEC: "20000" });
    const url = await bridge.url();
    const ready = await receiver.next();
    expect(ready).toEqual(["READY=1", expect.stringMatching(/^MAINPID=\d+$/), `STATUS=listening on ${url}`]);
    for (let i = 0; i < 3; i++) expect(await receiver.next()).toEqual(["WATCHDOG=1"]);
    void bridge.kill("SIGTERM");
    let message = await receiver.next();
    while (message[0] === "WATCHDOG=1") message = await receiver.next();
    expect(message).toEqual(["STOPPING=1", "STATUS=draining"]);
    expect(await bridge.finished).toMatchObject({ code: 0 });
  });

  const silent = titledWith(noPython, "without WATCHDOG_USEC hears no sign of life");
  test.skipIf(noPython !== undefined)(silent, async () => {
    const socket = join(testDirectory(), "notify");
    const receiver = await Receiver.start(socket);
    const bridge = serve({ NOTIFY_SOCKET: socket, WATCHDOG_USEC: "soon" });
    expect((await receiver.next())[0]).toBe("READY=1");
    void bridge.kill("SIGTERM");
    expect((await receiver.next())[0]).toBe("STOPPING=1");
  });

  test.each([
    ["nobody is there", async () => join(testDirectory(), "nobody"), "ENOENT"],
    ["it is a stream socket", streamSocket, "EPROTOTYPE"],
    ["the name is too long", async () => `/${"x".repeat(200)}`, "ENAMETOOLONG"],
  ])("where %s, the log says so and the bridge serves", async (_, name, reason) => {
    const bridge = serve({ NOTIFY_SOCKET: await name() });
    const url = await bridge.url();
    await bridge.says(reason);
    expect((await fetch(`${url}/readyz`)).status).toBe(200);
    const { code, stderr } = await bridge.kill("SIGTERM");
    expect(code).toBe(0);
    const said = stderr.split("\n").filter((line) => line.includes("notify-failed"));
    expect(said).toHaveLength(1);
  });
});

async function streamSocket(): Promise<string> {
  const path = join(testDirectory(), "stream");
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(path, resolve));
  onTestFinished(() => {
    server.close();
  });
  expect(existsSync(path)).toBe(true);
  return path;
}
