import { execFile } from "node:child_process";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import type { Endpoint, Guest } from "../../schemas/index.ts";
import { Command } from "../server/cli-support.ts";
import { Client, testDirectory } from "../server/support.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const IMPORT = 'import { EmulatedGuest, echo, service } from "rpmsg-bridge/guest";';

/** A folder with these files, where the package is installed. */
function folder(files: Record<string, string>, installed = true): string {
  const directory = testDirectory();
  if (installed) {
    mkdirSync(join(directory, "node_modules"));
    symlinkSync(ROOT, join(directory, "node_modules", "rpmsg-bridge"));
  }
  writeFileSync(join(directory, "package.json"), '{ "type": "module" }');
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(directory, name)), { recursive: true });
    writeFileSync(join(directory, name), text);
  }
  return directory;
}

/** What comes of each file in a process of its own, as `npm test` has built it: an error, or the guest's profile. */
async function load(directory: string, paths: string[]): Promise<string[]> {
  const script = `
    const { loadEmulatedGuest } = await import(${JSON.stringify(join(ROOT, "dist/server/guests/load-guest.js"))});
    const results = [];
    for (const path of ${JSON.stringify(paths)}) {
      results.push(await loadEmulatedGuest("board", { path }).then((guest) => guest.profile.name, (error) => error.name + ": " + error.message));
    }
    console.log(JSON.stringify(results));
  `;
  const args = ["--input-type=module", "-e", script];
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: directory });
  return JSON.parse(stdout) as string[];
}

describe("the default export of a file", () => {
  test("is a guest, or a function that makes one, soon or later; the path may be absolute", async () => {
    const directory = folder({
      "object.js": `${IMPORT} export default new EmulatedGuest({ profile: "openamp" });`,
      "function.js": `${IMPORT} export default () => new EmulatedGuest({ profile: "rpmsg-lite" });`,
      "lab/promise.mjs": `${IMPORT} export default async () => new EmulatedGuest();`,
      "package.json": '{ "type": "module" }',
    });
    const results = await load(directory, ["object.js", "./function.js", join(directory, "lab/promise.mjs")]);
    expect(results).toEqual(["openamp", "rpmsg-lite", "linux"]);
  });

  const COPY = "class EmulatedGuest {} export default new EmulatedGuest();";
  const mistakes: [file: string, text: string | undefined, reason: string][] = [
    ["missing.js", undefined, "cannot read missing.js: ENOENT"],
    ["folder", undefined, "folder is not a file"],
    ["none.js", "export const guest = 1;", "none.js has no default export: want an EmulatedGuest"],
    [
      "number.js",
      "export default 5;",
      "number.js: want an EmulatedGuest, or a function that returns one, not number",
    ],
    [
      "null.js",
      "export default null;",
      "null.js: want an EmulatedGuest, or a function that returns one, not null",
    ],
    [
      "plain.js",
      "export default { services: {} };",
      "plain.js: want an EmulatedGuest, or a function that returns one, not an object of Object",
    ],
    [
      "nothing.js",
      "export default () => {};",
      "nothing.js: want an EmulatedGuest, or a function that returns one, not undefined",
    ],
    [
      "throws.js",
      'export default () => { throw new Error("no\\nboard"); };',
      "the function that throws.js exports failed: no",
    ],
    [
      "rejects.js",
      'export default () => Promise.reject(new Error("no board"));',
      "the function that rejects.js exports failed: no board",
    ],
    [
      "syntax.js",
      "const a = 1;\nexport default {;",
      "syntax.js: SyntaxError: Unexpected token ';' (node syntax.js shows where)",
    ],
    ["broken.js", 'throw new Error("at its start");', "broken.js: at its start"],
    [
      "copy.js",
      COPY,
      "copy.js: its EmulatedGuest is of another copy of rpmsg-bridge: run the one that is installed beside it (npx rpmsg-bridge)",
    ],
    [
      "name.js",
      `${IMPORT} export default new EmulatedGuest({ services: { "": echo } });`,
      'name.js: service "": a name has 1 to 31 bytes, none of them zero',
    ],
  ];

  test("every mistake is one line that names the key and says what is wrong", async () => {
    const files = mistakes.flatMap(([file, text]) => (text === undefined ? [] : [[file, text]]));
    const directory = folder({ ...(Object.fromEntries(files) as Record<string, string>), "folder/x.js": "" });
    const results = await load(
      directory,
      mistakes.map(([file]) => file),
    );
    expect(results).toEqual(mistakes.map(([, , reason]) => `ConfigError: guests.board.path: ${reason}`));
  });

  test("without the package beside it, it says what to do", async () => {
    const directory = folder({ "board.js": `${IMPORT} export default new EmulatedGuest();` }, false);
    const [result] = await load(directory, ["board.js"]);
    expect(result).toMatch(
      /^ConfigError: guests\.board\.path: board\.js: Cannot find package 'rpmsg-bridge' .*: npm install rpmsg-bridge beside it$/,
    );
  });

  test("in TypeScript, where this Node reads it; otherwise it says which does", async () => {
    const text = `${IMPORT} const profile: "openamp" = "openamp"; export default new EmulatedGuest({ profile });`;
    const [result] = await load(folder({ "board.ts": text }), ["board.ts"]);
    expect(result).toBe(
      (process.features as { typescript?: unknown }).typescript
        ? "openamp"
        : `ConfigError: guests.board.path: board.ts: Node ${process.versions.node} does not read TypeScript: use Node 22.18, 23.6 or newer, or a JavaScript file`,
    );
  });
});

