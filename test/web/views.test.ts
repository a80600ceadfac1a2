import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout } from "node:timers/promises";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { source } from "../../guest/index.ts";
import { launchBrowser, missingBrowser } from "../client/chromium.ts";
import { Network } from "../client/stage.ts";
import { project, run, shell } from "../examples/project.ts";
import { JsonClient } from "../server/json-client.ts";
import { testBridge } from "../server/support.ts";
import { allRights } from "../server/tokens.ts";
import { Valve, vhostBridge } from "../server/vhost-guest.ts";
import { missingTool, titledWith } from "../support/missing-tool.ts";
import {
  account,
  expectNoComplaints,
  messageField,
  openDashboard,
  overflow,
  places,
  rowOf,
  tally,
  viewsBridge,
} from "./dashboard.ts";

const missing = missingBrowser();
const why = missing === undefined ? "" : ` (not here: ${missing})`;

const noCurl = missingTool("curl");
const copied = titledWith(noCurl, "the lines for curl and TypeScript do it as they are printed, %s");

// Needs `npm run build`.
describe.skipIf(missing !== undefined)(`the dashboard, in Chromium${why}`, { timeout: 60_000 }, () => {
  let browser: Browser;

  beforeAll(async () => {
    browser = await launchBrowser();
  });

  afterAll(async () => {
    await browser?.close();
  });

  test("the overview has guests with state, features and rings, endpoints, and charts that move", async () => {
    const { url, connect, endpoint } = await testBridge();
    await endpoint("sink");
    const page = await openDashboard(browser, url);
    const guest = page.getByRole("row").filter({ hasText: "RPMSG_F_NS" });
    await guest.waitFor();
    expect(await guest.textContent()).toMatch(
      /demo\s*attached\s*1\s*to guest 0\/256\s*from guest 0\/256\s*emulated/,
    );
    for (const name of ["echo", "tty", "sensor", "source", "sink"]) await rowOf(page, name).waitFor();
    expect(await rowOf(page, "echo").textContent()).toMatch(/connected\s*guest\s*1024 \(0x400\)\s*0/);

    const client = await connect("/ws/v1/demo/source");
    client.send("100000 8");
    // Its rate, and its client.
    await page.waitForFunction(() => {
      const cells = [...document.querySelectorAll("tbody tr")]
        .find((row) => row.textContent?.includes("/source"))
        ?.querySelectorAll("td");
      return cells?.[3]?.textContent === "1" && /[1-9]/.test(cells[4]?.textContent ?? "");
    });
    const charts = page.getByRole("img", {
      name: /^Messages\/s: from guests [\d.,]+( k)?, to guests [\d.,]+/,
    });
    await charts.waitFor();
    await page.getByRole("img", { name: /^Bytes\/s: from guests [\d.,]+ k?M?B/ }).waitFor();
    // It is of two seconds at a time: messages have to go on coming.
    const latency = page.getByRole("img", { name: /^Latency: median [\d.,]+ (µs|ms)/ });
    const seen = async (): Promise<boolean> => {
      client.send("100 8");
      return latency.isVisible();
    };
    await expect.poll(seen, { timeout: 40_000, interval: 100 }).toBe(true);
    expect(await page.locator(".charts canvas").count()).toBe(3);
    client.socket.terminate();
    expectNoComplaints(page);
  });

  test("what is announced and withdrawn shows as it happens", async () => {
    const { url, bridge } = await testBridge();
    const page = await openDashboard(browser, url);
    await rowOf(page, "echo").waitFor();
    const port = bridge.declare("demo", { name: "late", ns: "down" });
    await rowOf(page, "late").waitFor();
    bridge.withdraw(port);
    await rowOf(page, "late").waitFor({ state: "detached" });
    await page.getByRole("searchbox", { name: "Filter endpoints" }).fill("sens");
    await rowOf(page, "echo").waitFor({ state: "detached" });
    expect(await page.locator("tbody tr a[href*='/ws/']").count()).toBe(1);
  });

  test("a guest's page announces services of the host, says what is wrong, and they are withdrawn again", async () => {
    const { url, endpoints } = await testBridge();
    const page = await openDashboard(browser, `${url}/#/guests/demo`);
    await page.getByRole("heading", { name: "demo" }).waitFor();
    await page.getByText("response 256, request 256 entries").waitFor();
    const form = page.locator("form", { hasText: "Who announces it" });
    await form.getByLabel("Name", { exact: true }).fill("news");
    await form.getByLabel("Address (optional)").fill("0x410");
    await form.getByRole("button", { name: "Announce" }).click();
    await page.getByText("Announced news").waitFor();
    await rowOf(page, "news").waitFor();
    // The address is taken now.
    await form.getByLabel("Name", { exact: true }).fill("other");
    await form.getByLabel("Address (optional)").fill("1040");
    await form.getByRole("button", { name: "Announce" }).click();
    await page.getByText("(address-in-use)").waitFor();
    await page.getByText("Choose another address, or none.").waitFor();

    await page.getByRole("link", { name: "news" }).first().click();
    await page.getByRole("button", { name: "Withdraw" }).click();
    await page.getByText("Its clients are closed.").waitFor();
    await page.getByRole("button", { name: "Keep it" }).click();
    await page.getByRole("button", { name: "Withdraw" }).click();
    await page.getByRole("button", { name: "Withdraw for good" }).click();
    await page.getByRole("heading", { name: "Guests" }).waitFor();
    await rowOf(page, "news").waitFor({ state: "detached" });
    expect((await endpoints()).map(({ name }) => name)).not.toContain("news");
    expectNoComplaints(page);
  });

  test("the console sends text, bytes and files, shows them in three ways, finds, stops and saves them", async () => {
    const { url } = await testBridge();
    const page = await openDashboard(browser, `${url}/#/ws/v1/demo/echo`);
    const log = page.getByRole("listbox", { name: "Messages" });
    const field = await messageField(page);
    await field.fill('{"a": [1, 2]}');
    await field.press("Enter");
    await page.getByText(/^sent in [\d.]+ ms$/).waitFor();
    await page.locator(".row.from").waitFor();
    const lines = () => log.locator(".payload").allTextContents();
    const choose = (group: string) => (name: string) =>
      page.getByRole("group", { name: group }).getByRole("radio", { name }).check();
    const [payloadAs, send] = [choose("Payload as"), choose("Send")];
    expect(await lines()).toEqual(['{"a": [1, 2]}', '{"a": [1, 2]}']);
    await payloadAs("json");
    expect(await lines()).toEqual(['{"a":[1,2]}', '{"a":[1,2]}']);
    await page.locator(".row.from").click();
    expect(await page.locator(".detail pre").textContent()).toBe('{\n  "a": [\n    1,\n    2\n  ]\n}');
    await payloadAs("hex");
    expect(await lines()).toEqual([
      "7b 22 61 22 3a 20 5b 31 2c 20 32 5d 7d",
      "7b 22 61 22 3a 20 5b 31 2c 20 32 5d 7d",
    ]);
    expect(await page.locator(".detail pre").textContent()).toMatch(
      /^0000 {2}7b 22 .* {2}\{"a": \[1, 2\]\}$/,
    );

    // Bytes, that are no text.
    await send("hex");
    await field.fill("ff 0");
    await field.press("Enter");
    await page.getByText("not hexadecimal").waitFor();
    await field.fill("ff 00 0A");
    await field.press("Enter");
    await expect.poll(lines).toContain("ff 00 0a");
    await send("text");

    // Again and again, and the line of before.
    await field.fill("tick");
    const times = page.getByRole("spinbutton", { name: "times" });
    await times.fill("");
    // It is left alone while it is typed, and put within its bounds then.
    expect(await times.inputValue()).toBe("");
    await times.fill("0");
    await times.blur();
    expect(await times.inputValue()).toBe("1");
    await times.fill("3");
    await page.getByRole("spinbutton", { name: /every/ }).fill("1");
    await page.getByRole("button", { name: "Send", exact: true }).click();
    await page.getByText("sent 3 of 3").waitFor();
    await expect.poll(async () => (await tally(page)).total).toBe(10);
    await page.getByRole("spinbutton", { name: "times" }).fill("1");
    await field.fill("");
    await field.press("ArrowUp");
    expect(await field.inputValue()).toBe("tick");

    // A file in as many messages as it needs.
    await send("file");
    const bytes = Buffer.from(Array.from({ length: 1000 }, (_, i) => i & 0xff));
    await page
      .getByLabel("File to send")
      .setInputFiles({ name: "f.bin", mimeType: "application/octet-stream", buffer: bytes });
    await page.getByRole("button", { name: "Send", exact: true }).click();
    await page.getByText("sent 3 of 3").waitFor();
    await expect.poll(async () => (await tally(page)).total).toBe(16);

    // Found, stopped, saved.
    await payloadAs("text");
    await page.getByRole("searchbox", { name: "Search messages" }).fill("TICK");
    await expect.poll(async () => (await tally(page)).shown).toBe(6);
    await page.getByRole("searchbox", { name: "Search messages" }).fill("");
    await page.getByRole("button", { name: "Pause" }).click();
    await send("text");
    await field.fill("unseen");
    await field.press("Enter");
    await expect.poll(async () => (await tally(page)).total).toBe(18);
    expect([(await tally(page)).shown, (await lines()).includes("unseen")]).toEqual([16, false]);
    await page.getByRole("button", { name: "Pause" }).click();
    await expect.poll(lines).toContain("unseen");
    const [download] = await Promise.all([
      page.waitForEvent("download"),
      page.getByRole("button", { name: "Save" }).click(),
    ]);
    const saved = readFileSync(await download.path(), "utf8")
      .trimEnd()
      .split("\n");
    expect(download.suggestedFilename()).toBe("demo-echo.jsonl");
    expect(saved.map((line) => (JSON.parse(line) as { number: number }).number)).toEqual(
      Array.from({ length: 18 }, (_, i) => i + 1),
    );
    expect(JSON.parse(saved[0] ?? "")).toMatchObject({ kind: "to", length: 13, text: '{"a": [1, 2]}' });

    // Too long.
    await field.fill("x".repeat(497));
    await field.press("Enter");
    await page.getByText("(too-large)").waitFor();
    await page.getByText("Send at most `mtu` bytes.").waitFor();
    expectNoComplaints(page);
  });

  test("of very many messages the console shows a sample, says so, counts all, and goes on answering", async () => {
    const { url } = await testBridge();
    const page = await openDashboard(browser, `${url}/#/ws/v1/demo/source?view=console`);
    const field = await messageField(page);
    const COUNT = 20_000;
    await field.fill(`${COUNT} 16`);
    await field.press("Enter");
    await page.getByText("a sample: of more than 500 a second").waitFor();
    // While they come.
    await page.getByRole("tab", { name: "connect" }).click();
    await page.getByRole("heading", { name: "wscat" }).waitFor();
    await page.getByRole("tab", { name: "console" }).click();
    // Where this machine is too slow for all of them, what was left out is told as well.
    const came = async (): Promise<number> => {
      const { total, dropped } = await account(page);
      return total + dropped;
    };
    await expect.poll(came, { timeout: 40_000 }).toBe(COUNT + 1);
    // And each of them is somewhere.
    const { total, shown, sampled, gone } = await account(page);
    expect(shown + sampled + gone).toBe(total);
    expect([sampled > 0, shown <= 5000]).toEqual([true, true]);
  });

  test("a terminal talks to a line shell, in colours, and the keyboard comes out of it", async () => {
    const { url } = await testBridge();
    const page = await openDashboard(browser, `${url}/#/ws/v1/demo/tty`);
    const rows = page.locator(".xterm-rows");
    await rows.waitFor();
    await page.locator(".connection").waitFor({ state: "detached" });
    await page.keyboard.type("uname");
    await page.keyboard.press("Enter");
    await page.locator(".xterm-rows", { hasText: "rpmsg-bridge emulated guest, profile linux" }).waitFor();
    // What xterm puts in style elements is in force.
    const [family, height] = await rows.evaluate((element) => {
      const row = getComputedStyle(element.firstElementChild as Element);
      return [getComputedStyle(element).fontFamily, Number.parseFloat(row.height)];
    });
    expect(family).toContain("monospace");
    expect(height).toBeGreaterThan(10);
    await page.keyboard.press("Shift+Tab");
    expect(await page.evaluate(() => document.activeElement?.getAttribute("role"))).toBe("tab");
    expectNoComplaints(page);

    // An echo of what a terminal takes for a colour of 24 bits.
    const other = await openDashboard(browser, `${url}/#/ws/v1/demo/echo?view=terminal`);
    await other.locator(".xterm-rows").waitFor();
    await other.locator(".connection").waitFor({ state: "detached" });
    await other.keyboard.press("Escape");
    await other.keyboard.type("[38;2;200;10;20mred");
    await other.locator(".xterm-rows", { hasText: "red" }).waitFor();
    const colour = await other
      .locator(".xterm-rows span", { hasText: "red" })
      .evaluate((each) => getComputedStyle(each).color);
    expect(colour).toBe("rgb(200, 10, 20)");

    // What is pasted may be longer than a message.
    const pasted = `${"x".repeat(1200)}end`;
    await other.evaluate((text) => {
      const clipboardData = new DataTransfer();
      clipboardData.setData("text/plain", text);
      const event = new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true });
      document.querySelector(".xterm-helper-textarea")?.dispatchEvent(event);
    }, pasted);
    await other.locator(".xterm-rows", { hasText: "xend" }).waitFor();
    // And what was on the screen is there again when it is come back to.
    await other.getByRole("tab", { name: "console" }).click();
    await other.locator(".row.from").first().waitFor();
    await other.getByRole("tab", { name: "terminal" }).click();
    await other.locator(".xterm-rows", { hasText: "xend" }).waitFor();
    // A question to the terminal is answered once, not whenever it is shown again: the echo has the answer.
    const answers = () => other.locator(".row.from", { hasText: /^.*\[\d+;\d+R$/ }).count();
    await other.getByRole("tab", { name: "console" }).click();
    const field = await messageField(other);
    await field.fill("\u001b[6n");
    await field.press("Enter");
    await other.getByRole("tab", { name: "terminal" }).click();
    await other.locator(".xterm-rows", { hasText: "xend" }).waitFor();
    await other.locator(".xterm-helper-textarea").focus();
    await other.keyboard.type("after");
    await other.locator(".xterm-rows", { hasText: "xendafter" }).waitFor();
    await other.getByRole("tab", { name: "console" }).click();
    await other.locator(".row.from").last().waitFor();
    expect(await answers()).toBe(0);
    expectNoComplaints(other);
  });

  test("the sensor draws itself, a chart a field, and says how much of it is drawn", async () => {
    const { url, endpoint } = await testBridge();
    const page = await openDashboard(browser, `${url}/#/ws/v1/demo/sensor`);
    await page.getByRole("img", { name: /^temperature: now 2[0-9.]+$/ }).waitFor();
    await page.getByRole("img", { name: /^pressure: now 1,01[0-9.]+$/ }).waitFor();
    await expect.poll(() => page.locator(".charts canvas").count()).toBe(2);
    const { shown, total } = await tally(page);
    expect(total).toBeGreaterThanOrEqual(shown);
    // What counts is there, and drawn when it is asked for.
    await page.getByRole("checkbox", { name: "seq" }).check();
    await page.getByRole("img", { name: /^seq: now \d+$/ }).waitFor();
    await page.getByRole("checkbox", { name: "pressure" }).uncheck();
    await page.getByRole("img", { name: /^pressure/ }).waitFor({ state: "detached" });
    expectNoComplaints(page);
    // A look at another view does not start it again: its numbers would begin anew.
    const sent = async () => (await endpoint("sensor")).counters.accepted;
    expect(await sent()).toBe(1);
    await page.getByRole("tab", { name: "connect" }).click();
    await page.getByRole("heading", { name: "wscat" }).waitFor();
    await page.getByRole("tab", { name: "plot" }).click();
    await page.getByRole("img", { name: /^temperature: now 2[0-9.]+$/ }).waitFor();
    expect(await sent()).toBe(1);
    // It is told to stop when nobody looks any more.
    await page.goto(`${url}/#/`);
    await silence();
    // And when the page is gone at once.
    await page.goto(`${url}/#/ws/v1/demo/sensor`);
    await page.getByRole("img", { name: /^temperature: now 2[0-9.]+$/ }).waitFor();
    await page.goto("about:blank");
    await silence();

    /** Nothing comes of it for a while; where it was not stopped, something always does. */
    async function silence(): Promise<void> {
      const came = async () => (await endpoint("sensor")).counters.messagesFromGuest;
      const more = async (): Promise<number> => {
        const before = await came();
        await setTimeout(500);
        return (await came()) - before;
      };
      await expect.poll(more, { timeout: 20_000 }).toBe(0);
    }
  });

  test("lines to copy have this bridge, this endpoint, and the guest's socket", async () => {
    const { url } = await testBridge();
    const page = await openDashboard(browser, `${url}/#/ws/v1/demo/echo?view=connect`, {
      permissions: ["clipboard-read", "clipboard-write"],
    });
    await page.getByRole("button", { name: "Copy the wscat line" }).click();
    await page.getByText("Copied").waitFor();
    const copied = await page.evaluate(() => navigator.clipboard.readText());
    expect(copied).toBe(`npx wscat -c ${url.replace("http", "ws")}/ws/v1/demo/echo`);
    const all = (await page.locator("pre").allTextContents()).join("\n");
    expect(all).toContain(`${url}/api/v1/guests/demo/endpoints/e1/messages`);
    expect(all).toContain('import { connect } from "rpmsg-bridge/client";');
    expect(all).toContain(`npx rpmsg-bridge connect --url ${url}/ demo/echo`);
  });

  test("rings show what they hold: messages that a guest does not take, and those that a reader holds up", async () => {
    const { url, attach, connect, endpoint } = await vhostBridge({ limits: { slowReaderBytes: 4096 } });
    const valve = new Valve();
    const attached = await attach({ profile: "rpmsg-lite", services: { valve: valve.factory, source } });
    await endpoint("valve");
    await endpoint("source");
    const page = await openDashboard(browser, `${url}/#/guests/vm`);
    const rings = page.locator(".rings");
    const shows = async (text: RegExp | string): Promise<void> => {
      await rings.filter({ hasText: text }).first().waitFor();
    };
    await shows("to guest 0/8");
    const client = await connect("/ws/v1/vm/valve");
    for (let i = 0; i < 3; i++) client.send(`${i}`);
    await shows("to guest 3/8");
    for (let i = 3; i < 20; i++) client.send(`${i}`);
    await shows("to guest 8/8");
    expect(await page.getByRole("meter", { name: "ring to guest" }).getAttribute("value")).toBe("8");
    valve.release(attached);
    await shows("to guest 0/8");
    // A client that takes nothing holds the guest's sending up.
    const reader = await JsonClient.open({ url }, "/ws/v1/vm/source?slow=pause&credit=0");
    reader.send("1000 8");
    await shows("from guest 8/8");
    await page.goto(`${url}/#/`);
    await shows("from guest 8/8");
    reader.write({ type: "credit", messages: 1000 });
    await shows("from guest 0/8");
    expectNoComplaints(page);
  });

  test.skipIf(noCurl !== undefined).each([
    ["without a token", undefined],
    ["with a token", allRights()],
  ])(copied, async (_, all) => {
    const tokens = all === undefined ? {} : { tokens: [all.config] };
    const { url, endpoint } = await testBridge(tokens, undefined, all?.headers);
    await endpoint("echo");
    const page = await openDashboard(browser, `${url}/#/ws/v1/demo/echo?view=connect`);
    if (all !== undefined) {
      await page.getByLabel("Token").fill(all.token);
      await page.getByRole("button", { name: "Open" }).click();
    }
    const printed = async (title: string): Promise<string> => {
      const section = page
        .locator(".copy")
        .filter({ has: page.getByRole("heading", { name: title, exact: true }) });
      return (await section.locator("pre").textContent()) ?? "";
    };
    const environment = all === undefined ? {} : { RPMSG_BRIDGE_TOKEN: all.token };
    const directory = project();

    writeFileSync(join(directory, "curl.sh"), await printed("curl"));
    const { stdout } = await run("bash curl.sh", directory, environment);
    expect(JSON.parse(stdout)).toMatchObject({ data: "hello", encoding: "utf8" });

    // Node before 22 has no WebSocket of its own, as the hint says.
    const give = 'import { WebSocket } from "ws"; globalThis.WebSocket ??= WebSocket;';
    writeFileSync(join(directory, "web-socket.js"), give);
    writeFileSync(join(directory, "line.js"), await printed("TypeScript"));
    const { child } = shell("exec node --import ./web-socket.js line.js", directory, environment);
    const told: string[] = [];
    child.stderr.on("data", (part: Buffer) => told.push(part.toString()));
    const [line] = await Promise.race([
      once(createInterface({ input: child.stdout }), "line"),
      once(child, "close").then(() => told),
    ]);
    expect(line).toBe("hello");
  });

  test("a virtual machine's endpoint has the line that attaches it", async () => {
    const { url, attach } = await vhostBridge();
    await attach();
    const page = await openDashboard(browser, `${url}/#/ws/v1/vm/echo?view=connect`);
    await page.getByRole("heading", { name: "QEMU" }).waitFor();
    await page.getByLabel("Socket of this guest").fill("/run/vm.sock");
    await page.locator("pre", { hasText: "-chardev socket,id=rpmsg,path=/run/vm.sock" }).waitFor();
    expectNoComplaints(page);
  });

  test("names and payloads are text, whatever is in them", async () => {
    const { url, bridge } = await testBridge();
    const nasty = "<img src=x onerror=a()>\u202e\"'";
    bridge.declare("demo", { name: nasty, ns: "down" });
    const page = await openDashboard(browser, url);
    const link = page.getByRole("link", { name: "<img src=x onerror=a()>\\u202e\"'" });
    await link.click();
    await page.getByRole("heading", { name: "<img src=x onerror=a()>" }).waitFor();
    await page.getByRole("tab", { name: "connect" }).click();
    await page.getByRole("heading", { name: "curl" }).waitFor();
    await page.goto(`${url}/#/ws/v1/demo/echo?view=console`);
    const field = await messageField(page);
    await field.fill("<b id=evil>\u202e</b>");
    await field.press("Enter");
    await page.locator(".row.from", { hasText: "<b id=evil>\\u202e</b>" }).waitFor();
    expect(await page.locator("img, #evil").count()).toBe(0);
    expectNoComplaints(page);
  });

  test("a bridge that does not answer is told, with what to do, and found again", async () => {
    const { url } = await testBridge();
    const network = await Network.open();
    network.target = url;
    const page = await openDashboard(browser, network.url);
    await rowOf(page, "echo").waitFor();
    network.target = "";
    network.kill();
    const told = page.getByRole("alert").filter({ hasText: "(unreachable)" });
    await told.filter({ hasText: "See whether the bridge runs" }).waitFor();
    expect(await page.getByRole("status").first().textContent()).toBe("no answer");
    // The mark says so by its shape.
    const mark = page.getByRole("status").first().locator(".dot");
    expect(await mark.evaluate((each) => getComputedStyle(each).borderTopLeftRadius)).toBe("0px");
    network.target = url;
    await told.waitFor({ state: "detached" });
    await page.getByRole("status").filter({ hasText: "live" }).waitFor();
  });

  test("without events the lists are those of the looks, and it is told", async () => {
    const { url } = await testBridge({ limits: { eventStreams: 1 } });
    const end = new AbortController();
    const taken = await fetch(`${url}/api/v1/events`, { signal: end.signal });
    expect(taken.status).toBe(200);
    const page = await openDashboard(browser, url);
    await rowOf(page, "echo").waitFor();
    await page.getByRole("row").filter({ hasText: "RPMSG_F_NS" }).waitFor();
    const told = page.getByRole("alert").filter({ hasText: "(no-events)" });
    await told.filter({ hasText: "Close other tabs" }).waitFor();
    end.abort();
    await told.waitFor({ state: "detached" });
    await rowOf(page, "echo").waitFor();
  });

  test("without a channel nothing is sent, a file neither, and it is told", async () => {
    const { url, connect, endpoint } = await testBridge();
    await endpoint("echo");
    const other = await connect("/ws/v1/demo/echo?share=exclusive");
    const page = await openDashboard(browser, `${url}/#/ws/v1/demo/echo?view=console`);
    await page.getByText("Not connected.").waitFor();
    await page.getByRole("group", { name: "Send" }).getByRole("radio", { name: "file" }).check();
    await page
      .getByLabel("File to send")
      .setInputFiles({ name: "f.bin", mimeType: "application/octet-stream", buffer: Buffer.alloc(10) });
    const send = page.getByRole("button", { name: "Send", exact: true });
    await send.click();
    await page.getByText("connect first").waitFor();
    // It goes on, and sends when it can.
    other.socket.terminate();
    await endpoint("echo", ({ clients }) => clients === 0);
    await page.getByRole("button", { name: "Connect", exact: true }).click();
    await page.getByText("Not connected.").waitFor({ state: "detached" });
    await send.click();
    await page.locator(".row.from").waitFor();
    expect(await page.locator(".row.from .length").textContent()).toBe("10");
  });

  test("a part of the page that does not come is told", async () => {
    const { url } = await testBridge();
    const page = await openDashboard(browser, url);
    await page.route("**/assets/screen-*", (route) => route.abort());
    await page.goto(`${url}/#/ws/v1/demo/tty`);
    await page.getByText("The terminal could not be loaded.").waitFor();
    expect(await page.locator(".trouble .advice").textContent()).toContain("Reload this page");
  });

  test("a guest and an endpoint that are not there are told", async () => {
    const { url } = await testBridge();
    const page = await openDashboard(browser, `${url}/#/guests/nobody`);
    await page.getByText("There is no such guest").waitFor();
    await page.goto(`${url}/#/ws/v1/demo/nothing`);
    await page.getByText("There is no such endpoint now").waitFor();
    expectNoComplaints(page);
  });

  test("every view fits in 360 pixels", async () => {
    const { url } = await viewsBridge();
    const page = await openDashboard(browser, url, { viewport: { width: 360, height: 640 } });
    for (const [place, complete] of places) {
      await page.goto(`${url}/${place}`);
      await page.locator(complete).first().waitFor();
      expect([place, await overflow(page)]).toEqual([place, []]);
    }
    const strict = await testBridge({ tokens: [allRights().config], readOnly: true });
    await page.goto(strict.url);
    await page.getByLabel("Token").waitFor();
    expect(await overflow(page)).toEqual([]);
  });

  test("the keyboard alone gets to an endpoint, through its views, and sends", async () => {
    const { url, endpoint } = await testBridge();
    await endpoint("echo");
    const page = await openDashboard(browser, url);
    await rowOf(page, "echo").waitFor();
    const focused = () => page.evaluate(() => document.activeElement?.textContent ?? "");
    await page.keyboard.press("Tab");
    expect(await focused()).toBe("Skip to the content");
    await page.keyboard.press("Enter");
    for (let i = 0; i < 20 && (await focused()) !== "echo"; i++) await page.keyboard.press("Tab");
    const outline = await page.evaluate(
      () => getComputedStyle(document.activeElement as Element).outlineWidth,
    );
    expect(outline).toBe("2px");
    await page.keyboard.press("Enter");
    const tab = page.getByRole("tab", { name: "console" });
    await tab.waitFor();
    for (let i = 0; i < 20 && (await focused()) !== "console"; i++) await page.keyboard.press("Tab");
    await page.keyboard.press("ArrowLeft");
    await page.getByRole("heading", { name: "wscat" }).waitFor();
    await page.keyboard.press("ArrowRight");
    // What is reached so does not take the keys.
    await page.keyboard.press("ArrowRight");
    await page.locator(".xterm-rows").waitFor();
    expect(await focused()).toBe("terminal");
    await page.keyboard.press("ArrowLeft");
    expect(await page.title()).toBe("demo/echo · rpmsg-bridge");
    await (await messageField(page)).focus();
    await page.keyboard.type("keys");
    await page.keyboard.press("Enter");
    await page.locator(".row.from", { hasText: "keys" }).waitFor();
    await page.getByRole("listbox").focus();
    await page.keyboard.press("ArrowUp");
    await page.getByRole("region", { name: "The selected message" }).waitFor();
  });
});
