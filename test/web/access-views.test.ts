import type { Page } from "playwright-core";
import { expect, test } from "vitest";
import { testBridge } from "../server/support.ts";
import { allRights, testToken } from "../server/tokens.ts";
import { expectNoComplaints, messageField, rowOf, tally } from "./dashboard.ts";
import { inChromium } from "./in-chromium.ts";

async function giveToken(page: Page, token: string): Promise<void> {
  await page.getByLabel("Token").fill(token);
  await page.getByRole("button", { name: "Open" }).click();
}

const readOnly = /This bridge is read-only/;
const sendButton = (page: Page) => page.getByRole("button", { name: "Send", exact: true });

inChromium("what may be done shows before it is tried", (open) => {
  test("of a read-only bridge: every control that would change something is off, and says why", async () => {
    const { url, bridge, endpoint } = await testBridge({ readOnly: true });
    bridge.declare("demo", { name: "news", ns: "down" });
    const page = await open(`${url}/#/ws/v1/demo/echo`);
    await page.getByText("read-only", { exact: true }).waitFor();
    await page.getByText(readOnly).waitFor();
    expect(await sendButton(page).isDisabled()).toBe(true);
    expect(await page.getByRole("textbox", { name: "Message", exact: true }).isDisabled()).toBe(true);
    // Who cannot see it is told as well.
    const group = page.getByRole("group", { name: "A message to the guest" });
    expect(await group.getAttribute("aria-describedby")).toBe("send-refused");

    await page.goto(`${url}/#/ws/v1/demo/tty`);
    await page.locator(".xterm-rows").waitFor();
    await page.getByText("Keys go nowhere.").waitFor();
    await page.keyboard.type("uname\n");

    // The sensor is not asked for anything.
    await page.goto(`${url}/#/ws/v1/demo/sensor`);
    await page.getByText("Waiting for JSON").waitFor();
    await page.getByText(readOnly).first().waitFor();

    await page.goto(`${url}/#/guests/demo`);
    await page.getByText(readOnly).waitFor();
    const form = page.locator("form", { hasText: "Who announces it" });
    expect(await form.getByLabel("Name", { exact: true }).isDisabled()).toBe(true);
    expect(await form.getByRole("button", { name: "Announce" }).isDisabled()).toBe(true);

    await page.goto(`${url}/#/ws/v1/demo/news`);
    await page.getByText(readOnly).first().waitFor();
    expect(await page.getByRole("button", { name: "Withdraw" }).isDisabled()).toBe(true);
    // And nothing was tried: no error of the bridge.
    expect(await page.getByRole("alert").count()).toBe(0);
    for (const name of ["echo", "tty", "sensor"]) expect((await endpoint(name)).counters.accepted).toBe(0);
    expectNoComplaints(page);
  });

  test("of a token: what it may not see is not there, what it may not do is off, with the right that it lacks", async () => {
    const few = testToken("few", {
      read: ["demo/sensor"],
      write: ["demo/sink"],
      announce: ["demo/news"],
    });
    const all = allRights();
    const running = await testBridge({ tokens: [few.config, all.config] }, undefined, all.headers);
    for (const name of ["echo", "sink", "sensor"]) await running.endpoint(name);
    const page = await open(running.url);
    await giveToken(page, few.token);
    await rowOf(page, "sensor").waitFor();
    await rowOf(page, "sink").waitFor();
    expect(await page.locator("tbody tr a[href*='/ws/']").count()).toBe(2);
    expect(await page.getByText("token few until").count()).toBe(1);
    await page.getByText("the right admin for */*").waitFor();
    await page.goto(`${running.url}/#/ws/v1/demo/echo`);
    await page.getByText("There is no such endpoint now").waitFor();

    // It may read one,
    await page.goto(`${running.url}/#/ws/v1/demo/sensor?view=console`);
    await page
      .getByText('The token "few" of this page may not send to it: it has no right "write".')
      .waitFor();
    expect(await sendButton(page).isDisabled()).toBe(true);
    // and send to the other.
    await page.goto(`${running.url}/#/ws/v1/demo/sink`);
    await page.getByText('may not get its messages: it has no right "read"').waitFor();
    const field = await messageField(page);
    await field.fill("one");
    await field.press("Enter");
    await page.getByText(/^sent in/).waitFor();
    await expect.poll(async () => (await tally(page)).total).toBe(1);
    expect((await running.endpoint("sink")).counters.accepted).toBe(1);

    // Of what it may announce the address is the bridge's choice.
    await page.goto(`${running.url}/#/guests/demo`);
    const form = page.locator("form", { hasText: "Who announces it" });
    const address = form.getByLabel("Address (optional)");
    await expect.poll(() => address.isDisabled()).toBe(true);
    expect(await address.getAttribute("title")).toContain('it has no right "admin"');
    await form.getByLabel("Name", { exact: true }).fill("others");
    await form.getByRole("button", { name: "Announce" }).click();
    await page.getByText("(forbidden)").waitFor();
    await form.getByLabel("Name", { exact: true }).fill("news");
    await form.getByRole("button", { name: "Announce" }).click();
    await page.getByText("Announced news").waitFor();
    expectNoComplaints(page);
  });

  test("when the token ends, the page asks for one, and goes on where it was", async () => {
    // As long as a page takes here, and longer: it ends while it is looked at.
    const start = performance.now();
    const first = await testBridge();
    await rowOf(await open(first.url), "echo").waitFor();
    const lasts = Math.max(4 * (performance.now() - start), 4000);
    const short = testToken("short", { read: ["*/*"], write: ["*/*"] }, Date.now() + lasts);
    const all = allRights();
    const { url } = await testBridge({ tokens: [short.config, all.config] });
    const page = await open(`${url}/#/ws/v1/demo/echo`);
    await giveToken(page, short.token);
    await page.getByRole("heading", { name: "demo/echo" }).waitFor();
    await page.getByRole("heading", { name: "This bridge asks for a token" }).waitFor();
    await page.getByRole("alert").filter({ hasText: "(unauthorized)" }).waitFor();
    await page.getByRole("status").filter({ hasText: "token needed" }).waitFor();
    await giveToken(page, all.token);
    await page.getByRole("heading", { name: "demo/echo" }).waitFor();
    const field = await messageField(page);
    await field.fill("again");
    await field.press("Enter");
    await page.locator(".row.from", { hasText: "again" }).waitFor();
    expectNoComplaints(page);
  });

  test("a ticket in the address opens the page once; used again it says so, and a token is asked for", async () => {
    const { url, bridge } = await testBridge();
    const credentials = bridge.gate.close();
    const place = `${url}/#ticket=${credentials?.ticket}`;
    const page = await open(place);
    await rowOf(page, "echo").waitFor();
    // It is nowhere that somebody could find it.
    expect(page.url()).not.toContain("ticket");
    await page.reload();
    await rowOf(page, "echo").waitFor();

    const late = await open(place);
    await late.getByRole("heading", { name: "This bridge asks for a token" }).waitFor();
    await late.getByRole("alert").filter({ hasText: "(unauthorized)" }).waitFor();
    await late
      .getByText("Open the address that the bridge printed when it started, which works once")
      .first()
      .waitFor();
  });
});
