import { join } from "node:path";
import type { Browser, BrowserContextOptions, Locator, Page } from "playwright-core";
import { expect, onTestFinished } from "vitest";
import type { RunningBridge } from "../server/support.ts";
import { testBridge, testDirectory } from "../server/support.ts";

/** What a page complained of: scripts that failed, and what its policy refused. */
const complaints = new WeakMap<Page, string[]>();

/** Opens the dashboard at a place of it. Needs `npm run build`. */
export async function openDashboard(
  browser: Browser,
  url: string,
  options: BrowserContextOptions = {},
): Promise<Page> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  onTestFinished(() => context.close());
  const page = await context.newPage();
  const told: string[] = [];
  complaints.set(page, told);
  page.on("console", (message) => {
    // Of answers that are errors Chromium tells too: those are shown to people.
    if (!message.text().startsWith("Failed to load resource")) told.push(message.text());
  });
  page.on("pageerror", (error) => told.push(error.message));
  await page.goto(url);
  return page;
}

export function expectNoComplaints(page: Page): void {
  expect(complaints.get(page)).toEqual([]);
}

/** Elements that stand out of the page's width on the right, where the page can be scrolled there. */
export function overflow(page: Page): Promise<string[]> {
  return page.evaluate(() => {
    const { scrollWidth, clientWidth } = document.documentElement;
    if (scrollWidth <= clientWidth) return [];
    return [...document.querySelectorAll("*")]
      .filter((element) => element.getBoundingClientRect().right > clientWidth)
      .map(({ tagName, className }) => `${tagName}.${className}`);
  });
}

/** The console's count of messages: those that are shown, and all. */
export async function tally(page: Page): Promise<{ shown: number; total: number }> {
  const [shown, total] = await page.locator(".tally b").allTextContents();
  return { shown: Number(shown?.replaceAll(",", "")), total: Number(total?.replaceAll(",", "")) };
}

/**
 * What the line above the console's list says became of all messages: shown, only counted, not kept any more, dropped
 * on their way. Of a list that is not searched.
 */
export async function account(
  page: Page,
): Promise<Record<"total" | "shown" | "sampled" | "gone" | "dropped", number>> {
  const text = (await page.locator(".tally").textContent()) ?? "";
  const of = (pattern: RegExp): number => Number((pattern.exec(text)?.[1] ?? "0").replaceAll(",", ""));
  return {
    total: of(/ of ([\d,]+) messages/),
    shown: of(/^showing ([\d,]+)/),
    sampled: of(/a second ([\d,]+) were only counted/),
    gone: of(/; ([\d,]+) older ones/),
    dropped: of(/; ([\d,]+) more were dropped/),
  };
}

/** Waits until the page of an endpoint can send. @returns its field for messages */
export async function messageField(page: Page): Promise<Locator> {
  const field = page.getByRole("textbox", { name: "Message", exact: true });
  // It is there with the line that says that the page connects.
  await field.waitFor();
  await page.locator(".connection").waitFor({ state: "detached" });
  return field;
}

/** The row of an endpoint in the list. */
export function rowOf(page: Page, name: string) {
  return page.getByRole("row").filter({ has: page.getByRole("link", { name, exact: true }) });
}

/** Every view of `viewsBridge`, and what is there when it is complete. */
export const places = [
  ["#/", ".charts canvas"],
  ["#/guests/demo", "form"],
  ["#/guests/vm", ".copy pre"],
  ["#/guests/nobody", ".hint a"],
  ["#/ws/v1/demo/echo", ".sender"],
  ["#/ws/v1/demo/tty", ".xterm-rows"],
  ["#/ws/v1/demo/sensor", "canvas"],
  ["#/ws/v1/demo/echo?view=connect", "pre"],
  ["#/ws/v1/demo/news", ".title button"],
  ["#/ws/v1/vm/panel?view=connect", ".copy pre"],
  ["#/ws/v1/demo/nothing", ".hint a"],
] as const;

/** A bridge with something for each view: guests of both kinds, endpoints of both sides. */
export async function viewsBridge(readOnly = false): Promise<RunningBridge> {
  const path = join(testDirectory(), "vm.sock");
  const running = await testBridge({
    readOnly,
    guests: {
      demo: { kind: "emulated", endpoints: [{ name: "news" }] },
      vm: { kind: "vhost-user", path, endpoints: [{ name: "panel" }] },
    },
  });
  await running.endpoint("sensor");
  return running;
}