describe("rpmsg-bridge serve --guest NAME=emulated:FILE", () => {
  const FILES = {
    "board.js": `${IMPORT}
      export default () => new EmulatedGuest({
        profile: "openamp",
        services: { upper: service(() => ({ text, reply }) => reply(text.toUpperCase())) },
      });`,
    "one.js": `${IMPORT} export default new EmulatedGuest({ services: { echo } });`,
  };
  const FREE = ["serve", "--listen", "127.0.0.1:0"];

  test("serves its services; a profile that is given goes before its own", async () => {
    const directory = folder(FILES);
    const file = join(directory, "board.js");
    const bridge = Command.start([
      ...[...FREE, "--guest", `a=emulated:${file}`, "--guest", `b=emulated:${file},profile=rpmsg-lite`],
    ]);
    const url = await bridge.url();
    const { guests } = (await (await fetch(`${url}/api/v1/guests`)).json()) as { guests: Guest[] };
    expect(guests.map(({ name, queues }) => [name, queues?.request])).toEqual([
      ["a", 16],
      ["b", 8],
    ]);
    const { endpoints } = (await (await fetch(`${url}/api/v1/endpoints`)).json()) as {
      endpoints: Endpoint[];
    };
    expect(endpoints.map(({ path }) => path)).toEqual(["/ws/v1/a/upper", "/ws/v1/b/upper"]);
    const client = await Client.open(`${url.replace("http", "ws")}/ws/v1/b/upper`);
    client.send("loud");
    expect(await client.text()).toBe("LOUD");
    await client.close();
    expect((await bridge.kill("SIGTERM")).code).toBe(0);
  });

  test.each([
    {
      name: "a missing file",
      guests: ["a=emulated:missing.js"],
      words: "guests.a.path: cannot read missing.js: ENOENT",
    },
    {
      name: "one guest twice",
      guests: ["a=emulated:one.js", "b=emulated:one.js"],
      words:
        "guests.b.path: one.js is in use already: a guest runs at one place at a time, export a function that makes one",
    },
  ])("$name: exit 2, and one line that names the key", async ({ guests, words }) => {
    const directory = folder(FILES);
    const paths = guests.map((guest) => guest.replace(/one\.js/, (file) => join(directory, file)));
    const { code, stderr } = await Command.run([...FREE, ...paths.flatMap((guest) => ["--guest", guest])]);
    expect(code).toBe(2);
    const lines = stderr.split("\n").filter((line) => line !== "" && !line.startsWith("{"));
    expect(lines).toEqual([
      `rpmsg-bridge: configuration: ${words.replace("one.js", join(directory, "one.js"))}`,
    ]);
  });
});
