import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { Authority } from "./certificates.ts";
import { Terminal, terminals } from "./cli-support.ts";
import { opcode, RawClient } from "./raw-client.ts";
import { testDirectory } from "./support.ts";

const SERVE = "exec rpmsg-bridge serve --listen 127.0.0.1:0 --config bridge.yaml";
/** 1001 (RFC 6455, section 7.4.1). */
const GOING_AWAY = Buffer.from([0x03, 0xe9]);

/** A directory for a bridge below a shell, and what the shell writes there. */
class Place {
  readonly directory = testDirectory();

  /** `tls` of the configuration. The bridge waits for its clients longer than a test lasts. */
  constructor(tls = "") {
    writeFileSync(join(this.directory, "bridge.yaml"), `limits: { drainTimeout: 300000 }\n${tls}`);
    onTestFinished(() => {
      if (this.has("pid") && existsSync(`/proc/${this.pid}`)) process.kill(this.pid, "SIGKILL");
    });
  }

  /** What a shell runs here, in single quotes: the number of its process is that of the bridge. */
  command(serve: string): string {
    return `sh -c 'cd ${this.directory}; echo $$ >pid; ${serve}'`;
  }

  /** The same, by a shell that stays when the terminal is closed, for the exit code. */
  counted(serve: string): string {
    return `trap "" HUP; ${this.command(serve)}; echo $? >${this.directory}/code`;
  }

  has(name: string): boolean {
    return existsSync(join(this.directory, name));
  }

  read(name: string): string {
    return readFileSync(join(this.directory, name), "utf8");
  }

  /** Waits until that file has that text. */
  says(name: string, text: string): Promise<string> {
    const all = (): string => {
      const read = this.read(name);
      if (!read.includes(text)) throw new Error(`not in ${name}: ${text}, but ${read}`);
      return read;
    };
    return vi.waitFor(all, { timeout: 60_000 });
  }

  get pid(): number {
    return Number(this.read("pid"));
  }

  /** Waits until the bridge has handled that signal. */
  async signal(signal: NodeJS.Signals, url: string): Promise<void> {
    process.kill(this.pid, signal);
    // It came before them: the first may be answered in the same turn of the event loop, the second is not.
    for (let n = 0; n < 2; n++) await fetch(`${url}/healthz`, { headers: { connection: "close" } });
  }
}

const urlIn = (text: string): string => /http:\/\/127\.0\.0\.1:\d+/.exec(text)?.[0] ?? "no URL";

describe.skipIf(!terminals)("serve, when its terminal is closed", () => {
  // A shell sends SIGHUP to its jobs, and the kernel sends it where the shell ends: here both come for certain.
  test.each([
    ["", "SIGHUP"],
    ["2>bridge.log", "SIGHUP"],
    ["</dev/null 2>bridge.log", "SIGHUP"],
    // Somebody presses Ctrl-C, and does not wait.
    ["2>bridge.log", "SIGINT"],
  ] as const)("%j: drains after %s and then SIGHUP, and ends with 0", async (redirection, first) => {
    const place = new Place();
    const terminal = new Terminal(place.counted(`${SERVE} ${redirection}`));
    const url = urlIn(await terminal.expect('"}'));
    const client = await RawClient.open(url, "/ws/v1/demo/echo");
    await terminal.close();
    process.kill(place.pid, first);
    expect(await client.closeCode()).toBe(1001);
    await place.signal("SIGHUP", url);
    // As long as it does not answer the drain goes on.
    client.send(opcode.close, GOING_AWAY);
    expect(await place.says("code", "\n")).toBe("0\n");
    if (redirection.includes("bridge.log")) expect(place.read("bridge.log")).toContain('"stopped"');
  });

  test("below an interactive shell, which tells its jobs", async () => {
    const place = new Place();
    const terminal = new Terminal("bash --norc -i");
    terminal.type(`sh -c '${place.counted(`${SERVE} 2>bridge.log`).replaceAll("'", "'\\''")}'\r`);
    const url = urlIn(await terminal.expect('"}'));
    const client = await RawClient.open(url, "/ws/v1/demo/echo");
    await terminal.close();
    expect(await client.closeCode()).toBe(1001);
    client.send(opcode.close, GOING_AWAY);
    expect(await place.says("code", "\n")).toBe("0\n");
    expect(place.read("bridge.log")).toContain('"stopped"');
  });

  test("where nobody sends SIGHUP, ends with 0 at SIGTERM", async () => {
    const place = new Place();
    const terminal = new Terminal(place.counted(SERVE));
    await terminal.expect("Ctrl-c ends it.");
    await terminal.close();
    process.kill(place.pid, "SIGTERM");
    expect(await place.says("code", "\n")).toBe("0\n");
  });

  test("goes on under nohup", async () => {
    const place = new Place();
    // The shell is the first of its session: with it every process here gets SIGHUP.
    const terminal = new Terminal(`${place.command(SERVE.replace("exec", "exec nohup"))}; true`);
    const url = urlIn(await place.says("nohup.out", '"}\n'));
    await terminal.close();
    await place.signal("SIGHUP", url);
    expect((await fetch(`${url}/readyz`)).status).toBe(200);
    process.kill(place.pid, "SIGTERM");
    await place.says("nohup.out", '"stopped"');
  });
});

test.skipIf(!terminals)("SIGHUP reloads as long as the terminal is there", async () => {
  const { cert, key } = new Authority(testDirectory()).issue("bridge");
  const place = new Place(`tls: { cert: ${cert}, key: ${key} }\n`);
  const terminal = new Terminal(place.command(SERVE));
  await terminal.expect("Ctrl-c ends it.");
  process.kill(place.pid, "SIGHUP");
  await terminal.expect("tls-reloaded");
  terminal.type("\u0003");
  await terminal.expect("stopped");
});
