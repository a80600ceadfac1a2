import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { Command, shellPath } from "./cli-support.ts";
import { testDirectory } from "./support.ts";

const PAGE = readFileSync(new URL("../../docs/command-line.md", import.meta.url), "utf8");

/** Commands of the page that say what they print, in its order. */
const examples = [...PAGE.matchAll(/^```console\n([\s\S]*?)^```$/gm)].flatMap(([, block = ""]) =>
  block.split(/^\$ /m).filter((each) => each !== ""),
);

describe("docs/command-line.md", () => {
  test("each command prints what the page says", async () => {
    const bridge = Command.start(["serve", "--listen", "127.0.0.1:0"]);
    const env = { PATH: shellPath(), RPMSG_BRIDGE_URL: await bridge.url() };
    const cwd = testDirectory();
    expect(examples.length).toBeGreaterThan(10);
    for (const example of examples) {
      const [command = "", ...output] = example.split("\n");
      const shown = execFileSync("sh", ["-c", `{ ${command}; } 2>&1 || true`], {
        env,
        cwd,
        encoding: "utf8",
      });
      expect(shown, command).toBe(output.join("\n"));
    }
  });

  test("there is a section for each command, and one for nothing else", async () => {
    const { stdout } = await Command.run(["--help"]);
    const [, commands = ""] = /^Commands:\n((?: .*\n)+)/m.exec(stdout) ?? [];
    const names = [...commands.matchAll(/^ {2}([a-z]+)/gm)].map(([, name = ""]) => name);
    const sections = [...PAGE.matchAll(/^## (.*)$/gm)].map(([, title = ""]) => title);
    expect(sections.toSorted()).toEqual(names.filter((name) => name !== "help").toSorted());
  });
});
