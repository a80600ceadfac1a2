import { join } from "node:path";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { LinuxGuest } from "../../scripts/linux-guest/linux-guest.ts";
import { launchBrowser, missingBrowser } from "../client/chromium.ts";
import { testBridge, testDirectory } from "../server/support.ts";
import { expectNoComplaints, openDashboard, rowOf } from "../web/dashboard.ts";

const available = LinuxGuest.availability("rt-armmp");
const missing = missingBrowser() ?? (available.ok ? undefined : available.reason);
const why = missing === undefined ? "" : ` (not here: ${missing})`;

// Needs `npm run build`.
describe.skipIf(missing !== undefined)(`the dashboard of a stock Linux guest in QEMU${why}`, () => {
  let browser: Browser;

  beforeAll(async () => {
    browser = await launchBrowser();
  });

  afterAll(async () => {
    await browser?.close();
  });

  test("shows it attach, and talks to its terminal and its character device", {
    timeout: 240_000,
  }, async () => {
    const socketPath = join(testDirectory(), "vm0.sock");
    const endpoints = [{ name: "rpmsg-raw", address: 1040 }, { name: "rpmsg-tty" }];
    const { url, endpoint } = await testBridge({
      guests: { vm0: { kind: "vhost-user", path: socketPath, endpoints } },
    });
    const page = await openDashboard(browser, url);
    const guestRow = page.getByRole("row").filter({ hasText: "vhost-user" });
    await guestRow.filter({ hasText: "waiting" }).waitFor();
    const guest = await LinuxGuest.boot({ socketPath, flavour: "rt-armmp" });
    try {
      await guestRow.filter({ hasText: "attached" }).waitFor();
      await guestRow.filter({ hasText: "RPMSG_F_NS" }).waitFor();
      expect(await guestRow.textContent()).toMatch(/to guest \d+\/256\s*from guest 0\/256/);

      await guest.run("until [ -c /dev/ttyRPMSG0 ]; do usleep 20000; done");
      await rowOf(page, "rpmsg-tty").getByRole("link", { name: "rpmsg-tty" }).click();
      await page.locator(".xterm-rows").waitFor();
      // The channel is open before the guest speaks: it speaks once.
      await endpoint("rpmsg-tty", ({ clients }) => clients === 1);
      guest.background("guest-helper serve /dev/ttyRPMSG0 tty login:");
      await page.locator(".xterm-rows", { hasText: "login:" }).waitFor();
      await page.keyboard.type("some keys");
      await page.locator(".xterm-rows", { hasText: "login:some keys" }).waitFor();

      await guest.run("until [ -c /dev/rpmsg0 ]; do usleep 20000; done");
      guest.background("guest-helper serve /dev/rpmsg0 raw hello");
      await endpoint("rpmsg-raw", ({ state }) => state === "connected");
      await page.goto(`${url}/#/ws/v1/vm0/rpmsg-raw`);
      const field = page.getByRole("textbox", { name: "Message", exact: true });
      await field.fill("over there");
      await field.press("Enter");
      await page.locator(".row.from", { hasText: "over there" }).waitFor();
      expectNoComplaints(page);
    } catch (error) {
      console.error(guest.transcript);
      throw error;
    } finally {
      const { failure } = guest;
      await guest.kill();
      expect(failure).toBeUndefined();
    }
    await page.goto(`${url}/#/guests/vm0`);
    await page.getByText("waiting").waitFor();
    await page.getByText("qemu-system-arm").waitFor();
  });
});
