import type { Page } from "playwright-core";
import { describe, expect, test } from "vitest";
import { testBridge } from "../server/support.ts";
import { expectNoComplaints, places, viewsBridge } from "./dashboard.ts";
import { inChromium } from "./in-chromium.ts";

const schemes = ["light", "dark"] as const;

/** Of a picture: how many colours it has, and its mean luminance, 0 black to 1 white. */
interface Look {
  colours: number;
  luminance: number;
}

/** What people see of a page. Its picture is read in another one, whose policy lets a script do that. */
async function lookAt(page: Page, reader: Page): Promise<Look> {
  const picture = (await page.screenshot()).toString("base64");
  return reader.evaluate(async (text) => {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
    if (context === null) throw new Error("nothing to draw on");
    context.drawImage(bitmap, 0, 0);
    const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
    const colours = new Set<number>();
    let sum = 0;
    for (let i = 0; i < data.length; i += 4) {
      const [red = 0, green = 0, blue = 0] = data.subarray(i, i + 3);
      colours.add((red << 16) | (green << 8) | blue);
      sum += (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255;
    }
    return { colours: colours.size, luminance: sum / (data.length / 4) };
  }, picture);
}

/** The luminance of the page's background and of its text, as they are computed. */
function computed(page: Page): Promise<{ background: number; text: number }> {
  return page.evaluate(() => {
    const luminance = (colour: string): number => {
      const [red = 0, green = 0, blue = 0] = (colour.match(/\d+/g) ?? []).map(Number);
      return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255;
    };
    const { backgroundColor, color } = getComputedStyle(document.body);
    return { background: luminance(backgroundColor), text: luminance(color) };
  });
}

/** Of each canvas whether something in the accent's colour of now is drawn on it: its line. */
function lines(page: Page): Promise<boolean[]> {
  return page.locator(".charts canvas").evaluateAll((all) => {
    const accent = getComputedStyle(document.documentElement).getPropertyValue("--accent").trim();
    const wanted = [1, 3, 5].map((at) => Number.parseInt(accent.slice(at, at + 2), 16));
    return all.map((each) => {
      const { width, height } = each as HTMLCanvasElement;
      const data = (each as HTMLCanvasElement).getContext("2d")?.getImageData(0, 0, width, height).data;
      if (data === undefined) return false;
      for (let i = 0; i < data.length; i += 4) {
        // Where the line is soft at its edges the colour is not exact.
        const off = wanted.reduce((sum, value, k) => sum + Math.abs(value - (data[i + k] ?? 0)), 0);
        if ((data[i + 3] ?? 0) > 100 && off < 24) return true;
      }
      return false;
    });
  });
}

inChromium("the dashboard's colours", (open) => {
  describe.each(schemes)("%s", (colorScheme) => {
    test("every view is so, and there is something in it", { timeout: 120_000 }, async () => {
      const { url } = await viewsBridge();
      const page = await open(url, { colorScheme });
      const reader = await page.context().newPage();
      await page.bringToFront();
      for (const [place, complete] of places) {
        await page.goto(`${url}/${place}`);
        await page.locator(complete).first().waitFor();
        const { background, text } = await computed(page);
        const { colours, luminance } = await lookAt(page, reader);
        const [high, low] = colorScheme === "light" ? [background, text] : [text, background];
        expect([place, high > 0.85, low < 0.15]).toEqual([place, true, true]);
        // Most of what is seen is background.
        expect([place, Math.abs(luminance - background) < 0.15]).toEqual([place, true]);
        expect([place, colours > 20]).toEqual([place, true]);
      }
      expectNoComplaints(page);
    });
  });

  test("charts draw their lines in the scheme's colour, and anew when it changes", async () => {
    const { url, endpoint } = await testBridge();
    await endpoint("sensor");
    const page = await open(`${url}/#/ws/v1/demo/sensor`, { colorScheme: "light" });
    // Temperature and pressure.
    await expect.poll(() => lines(page), { timeout: 40_000 }).toEqual([true, true]);
    await page.emulateMedia({ colorScheme: "dark" });
    await expect.poll(() => lines(page), { timeout: 40_000 }).toEqual([true, true]);
    // The first of the overview's is of messages: the sensor's, and none when nobody looks.
    await page.goto(`${url}/#/`);
    await expect.poll(async () => (await lines(page)).slice(0, 2), { timeout: 40_000 }).toEqual([true, true]);
  });
});
