import { fileURLToPath } from "node:url";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import type * as Client from "../../client/index.ts";
import { testBridge } from "../server/support.ts";
import { allRights, testToken } from "../server/tokens.ts";
import { bundle } from "./bundle.ts";
import { launchBrowser, missingBrowser } from "./chromium.ts";
import { Network } from "./stage.ts";

const missing = missingBrowser();
const why = missing === undefined ? "" : ` (not here: ${missing})`;

type Globals = typeof globalThis & { client: typeof Client; channel: Client.Channel };

describe.skipIf(missing !== undefined)(`access, in Chromium${why}`, () => {
  let browser: Browser;
  let code: string;

  beforeAll(async () => {
    const entry = fileURLToPath(import.meta.resolve("../../client/index.ts"));
    [code, browser] = await Promise.all([bundle(entry), launchBrowser()]);
  });

  afterAll(async () => {
    await browser?.close();
  });

  async function newPage(): Promise<Page> {
    const context = await browser.newContext();
    onTestFinished(() => context.close());
    return context.newPage();
  }

  /** A page with the client, of an origin of its own or, where the network leads to a bridge, of that. */
  async function clientPage({ url, pages }: Pick<Network, "url" | "pages">): Promise<Page> {
    pages.set("/page", [
      "text/html",
      '<script type="module">import * as client from "./client.js"; Object.assign(globalThis, { client });</script>',
    ]);
    pages.set("/client.js", ["text/javascript", code]);
    const page = await newPage();
    await page.goto(`${url}/page`);
    await page.waitForFunction(() => "client" in globalThis);
    return page;
  }

  test("the printed address opens the page once: its ticket becomes a session, which a reload keeps", async () => {
    const { url, bridge, endpoint } = await testBridge();
    await endpoint("echo");
    const { ticket } = bridge.gate.close() ?? {};
    const page = await newPage();
    const complaints: string[] = [];
    page.on("console", (message) => complaints.push(message.text()));
    page.on("pageerror", (error) => complaints.push(error.message));
    const asked: string[] = [];
    page.on("request", (request) => asked.push(request.url()));
    await page.goto(`${url}/#ticket=${ticket}`);
    await page.getByRole("link", { name: "echo", exact: true }).waitFor();
    expect(page.url()).toBe(`${url}/`);
    expect(asked.filter((each) => each.includes("rpmsgt"))).toEqual([]);
    await page.reload();
    await page.getByRole("link", { name: "echo", exact: true }).waitFor();
    expect(complaints).toEqual([]);

    const other = await newPage();
    await other.goto(`${url}/#ticket=${ticket}`);
    await other.getByText("the ticket is not known any more (unauthorized)").waitFor();
    expect(await other.getByRole("row").count()).toBe(0);
    // Where there is a session, what became of the ticket does not matter.
    await page.goto(`${url}/#ticket=${ticket}`);
    await page.reload();
    await page.getByRole("link", { name: "echo", exact: true }).waitFor();
    expect(await page.getByLabel("Token").isVisible()).toBe(false);
  });

  test("a page without a ticket says what to do, and takes the token, of which it keeps a session only", async () => {
    const { url, bridge, endpoint } = await testBridge();
    await endpoint("echo");
    const { token = "" } = bridge.gate.close() ?? {};
    const page = await newPage();
    const complaints: string[] = [];
    page.on("console", (message) => complaints.push(message.text()));
    page.on("pageerror", (error) => complaints.push(error.message));
    const asked: string[] = [];
    page.on("request", (request) => asked.push(request.url()));
    await page.goto(url);
    await page.getByText(/^Open the address that the bridge printed/).waitFor();
    const field = page.getByLabel("Token");
    const give = async (text: string) => {
      await field.fill(text);
      await page.getByRole("button", { name: "Open" }).click();
    };
    expect(await field.getAttribute("type")).toBe("password");
    await give(`rpmsg_${"x".repeat(43)}`);
    await page.getByText("the token is not known (unauthorized)").waitFor();
    await give("no token");
    await page.getByText("what came as a bearer is no token (unauthorized)").waitFor();
    await give("\u{1f511}");
    await page.getByText("(unreachable)").waitFor();
    await give(` ${token} `);
    await page.getByRole("link", { name: "echo", exact: true }).waitFor();
    expect(await field.count()).toBe(0);
    const kept = await page.evaluate(() => JSON.stringify([sessionStorage, localStorage]));
    expect(kept).toMatch(/^\[\{"token":"rpmsg_[^"]{43}"\},\{\}\]$/);
    expect(kept).not.toContain(token);
    expect([page.url(), asked.filter((each) => each.includes("rpmsg_"))]).toEqual([`${url}/`, []]);
    // Of answers that are errors Chromium tells too.
    expect(complaints.filter((each) => !each.startsWith("Failed to load resource"))).toEqual([]);

    await page.evaluate(() => sessionStorage.setItem("token", `rpmsg_${"y".repeat(43)}`));
    await page.reload();
    await page.getByText("the token is not known (unauthorized)").waitFor();
    expect(await field.isVisible()).toBe(true);
    // It is forgotten.
    await page.reload();
    await page.getByText(/^Open the address/).waitFor();
  });

  test("a page of a bridge that asks for no token asks for none either", async () => {
    const { url, endpoint } = await testBridge();
    await endpoint("echo");
    const page = await newPage();
    await page.goto(url);
    await page.getByRole("link", { name: "echo", exact: true }).waitFor();
    expect(await page.getByLabel("Token").isVisible()).toBe(false);
  });

  test("the client shows a ticket for every connection, and lists and watches with the token", async () => {
    const token = testToken("page", { read: ["demo/echo"], write: ["demo/echo"] });
    const { url, bridge } = await testBridge({ tokens: [token.config] });
    const network = await Network.open();
    network.target = url;
    const page = await clientPage(network);
    const told = await page.evaluate(async (bearer) => {
      const { client } = globalThis as Globals;
      const session = await client.openSession("/", { token: bearer });
      const names = (await client.list("/", session)).map(({ name }) => name);
      const channel = await client.connect("/ws/v1/demo/echo", { ...session, reconnect: { minDelay: 1 } });
      Object.assign(globalThis, { channel });
      await channel.send("first");
      const seen: string[] = [];
      for await (const change of client.watch("/", session)) {
        if (change.type === "endpoint") seen.push(change.endpoint.name);
        if (change.type === "ready") break;
      }
      return [names, seen, (await channel.receive()).text];
    }, token.token);
    expect(told).toEqual([["echo"], ["echo"], "first"]);
    network.kill();
    const again = await page.evaluate(async () => {
      const { channel } = globalThis as Globals;
      await channel.send("again").catch(() => channel.send("again"));
      return (await channel.receive()).text;
    });
    expect(again).toBe("again");
    expect(new Map(bridge.counts.opened.entries()).get("json")).toBeGreaterThan(1);
  });

  test("a page without a token, and one whose token is none, are told so", async () => {
    const { url } = await testBridge({ tokens: [allRights().config] });
    const network = await Network.open();
    network.target = url;
    const page = await clientPage(network);
    const codes = await page.evaluate(async () => {
      const { client } = globalThis as Globals;
      const codeOf = (promise: Promise<unknown>) =>
        promise.then(String, (error) => (error as { code: string }).code);
      const token = `rpmsg_${"x".repeat(43)}`;
      return [
        await codeOf(client.connect("/ws/v1/demo/echo")),
        await codeOf(client.connect("/ws/v1/demo/echo", { token })),
        await codeOf(client.openSession("/", { token })),
      ];
    });
    expect(codes).toEqual(["unauthorized", "unauthorized", "unauthorized"]);
  });

  test("a page of another origin gets no upgrade, and no answer, with a token or without", async () => {
    const token = allRights();
    for (const tokens of [[], [token.config]]) {
      const { url, bridge, endpoint } = await testBridge({ tokens }, undefined, token.headers);
      await endpoint("echo");
      const network = await Network.open();
      const page = await clientPage(network);
      const outcomes = await page.evaluate(
        async ([http, bearer]) => {
          const base = http.replace("http", "ws");
          const open = (path: string, ...protocols: string[]) =>
            new Promise((resolve) => {
              const socket = new WebSocket(base + path, protocols);
              socket.addEventListener("open", () => resolve("open"));
              socket.addEventListener("close", () => resolve("refused"));
            });
          const read = (init: RequestInit) =>
            fetch(`${http}/api/v1/endpoints`, init).then(
              () => "read",
              () => "refused",
            );
          return Promise.all([
            open("/ws/v1/demo/echo"),
            open("/ws/v1/demo/echo", "rpmsg.v1.raw", `rpmsg.bearer.${bearer}`),
            open("/ws/v1/demo/echo", "rpmsg.v1.json", `rpmsg.bearer.${bearer}`),
            open("/ws/v1", "rpmsg.v1.mux", `rpmsg.bearer.${bearer}`),
            open("/ws/v1/demo?announce=x", "rpmsg.v1.raw", `rpmsg.bearer.${bearer}`),
            read({}),
            read({ headers: { authorization: `Bearer ${bearer}` } }),
          ]);
        },
        [url, token.token] as const,
      );
      expect(outcomes).toEqual(Array.from({ length: 7 }, () => "refused"));
      expect([...bridge.counts.opened.entries()].map(([, count]) => count)).toEqual([0, 0, 0]);
      // They came as far as the bridge.
      const refused = new Map(bridge.counts.rejected.upgrade.entries());
      expect(refused.get("origin-forbidden")).toBe(5);
    }
  });
});
