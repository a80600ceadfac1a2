import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Command, Terminal, terminals } from "./cli-support.ts";
import { testDirectory } from "./support.ts";

const why = terminals ? "" : " (not here: there is no `script` of util-linux)";

/** What a shell on the terminal does around the command, to see that the terminal is left as it was. */
function around(command: string): string {
  return `trap : INT; before=$(stty -g); ${command}; echo "exit code $?"; [ "$(stty -g)" = "$before" ] && echo restored`;
}

/** The same, with a process id to send signals to. */
const CONNECT = around(`sh -c 'echo "process $$."; exec rpmsg-bridge connect demo/tty'`);

let bridge: Command;
let url: string;

beforeAll(async () => {
  bridge = new Command(["serve", "--listen", "127.0.0.1:0"]);
  url = await bridge.url();
});

afterAll(async () => {
  expect((await bridge.kill("SIGTERM")).code).toBe(0);
});

const open = (command: string, at = url): Terminal => new Terminal(command, { RPMSG_BRIDGE_URL: at });

/** A terminal that is connected to the guest's shell. */
async function shell(at?: string): Promise<Terminal> {
  const terminal = open(CONNECT, at);
  await terminal.expect("connected to demo/tty, ctrl-] leaves\r\n");
  return terminal;
}

describe.skipIf(!terminals)(`connect to a tty, on a terminal${why}`, () => {
  test("keys go to the guest one by one, and ctrl-] leaves the terminal as it was", async () => {
    const terminal = await shell();
    // It is the guest that shows what is typed: nothing else does.
    terminal.type("u");
    expect(await terminal.expect("u")).toBe("u");
    terminal.type("name\r");
    expect(await terminal.expect("demo# ")).toBe(
      "name\r\nrpmsg-bridge emulated guest, profile linux\r\ndemo# ",
    );
    terminal.type("\u001d");
    expect(await terminal.expect("exit code 0\r\n")).toBe("\r\nexit code 0\r\n");
    await terminal.expect("restored");
  });

  test("what is typed before ctrl-] still arrives, what comes after it does not", async () => {
    const terminal = open(around("rpmsg-bridge connect --raw --local 5000 --share shared demo/sink"));
    await terminal.expect("leaves\r\n");
    terminal.type("abc\u001ddef");
    await terminal.expect("exit code 0");
    const { stdout } = await Command.run(["send", "demo/sink", "stat", "--wait", "--url", url]);
    expect(JSON.parse(stdout)).toEqual({ messages: 1, bytes: 3 });
  });

  test("keys that mean something to the terminal mean nothing to it now", async () => {
    const terminal = await shell();
    // ctrl-c, which the guest answers, and ctrl-z, -\, -s, -q, -v, -d, -o, -r, -w, -u, -l, which it ignores.
    terminal.type("abc\u0003");
    await terminal.expect("^C\r\ndemo# ");
    terminal.type("x\u001a\u001c\u0013\u0011\u0016\u0004\u000f\u0012\u0017\u0015\u000cy");
    expect(await terminal.expect("xy")).toBe("xy");
    terminal.type("\u007f\u007fecho still here\r");
    await terminal.expect("echo still here\r\nstill here\r\ndemo# ");
  });

  test("what the guest sends reaches the terminal as it is: a line feed alone does not return the carriage", async () => {
    const terminal = open(around("rpmsg-bridge connect --raw demo/echo"));
    await terminal.expect("leaves\r\n");
    terminal.type("a\nb\r\nc\u001b[31m\u0000\u00ff.");
    expect(await terminal.expect(".")).toBe("a\nb\r\nc\u001b[31m\u0000\u00ff.");
  });

  test("a paste of more than a message, with characters of several bytes, arrives as it is", async () => {
    const terminal = open(around("rpmsg-bridge connect --raw demo/echo"));
    await terminal.expect("leaves\r\n");
    const paste = `${"grüß 🦊\r".repeat(1000)}end`;
    terminal.type(paste);
    expect(await terminal.expect("end")).toBe(paste);
    const lines = await shell();
    lines.type("echo pasted\r".repeat(100));
    for (let i = 0; i < 100; i++) await lines.expect("\r\npasted\r\ndemo# ");
  });

  test.each([
    ["SIGTERM", 143],
    ["SIGINT", 130],
    ["SIGHUP", 129],
  ] as const)("%s ends it, and leaves the terminal as it was", async (signal, code) => {
    const terminal = open(CONNECT);
    const [, pid] = /process (\d+)\./.exec(await terminal.expect("leaves\r\n")) ?? [];
    process.kill(Number(pid), signal);
    await terminal.expect(`exit code ${code}`);
    await terminal.expect("restored");
  });

  test("the end of the bridge is told on a line of its own, and leaves the terminal as it was", async () => {
    const own = Command.start(["serve", "--listen", "127.0.0.1:0"]);
    const terminal = await shell(await own.url());
    await own.kill("SIGKILL");
    expect(await terminal.expect("exit code 1")).toMatch(
      /^\r\nrpmsg-bridge: the connection broke off: .*\r\n/,
    );
    await terminal.expect("restored");
  });

  test("the reset of a guest is told, with its new generation, and leaves the terminal as it was", async () => {
    const socket = `${testDirectory()}/vm.sock`;
    const own = Command.start([
      ...["serve", "--listen", "127.0.0.1:0"],
      ...["--guest", `demo=vhost-user:${socket}`],
    ]);
    const guest = Command.start(["guest", "--socket", socket]);
    await guest.line();
    const terminal = await shell(await own.url());
    await guest.kill("SIGKILL");
    const shown = await terminal.expect("exit code 1");
    expect(shown).toContain("rpmsg-bridge: the endpoint is down: reset, guest demo is at generation 2\r\n");
    expect(shown).toMatch(/\r\nrpmsg-bridge: the connection ended with 4001: .*\(guest-gone\).*\r\n/);
    await terminal.expect("restored");
  });
});

describe.skipIf(!terminals)(`connect to another endpoint, on a terminal${why}`, () => {
  test("lines are messages, and ctrl-d leaves", async () => {
    const terminal = open(around("rpmsg-bridge connect demo/echo"));
    await terminal.expect("connected to demo/echo, ctrl-d leaves\r\n");
    terminal.type("hello\n");
    // Once from the terminal, once from the guest.
    await terminal.expect("hello\r\nhello\r\n");
    terminal.type("\u0004");
    await terminal.expect("exit code 0");
    await terminal.expect("restored");
  });

  test("--no-raw gives lines for a tty too, --hex digits", async () => {
    const terminal = open(around("rpmsg-bridge connect --no-raw demo/tty"));
    await terminal.expect("ctrl-d leaves\r\n");
    terminal.type("\u0004");
    await terminal.expect("exit code 0");
    const hex = open(around("rpmsg-bridge connect --hex demo/tty"));
    await hex.expect("ctrl-d leaves\r\n");
    hex.type("61\n");
    await hex.expect("61\r\n61\r\n");
  });

  test("ctrl-c ends it as it ends others", async () => {
    const terminal = open(around("rpmsg-bridge connect demo/echo"));
    await terminal.expect("leaves\r\n");
    terminal.type("\u0003");
    await terminal.expect("exit code 130");
  });
});
