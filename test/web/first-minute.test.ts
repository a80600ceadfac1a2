import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { missingBrowser } from "../client/chromium.ts";
import { ROOT, shell } from "../examples/project.ts";
import { terminals } from "../server/cli-support.ts";
import { testDirectory } from "../server/support.ts";
import { missingTool } from "../support/missing-tool.ts";

// scripts/first-minute.js without the clone and `npm ci`, which takes this test's place where it is run by hand, and in
// all states that are no good ones. Needs `npm run build`.

const missing = missingBrowser() ?? missingTool("git") ?? (terminals ? undefined : "no script of util-linux");

/** Runs it, and looks whether it left anything behind in the folder for temporary files. */
function firstMinute(args: string, environment: NodeJS.ProcessEnv = {}) {
  const directory = testDirectory();
  const { child, exited } = shell(`exec node scripts/first-minute.js ${args}`, ROOT, {
    TMPDIR: directory,
    ...environment,
  });
  const output = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name].setEncoding("utf8").on("data", (part: string) => {
      output[name] += part;
    });
  }
  const ended = exited.then(([code]) => {
    expect(readdirSync(directory)).toEqual([]);
    return { code, ...output };
  });
  return { child, ended };
}

/** A repository with that README and those scripts. */
function repository(quickStart: string, scripts: Record<string, string> = {}): string {
  const directory = join(testDirectory(), "repository");
  mkdirSync(directory);
  writeFileSync(join(directory, "README.md"), `# Name\n\n\`\`\`sh\n${quickStart}\n\`\`\`\n`);
  writeFileSync(join(directory, "package.json"), JSON.stringify({ scripts }));
  const author = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"];
  for (const args of [
    ["init", "--quiet"],
    ["add", "."],
    [...author, "commit", "--quiet", "-m", "all"],
  ]) {
    expect(spawnSync("git", args, { cwd: directory }).status).toBe(0);
  }
  return directory;
}

describe.skipIf(missing !== undefined)(
  `the first minute${missing ? ` (not here: ${missing})` : ""}`,
  { timeout: 120_000 },
  () => {
    test("npm start on a terminal, its address in a browser, a click on the sensor: the plot moves", async () => {
      const { ended } = firstMinute("--here --within 1000");
      const { code, stdout, stderr } = await ended;
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      const steps = [...stdout.matchAll(/^ *\d+\.\d s {2}(.*)$/gm)].map(([, step]) => step);
      expect(steps).toEqual([
        expect.stringMatching(/^npm start: http:\/\/127\.0\.0\.1:\d+\/$/),
        "the page shows the endpoints",
        "the first live message of the sensor",
        "the plot moves",
      ]);
      expect(stdout).toMatch(/^live data after \d+\.\d s, within 1000 s /m);
    });

    test("longer than the limit is a failure, and all figures are told", async () => {
      const { code, stdout } = await firstMinute("--here --within 0.001").ended;
      expect(code).toBe(1);
      expect(stdout).toMatch(/the plot moves\nlive data after \d+\.\d s, MORE THAN 0\.001 s/);
    });

    test.each<[string, () => string, NodeJS.ProcessEnv, RegExp]>([
      [
        "no browser",
        () => "--here",
        { CHROMIUM: "/nowhere" },
        /no browser at \/nowhere: apt-get install chromium/,
      ],
      ["no repository", () => "/nowhere", {}, /git clone \/nowhere: exit code 128\n.*does not exist/s],
      [
        "a README that begins otherwise",
        () => repository("make"),
        {},
        /README\.md: .* does not end with npm start: make$/m,
      ],
      [
        "a command that fails",
        () => repository("ls /nowhere && npm start # serves"),
        {},
        /^first-minute: ls \/nowhere: exit code 2\nls: .*nowhere/m,
      ],
      [
        "a start that fails",
        () => repository("true && npm start", { start: "echo no port; exit 3" }),
        {},
        /^first-minute: npm start: exit code 3\n.*no port/ms,
      ],
      ["no limit", () => "--here --within soon", {}, /--within soon: not a number of seconds/],
    ])("%s is said", async (_, args, environment, said) => {
      const { code, stderr } = await firstMinute(args(), environment).ended;
      expect(code).toBe(1);
      expect(stderr).toMatch(said);
    });

    test("interrupted, it ends what it has started", async () => {
      const fifo = join(testDirectory(), "fifo");
      expect(spawnSync("mkfifo", [fifo]).status).toBe(0);
      const start = `exec > ${fifo}; echo begun; exec sleep 1000`;
      const { child, ended } = firstMinute(repository("npm start", { start }));
      const reader = shell(`cat ${fifo}`, ROOT);
      expect(await once(reader.child.stdout.setEncoding("utf8"), "data")).toEqual(["begun\n"]);
      child.kill("SIGTERM");
      const { code, stderr } = await ended;
      expect({ code, stderr }).toEqual({ code: 1, stderr: "first-minute: interrupted (SIGTERM)\n" });
      // Whoever holds the other end has gone.
      await reader.exited;
    });
  },
);
