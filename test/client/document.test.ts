import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { testBridge } from "../server/support.ts";
import { launchBrowser, missingBrowser } from "./chromium.ts";
import { Network } from "./stage.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const text = readFileSync(join(root, "docs/client.md"), "utf8");
const missing = missingBrowser();

/** The code blocks of that language. */
const blocks = (language: string): string[] =>
  [...text.matchAll(/^```(\w+)\n(.*?)^```$/gms)]
    .filter(([, of]) => of === language)
    .map(([, , code = ""]) => code);

/** What a block says that it prints: in order, after each arrow. */
const promised = (code: string): string[] =>
  [...code.matchAll(/\/\/ → (.*)$/gm)].flatMap(([, lines = ""]) => lines.split(" → "));

const URL_IN_TEXT = /(http|ws):\/\/127\.0\.0\.1:8080/g;

describe("docs/client.md", () => {
  let directory: string;
  /** The client as it is in the package: dist/client, one file a module. */
  let modules: string;

  /** Runs the compiler, with DOM and without Node, as in a page. */
  const expectToCompile = (include: string[], options: Record<string, unknown>): void => {
    const config = join(directory, "tsconfig.json");
    const compilerOptions = { rootDir: "/", noEmit: false, ...options };
    writeFileSync(
      config,
      JSON.stringify({ extends: join(root, "tsconfig.client.json"), compilerOptions, include }),
    );
    try {
      execFileSync(join(root, "node_modules/.bin/tsc"), ["-p", config], { encoding: "utf8" });
    } catch (error) {
      const { stdout } = error as { stdout?: string };
      expect.unreachable(stdout);
    }
  };

  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), "rpmsg-client-"));
    expectToCompile([join(root, "client")], { outDir: directory, rootDir: root });
    modules = join(directory, "client");
  });

  afterAll(() => {
    rmSync(directory, { recursive: true });
  });

  test("has code blocks", () => {
    expect(blocks("js")).toHaveLength(5);
    expect(blocks("html")).toHaveLength(1);
  });

  test("their types are right", () => {
    for (const [i, code] of blocks("js").entries()) writeFileSync(join(directory, `block-${i}.mts`), code);
    expectToCompile([join(directory, "*.mts")], {
      noEmit: true,
      // As people have it who write a page.
      noUncheckedIndexedAccess: false,
      skipLibCheck: true,
      types: ["ws"],
      typeRoots: [join(root, "node_modules/@types")],
      paths: {
        "rpmsg-bridge/client": [join(root, "client/index.ts")],
        ws: [join(root, "node_modules/@types/ws/index.d.ts")],
      },
    });
  });

  test.each(blocks("js").map((code, i) => [i + 1, code] as const))(
    "block %i does what it says",
    async (i, code) => {
      const running = await testBridge();
      await running.endpoint("sink");
      const file = join(directory, `block-${i}.mjs`);
      const runnable = code
        .replaceAll("rpmsg-bridge/client", pathToFileURL(join(modules, "index.js")).href)
        .replaceAll('"ws"', JSON.stringify(import.meta.resolve("ws")))
        .replaceAll(URL_IN_TEXT, (_, scheme: string) => running.url.replace("http", scheme));
      writeFileSync(file, runnable);
      const printed: string[] = [];
      const { log } = console;
      onTestFinished(() => {
        console.log = log;
      });
      console.log = (...values: unknown[]) => printed.push(values.join(" "));
      await import(pathToFileURL(file).href);
      expect(printed).toEqual(promised(code));
      expect(printed).not.toHaveLength(0);
    },
  );

  test.skipIf(missing !== undefined)(
    `the page works as it is${missing === undefined ? "" : ` (not here: ${missing})`}`,
    async () => {
      const running = await testBridge();
      await running.endpoint("echo");
      const network = await Network.open();
      network.target = running.url;
      for (const name of readdirSync(modules)) {
        const code = readFileSync(join(modules, name), "utf8");
        network.pages.set(`/client/${name}`, ["text/javascript", code]);
      }
      network.pages.set("/", ["text/html", blocks("html").join("")]);
      const browser = await launchBrowser();
      onTestFinished(() => browser.close());
      const page = await browser.newPage();
      await page.goto(network.url);
      const answer = page.locator("#answer", { hasText: "hello" });
      await answer.waitFor();
      expect(await answer.textContent()).toBe("hello");
    },
  );
});
