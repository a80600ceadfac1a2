import type { Browser } from "playwright-core";
import supertest from "supertest";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Problem } from "../../schemas/index.ts";
import { launchBrowser, missingBrowser } from "../client/chromium.ts";
import { testBridge } from "./support.ts";

describe("/docs", () => {
  test("every answer has a policy that allows nothing from elsewhere and no script in the page", async () => {
    const { url } = await testBridge();
    for (const path of [
      "/docs",
      "/docs/",
      "/docs/json",
      "/docs/static/swagger-ui-bundle.js",
      "/docs/nothing",
    ]) {
      const { headers } = await fetch(url + path);
      const policy = headers.get("content-security-policy") ?? "";
      expect(policy).toMatch(/^default-src 'none';/);
      expect(policy).toContain("script-src 'self';");
      expect(policy).not.toMatch(/unsafe|http|\*/);
      expect(headers.get("x-content-type-options")).toBe("nosniff");
    }
  });

  test("what is not there is a problem, and nothing outside of the page's files can be had", async () => {
    const { url } = await testBridge();
    for (const path of ["/docs/nothing", "/docs/static/nothing.js", "/docs/static/%2e%2e%2findex.js"]) {
      const response = await fetch(url + path);
      expect([path, response.status, response.headers.get("content-type")]).toEqual([
        path,
        404,
        expect.stringMatching(/^application\/problem\+json/),
      ]);
      expect(Problem.parse(await response.json()).code).toBe("not-found");
    }
  });

  test("HEAD has the head alone", async () => {
    const { url } = await testBridge();
    const response = await fetch(`${url}/docs`, { method: "HEAD" });
    expect([response.status, await response.text()]).toEqual([200, ""]);
  });

  test.each([
    "/docs",
    "/docs/",
    "/docs/static/swagger-ui.css",
    "/openapi.json",
    "/asyncapi.json",
    "/metrics",
  ])("%s is guarded as everything else", async (path) => {
    const { url } = await testBridge();
    await supertest(url).get(path).expect(200);
    const renamed = await supertest(url).get(path).set("host", "evil.example").expect(421);
    expect(Problem.parse(renamed.body).code).toBe("host-unknown");
    const foreign = await supertest(url).get(path).set("origin", "http://evil.example").expect(403);
    expect(Problem.parse(foreign.body).code).toBe("origin-forbidden");
  });
});

const missing = missingBrowser();
const why = missing === undefined ? "" : ` (not here: ${missing})`;

describe.skipIf(missing !== undefined)(`/docs in Chromium${why}`, () => {
  let browser: Browser;

  beforeAll(async () => {
    browser = await launchBrowser();
  });

  afterAll(async () => {
    await browser?.close();
  });

  test.each(["/docs", "/docs/"])(
    "%s shows every operation, without the network and within its policy",
    async (path) => {
      const { url } = await testBridge();
      const page = await browser.newPage();
      const foreign: string[] = [];
      const complaints: string[] = [];
      page.on("request", (request) => {
        if (!new RegExp(`^(${url}/(docs|readyz)|data:)`).test(request.url())) foreign.push(request.url());
      });
      page.on("console", (line) => complaints.push(`${line.type()}: ${line.text()}`));
      page.on("pageerror", (error) => complaints.push(error.message));
      await page.goto(url + path);
      await page.locator("#operations-messages-sendMessage").click();
      await page.getByText("Try it out").waitFor();
      const shown = await page.locator(".opblock").count();
      // The page may ask the bridge itself.
      const readiness = page.locator("#operations-bridge-isReady");
      await readiness.click();
      await readiness.getByText("Try it out").click();
      await readiness.getByText("Execute").click();
      await readiness.locator(".live-responses-table").getByText("ready").first().waitFor();
      const { paths } = (await (await fetch(`${url}/openapi.json`)).json()) as {
        paths: Record<string, object>;
      };
      expect(shown).toBe(Object.values(paths).flatMap((each) => Object.keys(each)).length);
      expect(foreign).toEqual([]);
      expect(complaints).toEqual([]);
      await page.close();
    },
    60_000,
  );
});
