import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { afterAll, beforeAll, describe } from "vitest";
import { launchBrowser, missingBrowser } from "../client/chromium.ts";
import { openDashboard } from "./dashboard.ts";

type Open = (url: string, options?: BrowserContextOptions) => Promise<Page>;

/**
 * Tests that need a browser, and `npm run build`; where there is none they say so.
 * @param suite opens pages of the dashboard with what it is given
 */
export function inChromium(what: string, suite: (open: Open) => void): void {
  const missing = missingBrowser();
  const why = missing === undefined ? "" : ` (not here: ${missing})`;
  describe.skipIf(missing !== undefined)(`${what}${why}`, { timeout: 60_000 }, () => {
    let browser: Browser;

    beforeAll(async () => {
      browser = await launchBrowser();
    });

    afterAll(async () => {
      await browser?.close();
    });

    suite((url, options) => openDashboard(browser, url, options));
  });
}
