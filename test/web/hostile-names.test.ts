import type { Page } from "playwright-core";
import { expect, onTestFinished, test } from "vitest";
import type { Endpoint } from "../../schemas/index.ts";
import { EndpointList } from "../../schemas/index.ts";
import { startBridge } from "../../server/index.ts";
import { guestOf, hostileNames, UNSEEN } from "../server/hostile-names.ts";
import { eventually } from "../server/support.ts";
import { expectNoComplaints, messageField } from "./dashboard.ts";
import { inChromium } from "./in-chromium.ts";

/** Some of the worst, one character a byte, and what the page shows of them. */
const opened: readonly (readonly [name: string, shown: string])[] = [
  // Paths and URLs.
  ["..", ".."],
  ["../../etc/passwd", "../../etc/passwd"],
  ["%2e%2e%2f", "%2e%2e%2f"],
  ["#", "#"],
  [" ", "␠"],
  // Markup.
  ["<script>alert(1)</script>", "<script>alert(1)</script>"],
  ["<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>"],
  // Lines, terminals, marks that turn the direction.
  ["\r\n\r\nGET / HTTP/1.1", "␍␊␍␊GET / HTTP/1.1"],
  ["\u001b]0;title\u0007", "␛]0;title␇"],
  ["\u00e2\u0080\u00aegnp.exe", "\\u202egnp.exe"],
  // Not UTF-8: these two look the same.
  ["a\u00ff", "a\ufffd"],
  ["a\u00fe", "a\ufffd"],
];

/** What a guest's name could have brought into the page. */
async function expectHarmless(page: Page): Promise<void> {
  expect(await page.locator("img, script:not([src^='./assets/'])").count()).toBe(0);
  // Between what stands in lines and cells innerText puts line ends and tabs itself.
  // biome-ignore lint/performance/useDomNodeTextContent: what people see is meant
  const text = await page.evaluate(() => document.body.innerText);
  expect(text.replaceAll(/[\n\t]/g, "")).not.toMatch(UNSEEN);
  expect(await page.title()).not.toMatch(UNSEEN);
}

inChromium("of names that break other software", (open) => {
  test("each has a row and a link that leads to its endpoint, as text, and nothing else", {
    timeout: 120_000,
  }, async () => {
    const guests = { board: guestOf(hostileNames) };
    const bridge = await startBridge({ listen: "127.0.0.1:0", logLevel: "silent" }, { guests });
    onTestFinished(() => bridge.close());
    const list = async (): Promise<Endpoint[]> =>
      EndpointList.parse(await (await fetch(`${bridge.url}/api/v1/endpoints?limit=1000`)).json()).endpoints;
    const endpoints = await eventually("all are listed", async () => {
      const all = await list();
      return all.length === hostileNames.length ? all : undefined;
    });

    const page = await open(`${bridge.url}/`);
    const links = page.locator("tbody th a[href^='#/ws/']");
    await expect.poll(() => links.count(), { timeout: 20_000 }).toBe(hostileNames.length);
    const shown = await links.evaluateAll((all) =>
      all.map((each) => ({
        href: each.getAttribute("href"),
        text: each.textContent,
        // Something to see, and to hit.
        width: Math.min(each.getBoundingClientRect().width, 4),
      })),
    );
    const byHref = (a: { href: string | null }, b: { href: string | null }) =>
      (a.href ?? "") < (b.href ?? "") ? -1 : 1;
    expect(shown.map(({ href, width }) => ({ href, width })).toSorted(byHref)).toEqual(
      endpoints.map(({ path }) => ({ href: `#${path}`, width: 4 })).toSorted(byHref),
    );
    for (const { text } of shown) expect(text).not.toMatch(UNSEEN);
    await expectHarmless(page);

    const addresses: number[] = [];
    for (const [name, text] of opened) {
      const address = 2000 + hostileNames.indexOf(name);
      const path = endpoints.find((each) => each.address === address)?.path;
      await page.locator(`tbody a[href='#${path}']`).click();
      await page.locator("h1", { hasText: "/" }).waitFor();
      expect(await page.locator("h1").textContent()).toBe(`board/${text}`);
      const field = await messageField(page);
      await field.fill(`to ${address}`);
      await field.press("Enter");
      await page.locator(".row.from", { hasText: `to ${address}` }).waitFor();
      await expectHarmless(page);
      addresses.push(address);
      await page.goto(`${bridge.url}/#/`);
    }
    // Each message went where its link leads.
    const got = (await list()).filter(({ counters }) => counters.accepted > 0);
    expect(new Set(got.map((each) => each.address))).toEqual(new Set(addresses));
    expectNoComplaints(page);
  });
});
