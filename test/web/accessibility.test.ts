import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { launchBrowser, missingBrowser } from "../client/chromium.ts";
import { testBridge } from "../server/support.ts";
import { allRights } from "../server/tokens.ts";
import { messageField, openDashboard, places, viewsBridge } from "./dashboard.ts";

const missing = missingBrowser();
const why = missing === undefined ? "" : ` (not here: ${missing})`;

/** What axe-core tells of a page. */
interface Report {
  violations: { id: string; impact: string; nodes: { target: string[]; failureSummary: string }[] }[];
}
type Globals = typeof globalThis & { axe: { run: () => Promise<Report> } };

// Needs `npm run build`.
describe.skipIf(missing !== undefined)(`accessibility, by axe-core${why}`, { timeout: 60_000 }, () => {
  let browser: Browser;
  const axe = readFileSync(fileURLToPath(import.meta.resolve("axe-core/axe.min.js")), "utf8");

  beforeAll(async () => {
    browser = await launchBrowser();
  });

  afterAll(async () => {
    await browser?.close();
  });

  describe.each(["light", "dark"] as const)("%s", (colorScheme) => {
    test.each([
      ["no view has a serious fault", false],
      ["nor has one of a read-only bridge", true],
    ])("%s", async (_what, readOnly) => {
      const { url } = await viewsBridge(readOnly);
      const page = await openDashboard(browser, url, { colorScheme });
      for (const [place, complete] of places) {
        await page.goto(`${url}/${place}`);
        // Of a sensor that may not be asked there is nothing to draw.
        if (!readOnly || complete !== "canvas") await page.locator(complete).first().waitFor();
        if (readOnly && place.includes("/ws/v1/demo/echo")) await page.locator(".refused").first().waitFor();
        if (!readOnly && place.endsWith("echo")) {
          await (await messageField(page)).fill("hello");
          await page.keyboard.press("Enter");
          await page.locator(".row.from").click();
        }
        expect(await faults(place)).toEqual([]);
      }

      async function faults(place: string): Promise<string[]> {
        // The page's policy holds for scripts of pages, not for those of the debugger.
        await page.evaluate(axe);
        const { violations } = await page.evaluate(() => (globalThis as Globals).axe.run());
        return violations
          .filter(({ impact }) => impact === "serious" || impact === "critical")
          .map(
            ({ id, nodes }) =>
              `${place} ${id}: ${nodes.map(({ target, failureSummary }) => `${target.join(" ")} (${failureSummary})`).join("; ")}`,
          );
      }
    });

    test("nor has the question for a token, and its answer", async () => {
      const { url } = await testBridge({ tokens: [allRights().config] });
      const page = await openDashboard(browser, url, { colorScheme });
      await page.getByLabel("Token").fill("none");
      await page.keyboard.press("Enter");
      await page.getByText("(unauthorized)").waitFor();
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => (globalThis as Globals).axe.run());
      expect(violations.filter(({ impact }) => impact === "serious" || impact === "critical")).toEqual([]);
    });
  });
});
