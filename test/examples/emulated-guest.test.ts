import { once } from "node:events";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { describe, expect, test } from "vitest";
import { titled, unsupported } from "../rpmsg/posix/support.ts";
import { blocksOf } from "./markdown.ts";
import { project, ROOT, run, shell } from "./project.ts";

// docs/emulated-guest.md: every block of it is run, or is a part of a file that is. Needs `npm run build`.

const EXAMPLE = join(ROOT, "examples/ci-test");
const blocks = blocksOf(readFileSync(join(ROOT, "docs/emulated-guest.md"), "utf8"));
const programs = blocks.flatMap((block, i) => {
  const next = blocks[i + 1];
  return block.language === "ts"
    ? [{ text: block.text, output: next?.language === "text" ? next.text : "" }]
    : [];
});
const commands = blocks.filter(({ language }) => language === "sh").map(({ text }) => text.trim());

const needsSocket = (text: string): boolean => text.includes("vhost-user");

describe.each(programs)("program $#", ({ text, output }) => {
  test.skipIf(needsSocket(text) && unsupported !== undefined)(
    needsSocket(text) ? titled("runs, and prints what is said") : "runs, and prints what is said",
    async () => {
      const directory = project();
      writeFileSync(join(directory, "program.js"), text);
      expect((await run("node program.js", directory)).stdout).toBe(output);
    },
  );
});

test("the programs are TypeScript of the strictest kind", async () => {
  const directory = project();
  for (const [i, { text }] of programs.entries()) writeFileSync(join(directory, `program${i}.ts`), text);
  const tsc = join(ROOT, "node_modules/.bin/tsc");
  const options =
    "--noEmit --strict --exactOptionalPropertyTypes --module nodenext --target es2023 --types node";
  expect((await run(`${tsc} ${options} program*.ts`, directory)).stdout).toBe("");
});

test("what is shown of the example is in its files", () => {
  const files = readdirSync(EXAMPLE).map((name) => readFileSync(join(EXAMPLE, name), "utf8"));
  const shown = blocks.filter(({ language }) => language === "js");
  expect(shown.map(({ text }) => files.some((file) => file.includes(text)))).toEqual([true, true]);
});

test("the test of the example passes", async () => {
  const [command] = commands.filter((each) => each.startsWith("node --test"));
  expect(command).toBeDefined();
  const { stdout } = await run(command as string, ROOT);
  // Which character comes first depends on the reporter, and that on Node.
  expect(stdout).toMatch(/^\S pass 3$/m);
  expect(stdout).toMatch(/^\S fail 0$/m);
});

// npx starts twice, and each time looks for the package first.
test("the board of the example can be tried by hand", { timeout: 60_000 }, async () => {
  const [command] = commands.filter((each) => each.startsWith("npx"));
  expect(command).toBeDefined();
  const { child } = shell(command as string, ROOT, { RPMSG_BRIDGE_LISTEN: "127.0.0.1:0" });
  const [line] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
  const { url } = JSON.parse(line) as { url: string };
  const sessions = blocks.filter(({ language }) => language === "console");
  expect(sessions).toHaveLength(1);
  for (const { text } of sessions) {
    const [typed = "", ...answer] = text.split("\n");
    const { stdout } = await run(typed.replace("$ ", ""), ROOT, { RPMSG_BRIDGE_URL: url });
    expect(stdout).toBe(answer.join("\n"));
  }
});

test("nothing in the document is left out", () => {
  expect(commands).toHaveLength(2);
  expect(new Set(blocks.map(({ language }) => language))).toEqual(
    new Set(["ts", "text", "sh", "console", "js"]),
  );
  expect(programs.length).toBeGreaterThanOrEqual(5);
});
