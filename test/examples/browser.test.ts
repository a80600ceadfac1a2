import { createInterface } from "node:readline";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { launchBrowser, missingBrowser } from "../client/chromium.ts";
import { ROOT, shell } from "./project.ts";

const missing = missingBrowser();

describe.skipIf(missing !== undefined)(`examples/browser${missing ? ` (not here: ${missing})` : ""}`, () => {
  let browser: Browser;

  beforeAll(async () => {
    browser = await launchBrowser();
  });

  afterAll(async () => {
    await browser?.close();
  });

  /** The page of that name, open, of the example as it is started by hand. */
  async function open(name: string) {
    const { child } = shell("node examples/browser/serve.js", ROOT);
    const lines = createInterface({ input: child.stdout });
    for await (const line of lines) {
      if (!line.includes(name)) continue;
      const context = await browser.newContext();
      onTestFinished(() => context.close());
      const page = await context.newPage();
      await page.goto(line);
      return page;
    }
    throw new Error(`${name} is not served`);
  }

  test("the console shows what the firmware answers, and has a history", { timeout: 60_000 }, async () => {
    const page = await open("console.html");
    await page.getByRole("status").filter({ hasText: "connected to demo/tty" }).waitFor();
    const line = page.getByRole("textbox");
    await line.fill("echo from the browser");
    await line.press("Enter");
    await page.getByLabel("Output").filter({ hasText: "from the browser\n" }).waitFor();
    await line.press("ArrowUp");
    expect(await line.inputValue()).toBe("echo from the browser");
  });

  test("the sensor is drawn", { timeout: 60_000 }, async () => {
    const page = await open("sensor.html");
    await page.waitForFunction(() => Number(document.querySelector<HTMLOutputElement>("#count")?.value) > 20);
    expect(Number(await page.locator("#latest").textContent())).toBeGreaterThan(10);
    await page.waitForFunction(() => {
      const plot = document.querySelector("canvas");
      const pixels = plot?.getContext("2d")?.getImageData(0, 0, plot.width, plot.height).data ?? [];
      return Array.from(pixels).some((each) => each !== 0);
    });
  });
});
