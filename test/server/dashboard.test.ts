import { describe, expect, test } from "vitest";
import { PAGE_HEADERS } from "../../server/access/page-headers.ts";
import { testBridge } from "./support.ts";
import { allRights } from "./tokens.ts";

// Needs `npm run build`.
describe("the dashboard's files", () => {
  test("come with the policy of pages, without a token, the page never from a cache, what it names for ever", async () => {
    const { url } = await testBridge({ tokens: [allRights().config] });
    const page = await fetch(url);
    expect([page.status, page.headers.get("content-type")]).toEqual([200, "text/html; charset=utf-8"]);
    expect(page.headers.get("cache-control")).toBe("no-cache");
    const names = [...(await page.text()).matchAll(/"\.\/(assets\/[^"]+)"/g)].map(([, name = ""]) => name);
    expect(names.length).toBe(2);
    for (const path of ["", ...names]) {
      const { status, headers } = await fetch(`${url}/${path}`);
      expect([path, status, headers.get("content-encoding")]).toEqual([path, 200, "gzip"]);
      for (const [name, value] of Object.entries(PAGE_HEADERS)) expect(headers.get(name)).toBe(value);
      expect(headers.get("vary")).toBe("accept-encoding");
      if (path !== "") expect(headers.get("cache-control")).toBe("public, max-age=31536000, immutable");
    }
  });

  test("are sent as they are to who takes nothing compressed", async () => {
    const { url } = await testBridge();
    const response = await fetch(url, { headers: { "accept-encoding": "identity" } });
    expect([response.headers.get("content-encoding"), response.headers.get("vary")]).toEqual([
      null,
      "accept-encoding",
    ]);
    expect(await response.text()).toContain("<title>rpmsg-bridge</title>");
  });

  test.each([
    "/assets/nothing.js",
    "/assets/",
    "/assets/%2e%2e/index.html",
    "/assets/%2e%2e%2f%2e%2e%2fserver%2fmain.js",
    "/index.js",
  ])("%s is not there", async (path) => {
    const { url } = await testBridge();
    const response = await fetch(url + path);
    expect([response.status, response.headers.get("content-type")]).toEqual([
      404,
      expect.stringMatching(/^application\/problem\+json/),
    ]);
  });

  test("differ by origin, too, where there are pages of others", async () => {
    const { url } = await testBridge({ origins: ["https://lab.example"] });
    const { headers } = await fetch(url);
    expect(headers.get("vary")).toBe("origin, accept-encoding");
  });

  test("are guarded as everything else", async () => {
    const { url } = await testBridge();
    const response = await fetch(url, { headers: { origin: "http://evil.example" } });
    expect(response.status).toBe(403);
  });
});
