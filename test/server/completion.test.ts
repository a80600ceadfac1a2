import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Command, shellPath, Terminal, terminals } from "./cli-support.ts";
import { testDirectory } from "./support.ts";

const zsh = spawnSync("zsh", ["-f", "-c", "exit 0"]).status === 0;

let bridge: Command;
let url: string;

beforeAll(async () => {
  bridge = new Command([
    ...["serve", "--listen", "127.0.0.1:0", "--guest", "demo=emulated", "--guest", "delta=emulated"],
    ...["--announce", "demo/two words@1040", "--announce", "demo/a@b@1041", "--announce", "demo/gruß"],
    ...["--announce", "demo/x$(touch ran)", "--announce", 'demo/y"`touch ran`'],
  ]);
  url = await bridge.url();
});

afterAll(async () => {
  expect((await bridge.kill("SIGTERM")).code).toBe(0);
});

/** Commands, each with its options, as help shows them. */
async function commandsOfHelp(
  path: string[] = [],
): Promise<Map<string, { commands: string[]; options: string[] }>> {
  const { stdout } = await Command.run([...path, "--help"]);
  const section = (title: string): string =>
    new RegExp(`^${title}:\n((?: .*\n)+)`, "m").exec(stdout)?.[1] ?? "";
  const commands = [...section("Commands").matchAll(/^ {2}([a-z]+)/gm)].map(([, name = ""]) => name);
  const options = [...section("Options").matchAll(/^ {2}(?:(-[a-z]), )?(--[a-z-]+)/gm)].flatMap(
    ([, short, long = ""]) => (short === undefined ? [long] : [long, short]),
  );
  const all = new Map([[path.join(" "), { commands, options }]]);
  // Help of help is that of the program.
  for (const name of commands.filter((each) => each !== "help")) {
    for (const [key, value] of await commandsOfHelp([...path, name])) all.set(key, value);
  }
  return all;
}

