import type { Page } from "playwright-core";
import { expect, test } from "vitest";
import { testBridge } from "../server/support.ts";
import { account, expectNoComplaints, messageField } from "./dashboard.ts";
import { inChromium } from "./in-chromium.ts";

/** Messages that the guest sends at once, and what of them may wait with the bridge: 32 bytes each. */
const COUNT = 30_000;
const WAIT = 65_536;

/** Counts what the page's channel brings, and what the page grants. */
function countFrames(page: Page): { messages: number; granted: number; most: number } {
  const counts = { messages: 0, granted: 0, most: 0 };
  page.on("websocket", (socket) => {
    counts.granted += Number(new URL(socket.url()).searchParams.get("credit") ?? Number.NaN);
    socket.on("framereceived", ({ payload }) => {
      if ((JSON.parse(String(payload)) as { type: string }).type === "message") counts.messages++;
    });
    socket.on("framesent", ({ payload }) => {
      const frame = JSON.parse(String(payload)) as { type: string; messages?: number };
      if (frame.type !== "credit") return;
      counts.granted += frame.messages ?? 0;
      counts.most = Math.max(counts.most, frame.messages ?? 0);
    });
  });
  return counts;
}

inChromium("of more than a page takes", (open) => {
  test("it gets a sample, as many as it grants, and every view says how many it did not get", async () => {
    const { url, endpoint } = await testBridge({ limits: { slowReaderBytes: WAIT } });
    await endpoint("source");
    const page = await open("about:blank");
    // A machine that draws slowly: the guest is faster than this, however slow both are.
    await page.addInitScript((milliseconds) => {
      globalThis.requestAnimationFrame = (callback) => setTimeout(callback, milliseconds);
    }, 200);
    const counts = countFrames(page);
    await page.goto(`${url}/#/ws/v1/demo/source?view=console`);
    const field = await messageField(page);
    await field.fill(`${COUNT} 16`);
    await field.press("Enter");
    // Each is accounted for: it came, or it was told that it did not. What was sent counts as well.
    const all = async (): Promise<number> => {
      const { total, dropped } = await account(page);
      return total + dropped;
    };
    await expect.poll(all, { timeout: 40_000 }).toBe(COUNT + 1);
    const { total, dropped, shown, sampled, gone } = await account(page);
    expect(dropped).toBeGreaterThan(0);
    expect(shown + sampled + gone).toBe(total);
    await expect.poll(() => counts.messages).toBe(total - 1);
    // Never more than was granted, which is no more than may be ahead with a picture.
    expect(counts.granted).toBeGreaterThanOrEqual(counts.messages);
    expect(counts.granted - counts.messages).toBeLessThanOrEqual(256);
    expect(counts.most).toBeLessThanOrEqual(256);
    expect((await endpoint("source")).counters).toMatchObject({ messagesFromGuest: COUNT, dropped });

    const told = `${dropped.toLocaleString("en")} messages were dropped on their way`;
    await page.getByRole("tab", { name: "terminal" }).click();
    await page.getByText(told).waitFor();
    expectNoComplaints(page);
  });

  test("where the bridge has room for all of a burst, all of it comes", async () => {
    const { url, endpoint } = await testBridge();
    await endpoint("source");
    const page = await open("about:blank");
    const counts = countFrames(page);
    await page.goto(`${url}/#/ws/v1/demo/source?view=console`);
    const field = await messageField(page);
    await field.fill("3000 16");
    await field.press("Enter");
    await expect.poll(async () => (await account(page)).total, { timeout: 40_000 }).toBe(3001);
    await expect.poll(() => counts.messages).toBe(3000);
    expect(await account(page)).toMatchObject({ dropped: 0 });
    expect((await endpoint("source")).counters).toMatchObject({ dropped: 0 });
  });
});
