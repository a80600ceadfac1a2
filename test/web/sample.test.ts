import type { Page } from "playwright-core";
import { expect, onTestFinished, test } from "vitest";
import type { Service, ServiceContext } from "../../guest/index.ts";
import { EmulatedGuest } from "../../guest/index.ts";
import { EndpointList } from "../../schemas/index.ts";
import { startBridge } from "../../server/index.ts";
import { eventually, testBridge } from "../server/support.ts";
import { account, expectNoComplaints, messageField, rowOf } from "./dashboard.ts";
import { inChromium } from "./in-chromium.ts";

/** On "<count>" sends so many messages of 16 bytes of JSON, as fast as buffers come back. */
function numbers(context: ServiceContext): Service {
  let [dst, left] = [0, 0];
  const run = (): void => {
    while (left > 0 && context.send(dst, Buffer.from(`{"left": ${left}}`.padEnd(16)))) left--;
  };
  return {
    onMessage(src, bytes, offset, length) {
      [dst, left] = [src, Number(Buffer.from(bytes.buffer, bytes.byteOffset + offset, length).toString())];
      run();
      return true;
    },
    onWritable: run,
  };
}

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
    const bridge = await startBridge(
      { listen: "127.0.0.1:0", logLevel: "silent", limits: { slowReaderBytes: WAIT } },
      { guests: { demo: new EmulatedGuest({ services: { numbers } }) } },
    );
    onTestFinished(() => bridge.close());
    const { url } = bridge;
    const endpoint = () =>
      eventually("it is listed", async () => {
        const response = await fetch(`${url}/api/v1/endpoints`);
        return EndpointList.parse(await response.json()).endpoints.find(({ name }) => name === "numbers");
      });
    await endpoint();
    const page = await open("about:blank");
    // A machine that draws slowly: the guest is faster than this, however slow both are.
    await page.addInitScript((milliseconds) => {
      globalThis.requestAnimationFrame = (callback) => setTimeout(callback, milliseconds);
      globalThis.cancelAnimationFrame = clearTimeout;
    }, 200);
    const counts = countFrames(page);
    await page.goto(`${url}/#/ws/v1/demo/numbers?view=console`);
    const field = await messageField(page);
    await field.fill(`${COUNT}`);
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
    expect((await endpoint()).counters).toMatchObject({ messagesFromGuest: COUNT, dropped });

    const many = dropped.toLocaleString("en");
    await page.getByRole("tab", { name: "terminal" }).click();
    await page.getByText(`${many} messages were dropped on their way`).waitFor();
    // Complete, before it is left.
    await page.locator(".xterm-rows").waitFor();
    // What is drawn is one more.
    await page.getByRole("tab", { name: "plot" }).click();
    const more = await messageField(page);
    await more.fill("1");
    await more.press("Enter");
    const drawing = page.locator(".tally", { hasText: "drawing 1 of 1 messages: 50 a second and 12 fields" });
    await drawing.filter({ hasText: `; ${many} more were dropped on their way` }).waitFor();
    // The list has the bridge's count.
    await page.goto(`${url}/#/`);
    await expect.poll(() => rowOf(page, "numbers").locator("td").last().textContent()).toBe(many);
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
