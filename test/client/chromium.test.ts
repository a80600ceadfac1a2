import { fileURLToPath } from "node:url";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { bundle } from "./bundle.ts";
import { launchBrowser, missingBrowser } from "./chromium.ts";
import type { Stage } from "./scenarios.ts";
import { scenarios } from "./scenarios.ts";
import { Network, openTheatre } from "./stage.ts";

const missing = missingBrowser();
const why = missing === undefined ? "" : ` (not here: ${missing})`;

/** What a page has of this test, and what the page's script gives it. */
type Globals = typeof globalThis & {
  control: Stage["control"];
  scenarios: typeof scenarios;
};

describe.skipIf(missing !== undefined)(`in Chromium${why}`, () => {
  let browser: Browser;
  let code: string;

  beforeAll(async () => {
    const entry = fileURLToPath(import.meta.resolve("./scenarios.ts"));
    [code, browser] = await Promise.all([bundle(entry), launchBrowser()]);
  });

  afterAll(async () => {
    await browser?.close();
  });

  /** A page with the scenarios loaded, of the origin that has `pages`. */
  async function openPage({ url, pages }: Pick<Network, "url" | "pages">): Promise<Page> {
    pages.set("/page", [
      "text/html",
      '<script type="module">import * as all from "./page.js"; Object.assign(globalThis, all);</script>',
    ]);
    pages.set("/page.js", ["text/javascript", code]);
    const context = await browser.newContext();
    onTestFinished(() => context.close());
    const page = await context.newPage();
    await page.goto(`${url}/page`);
    return page;
  }

  /** Runs a scenario in a page; without a URL with the bridge that the page comes from. */
  async function run(page: Page, name: string, control: Stage["control"], url = ""): Promise<void> {
    await page.exposeFunction("control", control);
    await page.evaluate(
      async ([scenario, target]) => {
        const { scenarios: all, control: tell } = globalThis as Globals;
        await all[scenario]?.({ url: target, WebSocket: undefined, control: tell });
      },
      [name, url] as const,
    );
  }

  test.each(Object.keys(scenarios))("%s", async (name) => {
    const theatre = await openTheatre();
    const page = await openPage(theatre);
    await expect(run(page, name, theatre.control)).resolves.toBeUndefined();
  });

  test("a page of another origin connects where the bridge knows it, and hears why not otherwise", async () => {
    const elsewhere = await Network.open();
    const name = "all bytes and any text come back as they were";
    const knowing = await openTheatre({ origins: [elsewhere.url] });
    const { url, control } = knowing;
    await expect(run(await openPage(elsewhere), name, control, url)).resolves.toBeUndefined();
    const strict = await openTheatre();
    const refused = run(await openPage(elsewhere), name, strict.control, strict.url);
    await expect(refused).rejects.toThrow(`does not take requests from ${elsewhere.url}`);
  });

  test("the page has the scenarios, and their failures reach the test", async () => {
    const theatre = await openTheatre();
    const page = await openPage(theatre);
    const names = await page.evaluate(() => Object.keys((globalThis as Globals).scenarios));
    expect(names).toEqual(Object.keys(scenarios));
    const failing = run(page, names[0] ?? "", theatre.control, "/nowhere");
    await expect(failing).rejects.toThrow("RpmsgError: there is no GET /nowhere/");
  });
});
