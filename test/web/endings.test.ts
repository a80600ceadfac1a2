import type { Page } from "playwright-core";
import { expect, test } from "vitest";
import { Network } from "../client/stage.ts";
import { Dynasty } from "../server/hand-over-support.ts";
import { testBridge } from "../server/support.ts";
import { vhostBridge } from "../server/vhost-guest.ts";
import { expectNoComplaints, messageField, rowOf, tally } from "./dashboard.ts";
import { inChromium } from "./in-chromium.ts";

const note = (page: Page, text: string | RegExp) => page.locator(".row.note", { hasText: text });
const status = (page: Page, text: string) => page.getByRole("status").filter({ hasText: text });

/** Sends, and waits for what the echo answers. */
async function exchange(page: Page, text: string): Promise<void> {
  const field = await messageField(page);
  await field.fill(text);
  await field.press("Enter");
  await page.locator(".row.from", { hasText: text }).waitFor();
}

inChromium("what ends, as the page shows it", (open) => {
  test("a hand-over: the console says that it connected again, goes on, and nothing in it is lost", async () => {
    const { dynasty, first } = await Dynasty.found();
    await dynasty.attach();
    await dynasty.endpoint("echo");
    const page = await open(`${dynasty.url}/#/ws/v1/vm/echo?view=console`);
    await exchange(page, "before");
    await dynasty.handOver(first);
    await note(page, "(restart").or(note(page, "connecting again")).first().waitFor();
    await exchange(page, "after");
    expect((await tally(page)).total).toBe(4);
    // It is the same session, of the same generation: nothing was lost.
    expect(await note(page, /lost;|generation|new session/).count()).toBe(0);
    await status(page, "live").waitFor();
    expect(await dynasty.endpoint("echo")).toMatchObject({ generation: 1, counters: { accepted: 2 } });
  });

  test("a reset of the guest: a note, the new generation, and the console goes on", async () => {
    const { url, attach, endpoint } = await vhostBridge();
    const { vm } = await attach();
    await endpoint("echo");
    const page = await open(`${url}/#/ws/v1/vm/echo?view=console`);
    await exchange(page, "before");
    const generation = page.locator(".facts > div", { hasText: "generation" }).first();
    expect(await generation.locator("dd").textContent()).toBe("1");
    await vm.reboot();
    await note(page, "generation 1 → 2; messages in between are lost").waitFor();
    await expect.poll(() => generation.locator("dd").textContent()).toBe("2");
    await exchange(page, "after");
    // What was said before is there still.
    expect(await page.locator(".row.from .payload").allTextContents()).toEqual(["before", "after"]);
    await page.goto(`${url}/#/guests/vm`);
    await page.locator(".facts > div", { hasText: "generation" }).getByText("2", { exact: true }).waitFor();
    expectNoComplaints(page);
  });

  test("an endpoint that another client takes: why, what to do, and Connect gets it back when it is free", async () => {
    const { url, connect, endpoint } = await testBridge();
    await endpoint("echo");
    const page = await open(`${url}/#/ws/v1/demo/echo?view=console`);
    await exchange(page, "before");
    const other = await connect("/ws/v1/demo/echo?share=exclusive&takeover=1");
    await page.getByText("Not connected.").waitFor();
    await page.getByRole("alert").filter({ hasText: "(replaced)" }).waitFor();
    await page.getByRole("button", { name: "Send", exact: true }).click();
    await page.getByText("There is no connection.").waitFor();
    // It is not free yet.
    const again = page.getByRole("button", { name: "Connect", exact: true });
    await again.click();
    await page
      .getByRole("alert")
      .filter({ hasText: "(refused)" })
      .filter({ hasText: "See in the list whether another client has the endpoint for itself." })
      .waitFor();
    other.socket.terminate();
    await endpoint("echo", ({ clients }) => clients === 0);
    await again.click();
    await page.getByText("Not connected.").waitFor({ state: "detached" });
    await exchange(page, "after");
    expect(await page.locator(".row.from .payload").allTextContents()).toEqual(["before", "after"]);
  });

  test("a service that is withdrawn is marked as gone; announced anew, it is there again", async () => {
    const { url, bridge, endpoint } = await testBridge();
    const service = { name: "news", ns: "down" } as const;
    const port = bridge.declare("demo", service);
    await endpoint("news", ({ state }) => state === "connected");
    const page = await open(`${url}/#/ws/v1/demo/news?view=console`);
    await page.locator(".title", { hasText: "connected" }).waitFor();
    await endpoint("news", ({ clients }) => clients === 1);
    bridge.withdraw(port);
    await page.locator(".title", { hasText: "gone" }).waitFor();
    expect(await page.getByRole("button", { name: "Withdraw" }).count()).toBe(0);
    bridge.declare("demo", service);
    await page.locator(".title", { hasText: "connected" }).waitFor();
    const reconnect = page.getByRole("button", { name: "Connect", exact: true });
    await expect
      .poll(async () => {
        if (await reconnect.isVisible()) await reconnect.click();
        return (await endpoint("news")).clients;
      })
      .toBe(1);
  });

  test("events that stop: it is told, the looks go on, and what was missed comes when they are back", async () => {
    const { url, bridge } = await testBridge();
    const network = await Network.open();
    network.target = url;
    const page = await open(network.url);
    await status(page, "live").waitFor();
    await rowOf(page, "echo").waitFor();
    await page.route("**/api/v1/events", (route) => route.abort());
    network.kill();
    await status(page, "no events").waitFor();
    // Only looks can tell of it.
    const port = bridge.declare("demo", { name: "late", ns: "down" });
    await rowOf(page, "late").waitFor();
    const told = page.getByRole("alert").filter({ hasText: "(no-events)" });
    await told
      .filter({ hasText: "do not come any more" })
      .filter({ hasText: "connects again by itself" })
      .waitFor();
    await told.filter({ hasText: "as old as the last look" }).waitFor();
    bridge.withdraw(port);
    await rowOf(page, "late").waitFor({ state: "detached" });
    bridge.declare("demo", { name: "later", ns: "down" });
    await page.unroute("**/api/v1/events");
    await status(page, "live").waitFor();
    await told.waitFor({ state: "detached" });
    await rowOf(page, "later").waitFor();
    expect(await rowOf(page, "late").count()).toBe(0);

    // Without any answer all of it is of then.
    network.target = "";
    network.kill();
    await status(page, "no answer").waitFor();
    await page
      .getByText(/All that is shown here is of \d\d:\d\d:\d\d, and may be otherwise by now\./)
      .waitFor();
    await rowOf(page, "later").waitFor();
    network.target = url;
    await status(page, "live").waitFor();
    await page.getByText("All that is shown here is of").waitFor({ state: "detached" });
  });
});