/** The words of a line as readline gives them: cut at white space, and before and after `=`, `:` and `@`. */
function readlineWords(line: string): string[] {
  const words = line.match(/(?:"[^"]*"?|'[^']*'?|\\.|[^\s=:@"'\\])+|[=:@]+|\s+/g) ?? [];
  const cut = words.filter((word) => word.trim() !== "" || word === "");
  return /\s$/.test(line) && !/\\\s$/.test(line) && !/["'][^"']*$/.test(line) ? [...cut, ""] : cut;
}

/** What readline replaces: the last word, without the quote that opens it. An `@` before it is a part of it. */
function replacedPart(words: readonly string[]): string {
  const [before, last = ""] = words.slice(-2);
  if (last.endsWith("@")) return "@";
  if (/^[=:]+$/.test(last)) return "";
  return (before === "@" ? "@" : "") + last.replace(/^["']/, "");
}

/** `ask LINE WORD...`: prints what is offered, NUL behind each, and at the end a line. */
const ASK = `
set -u
source <(rpmsg-bridge completion bash)
function=$(complete -p rpmsg-bridge); function=\${function##*-F }; function=\${function%% *}
ask() {
  COMP_LINE=$1 COMP_POINT=\${#1} COMP_WORDS=("\${@:2}") COMP_CWORD=$(($# - 2)) COMPREPLY=()
  "$function" rpmsg-bridge "$REPLACED" ""
  printf "%s\\0" \${COMPREPLY[@]+"\${COMPREPLY[@]}"} $'\\n'
}`;

/** What bash would offer at the end of each line, from completion functions called as readline calls them. */
function askBash(lines: string[], environment: NodeJS.ProcessEnv = { RPMSG_BRIDGE_URL: url }): string[][] {
  const script = join(testDirectory(), "ask.bash");
  const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
  const questions = lines.map((line) => {
    const words = readlineWords(line);
    const question = `ask ${[line, ...words].map(quoted).join(" ")}`;
    return `REPLACED=${quoted(replacedPart(words))} ${question}`;
  });
  writeFileSync(script, [ASK, ...questions].join("\n"));
  const env = { PATH: shellPath(), LC_ALL: "C.UTF-8", ...environment };
  const output = execFileSync("bash", ["--norc", script], { env, encoding: "utf8" });
  return output
    .split("\n\0")
    .slice(0, -1)
    .map((each) => each.split("\0").slice(0, -1));
}

describe("completion of bash", () => {
  test("every command and option that help shows is completed, and nothing else", async () => {
    const all = await commandsOfHelp();
    expect(all.size).toBeGreaterThan(10);
    const paths = [...all.keys()];
    const prefix = (path: string): string =>
      ["rpmsg-bridge", ...path.split(" ")].filter((each) => each !== "").join(" ");
    const options = askBash(paths.map((path) => `${prefix(path)} -`));
    for (const [i, path] of paths.entries()) {
      expect(options[i]?.toSorted(), path).toEqual(all.get(path)?.options.toSorted());
    }
    const parents = paths.filter((path) => all.get(path)?.commands.length !== 0);
    expect(parents).toEqual(["", "config"]);
    for (const [i, offered] of askBash(parents.map((path) => `${prefix(path)} `)).entries()) {
      expect(offered.toSorted()).toEqual(all.get(parents[i] ?? "")?.commands.toSorted());
    }
  });

  test.each([
    ["con", ["connect", "config"]],
    ["nothing", []],
    ["ls --gu", ["--guest"]],
    ["help con", ["connect", "config"]],
    ["completion ", ["bash", "zsh"]],
    ["connect --share ", ["private", "shared", "exclusive"]],
    ["connect --share=", ["private", "shared", "exclusive"]],
    ["connect --share=sh", ["shared"]],
    ["connect --slow d", ["drop-oldest", "drop-newest"]],
    ["guest --profile ", ["linux", "openamp", "rpmsg-lite"]],
    ["guest --socket x --profile r", ["rpmsg-lite"]],
    // An option's value is no argument, and an argument no option's value.
    ["connect --local 5 demo/ech", ["demo/echo"]],
    ["connect --hex demo/ech", ["demo/echo"]],
    ["send --wait demo/ech", ["demo/echo"]],
    ["connect --local d", []],
    // What is behind the last argument.
    ["send demo/echo ", []],
    ["connect demo/echo --ta", ["--takeover"]],
  ])("%s", (line, offered) => {
    expect(askBash([`rpmsg-bridge ${line}`])).toEqual([offered]);
  });

  test("guests and endpoints come from the running bridge, and what the shell would run is quoted", () => {
    const [guests, endpoints, ...some] = askBash([
      "rpmsg-bridge ls --guest ",
      "rpmsg-bridge connect demo/",
      "rpmsg-bridge watch --guest=de",
      "rpmsg-bridge info delta/s",
      "rpmsg-bridge send demo/two\\ w",
      'rpmsg-bridge send "demo/two w',
      "rpmsg-bridge send 'demo/two w",
      "rpmsg-bridge connect demo/a@",
      "rpmsg-bridge connect 'demo/a@",
      "rpmsg-bridge connect demo/gr",
      "rpmsg-bridge connect demo/x",
      'rpmsg-bridge connect "demo/x',
      "rpmsg-bridge connect 'demo/x",
      'rpmsg-bridge connect "demo/y',
    ]);
    expect(guests).toEqual(["demo", "delta"]);
    expect(endpoints?.toSorted()).toEqual(
      [
        ...["demo/echo", "demo/tty", "demo/sensor", "demo/source", "demo/sink"],
        ...[
          "demo/two\\ words",
          "demo/a@b",
          "demo/gruß",
          "demo/x\\$\\(touch\\ ran\\)",
          'demo/y\\"\\`touch\\ ran\\`',
        ],
      ].toSorted(),
    );
    expect(some).toEqual([
      ["demo", "delta"],
      ["delta/sensor", "delta/source", "delta/sink"],
      ["demo/two\\ words"],
      ["demo/two words"],
      ["demo/two words"],
      ["@b"],
      ["demo/a@b"],
      ["demo/gruß"],
      ["demo/x\\$\\(touch\\ ran\\)"],
      [],
      ["demo/x$(touch ran)"],
      [],
    ]);
  });

  test("the bridge is the one that the line names; without one nothing is offered, and nothing said", async () => {
    const nowhere = { RPMSG_BRIDGE_URL: "http://127.0.0.1:1" };
    expect(
      askBash(
        [
          "rpmsg-bridge connect demo/ech",
          `rpmsg-bridge connect --url ${url} demo/ech`,
          `rpmsg-bridge connect --url=${url} demo/ech`,
          `rpmsg-bridge connect --token x --url "${url}" demo/ech`,
          "rpmsg-bridge connect --url",
        ],
        nowhere,
      ),
    ).toEqual([[], ["demo/echo"], ["demo/echo"], ["demo/echo"], ["--url"]]);
    expect(await Command.run(["complete", "guests"], { environment: nowhere })).toEqual({
      ...{ code: 0, signal: null },
      ...{ stdout: "", stderr: "" },
    });
  });

  test("files where a file is wanted", () => {
    const directory = testDirectory();
    writeFileSync(join(directory, "bridge one.yaml"), "");
    const [check, config, socket] = askBash([
      `rpmsg-bridge config check ${directory}/br`,
      `rpmsg-bridge serve --config=${directory}/br`,
      `rpmsg-bridge guest --socket ${directory}/br`,
    ]);
    expect([check, config, socket]).toEqual(
      Array.from({ length: 3 }, () => [`${directory}/bridge one.yaml`]),
    );
  });

  test("a bridge that does not answer does not hold the line up for long", async () => {
    const { createServer } = await import("node:http");
    const silent = createServer(() => {}).listen(0, "127.0.0.1");
    await new Promise((resolve) => silent.once("listening", resolve));
    const { port } = silent.address() as { port: number };
    const finished = await Command.run(["complete", "endpoints", "--url", `http://127.0.0.1:${port}`]);
    expect(finished).toEqual({ code: 0, signal: null, stdout: "", stderr: "" });
    silent.closeAllConnections();
    silent.close();
  });

  test.skipIf(!terminals)("a real shell completes when Tab is pressed", async () => {
    // Short lines: on a terminal this simple, readline moves longer ones to the left.
    const terminal = new Terminal("bash --norc --noprofile -i", { RPMSG_BRIDGE_URL: url, PS1: "$ " });
    terminal.type("source <(rpmsg-bridge completion bash)\n");
    terminal.type("rpmsg-bridge sen\t");
    await terminal.expect("rpmsg-bridge send ");
    terminal.type("demo/two\t");
    await terminal.expect("demo/two\\ words ");
    terminal.type("--sha\tpri\t");
    await terminal.expect("--share private ");
    terminal.type("hello --wait\n");
    await terminal.expect("\nhello\r\n");
    terminal.type("rpmsg-bridge send --origin=h\t");
    await terminal.expect("--origin=host ");
    terminal.type("demo/a@\t");
    await terminal.expect("demo/a@b ");
    terminal.type("hello\n");
    // A name that the shell would run.
    terminal.type("rpmsg-bridge send demo/x\t");
    await terminal.expect("demo/x\\$\\(touch\\ ran\\) ");
    terminal.type("hello --wait --share private\n");
    await terminal.expect("\nhello\r\n");
    expect(existsSync("ran")).toBe(false);
  });
});

// Where skipped tests are failures, zsh need not be there.
if (zsh || process.env["CI"] !== "true") {
  describe.skipIf(!zsh || !terminals)(`completion of zsh${zsh ? "" : " (not here: there is no zsh)"}`, () => {
    /** A zsh that completes our command. */
    async function shell(): Promise<Terminal> {
      const terminal = new Terminal("stty cols 200 rows 100; exec zsh -f -i", { RPMSG_BRIDGE_URL: url });
      const setup = "PS1='$ '; unsetopt prompt_sp beep; unset zle_bracketed_paste; autoload -Uz compinit";
      terminal.type(`${setup}; compinit -u -D; source <(rpmsg-bridge completion zsh); echo re''ady\n`);
      await terminal.expect("ready\r\n");
      return terminal;
    }

    /** What is listed when Tab is pressed behind a line. */
    async function list(terminal: Terminal, line: string): Promise<string[]> {
      terminal.type(`${line}\t`);
      await terminal.expect(line);
      const listed = await terminal.expect(`$ ${line}`);
      terminal.type("\u0015");
      return listed.split(/\s+/);
    }

    test("every command and option that help shows is completed", async () => {
      const terminal = await shell();
      for (const [path, { commands, options }] of await commandsOfHelp()) {
        const line = path === "" ? "rpmsg-bridge" : `rpmsg-bridge ${path}`;
        expect(await list(terminal, `${line} -`)).toEqual(expect.arrayContaining(options));
        if (commands.length === 0) continue;
        expect(await list(terminal, `${line} `)).toEqual(expect.arrayContaining(commands));
      }
    });

    test("Tab completes words, files, guests and endpoints, quoted where the shell would run them", async () => {
      const terminal = await shell();
      const directory = testDirectory();
      writeFileSync(join(directory, "bridge one.yaml"), "");
      for (const [typed, completed] of [
        ["rpmsg-bridge sen", "rpmsg-bridge send "],
        ["rpmsg-bridge connect --share=pri", "--share=private "],
        ["rpmsg-bridge connect --share sh", "--share shared "],
        [`rpmsg-bridge config check ${directory}/br`, `${directory}/bridge\\ one.yaml `],
        ["rpmsg-bridge watch --guest=del", "--guest=delta "],
        ["rpmsg-bridge send demo/two", "demo/two\\ words "],
        ["rpmsg-bridge send demo/a@", "demo/a@b "],
        ["rpmsg-bridge send demo/x", "demo/x\\$\\(touch\\ ran\\) "],
        ['rpmsg-bridge send "demo/x', '"demo/x\\$(touch ran)" '],
        [`rpmsg-bridge connect --url ${url} demo/ec`, "demo/echo "],
      ] as const) {
        terminal.type(`${typed}\t`);
        await terminal.expect(completed);
        terminal.type("\u0015");
      }
    });
  });
}
