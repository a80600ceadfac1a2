import { describe, expect, test } from "vitest";
import type { RunningBridge } from "./support.ts";
import { testBridge } from "./support.ts";

/** Nothing that is refused may leave a channel behind. */
async function expectNoClients({ endpoints }: RunningBridge): Promise<void> {
  for (const each of await endpoints()) expect(each.clients).toBe(0);
}

describe("unknown things are 404 before the upgrade", () => {
  test.each([
    ["/ws/v1/nobody/echo", "guest-unknown"],
    ["/ws/v1/DEMO/echo", "guest-unknown"],
    ["/ws/v1/demo/nothing", "endpoint-unknown"],
    ["/ws/v1/demo/Echo", "endpoint-unknown"],
    ["/ws/v1/demo/echo@1", "endpoint-unknown"],
    ["/ws/v1/demo/~e999", "endpoint-unknown"],
    ["/ws/v1/demo/~", "endpoint-unknown"],
    ["/ws/v1/demo/%ff", "endpoint-unknown"],
    ["/ws/v1/demo/echo?origin=host", "endpoint-unknown"],
    ["/ws/v1/__proto__/echo", "guest-unknown"],
    ["/ws/v1/demo/__proto__", "endpoint-unknown"],
    ["/ws/v1/demo/", "not-found"],
    ["/ws/v1/demo/echo/", "not-found"],
    ["/ws/v1/demo/echo/more", "not-found"],
    ["/ws/v1/demo/echo%2", "not-found"],
    ["/ws/v1/demo/echo%zz", "not-found"],
    ["/ws/v1/demo/echo@", "not-found"],
    ["/ws/v1/demo/echo@x", "not-found"],
    ["/ws/v1/demo/echo@4294967295", "not-found"],
    ["/ws/v2/demo/echo", "not-found"],
    ["/api/v1/guests", "not-found"],
    ["/", "not-found"],
  ])("%s", async (path, code) => {
    const running = await testBridge();
    await running.endpoint("echo");
    expect(await running.refusal(path)).toMatchObject({ status: 404, code });
    await expectNoClients(running);
  });
});

describe("a query that is not understood is 400 and names the key", () => {
  test.each([
    ["share=public", "share"],
    ["share=", "share"],
    ["share=Exclusive", "share"],
    ["takeover=1", "takeover"],
    ["takeover=1&share=shared", "takeover"],
    ["takeover=yes&share=exclusive", "takeover"],
    ["slow=drop", "slow"],
    ["encoding=hex", "encoding"],
    ["resume=x&after=1", "resume"],
    ["announce=x", "announce"],
    ["origin=both", "origin"],
    ["local=", "local"],
    ["local=-1", "local"],
    ["local=1.5", "local"],
    ["local=0x", "local"],
    ["local=1e3", "local"],
    ["local=4294967295", "local"],
    ["local=0xffffffff", "local"],
    ["local=99999999999", "local"],
    ["share=private&share=private", "share"],
    ["local=2000&local=2000", "local"],
    ["shared=1", "shared"],
    ["hasOwnProperty=1", "hasOwnProperty"],
    ["%73hare=private&share=shared", "share"],
  ])("%s", async (query, key) => {
    const running = await testBridge();
    const problem = await running.refusal(`/ws/v1/demo/echo?${query}`);
    expect(problem).toMatchObject({ status: 400, code: "bad-request" });
    expect(problem.detail).toContain(key);
    await expectNoClients(running);
  });
});

describe("who asks, and for whom, is checked before the upgrade", () => {
  test.each([
    ["a foreign name", { host: "evil.example" }, 421, "host-unknown"],
    ["a foreign page", { origin: "https://evil.example" }, 403, "origin-forbidden"],
    ["a page without an origin", { origin: "null" }, 403, "origin-forbidden"],
    ["a page of another port", { origin: "http://127.0.0.1:1" }, 403, "origin-forbidden"],
  ])("%s", async (_what, headers, status, code) => {
    const running = await testBridge();
    expect(await running.refusal("/ws/v1/demo/echo", { headers })).toMatchObject({ status, code });
    // Not even whether the guest exists is told.
    expect(await running.refusal("/ws/v1/nobody/echo", { headers })).toMatchObject({ status, code });
    await expectNoClients(running);
  });

  test("a configured origin may connect, without a path or a slash in the header", async () => {
    const { url } = await testBridge({ origins: ["https://panel.example"] });
    const head = {
      connection: "Upgrade",
      upgrade: "websocket",
      "sec-websocket-version": "13",
      "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
      origin: "https://panel.example",
    };
    expect(await statusOf(url, "/ws/v1/demo/echo", head)).toBe(101);
    expect(await statusOf(url, "/ws/v1/demo/echo", { ...head, origin: "https://panel.example.evil" })).toBe(
      403,
    );
  });
});

test.each([
  ["no version", { "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==" }, 426],
  ["no key", { "sec-websocket-version": "13" }, 400],
  ["a key that is none", { "sec-websocket-version": "13", "sec-websocket-key": "short" }, 400],
  ["version 9", { "sec-websocket-version": "9", "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==" }, 426],
])("a handshake with %s fails and leaves no client", async (_what, headers, status) => {
  const running = await testBridge();
  const head = { connection: "Upgrade", upgrade: "websocket", ...headers };
  expect(await statusOf(running.url, "/ws/v1/demo/echo?local=3000", head)).toBe(status);
  await expectNoClients(running);
  // Its address is free again.
  await running.connect("/ws/v1/demo/echo?local=3000");
});

/** The status of the answer to a hand-made request. */
async function statusOf(url: string, path: string, headers: Record<string, string>): Promise<number> {
  const { request } = await import("node:http");
  return new Promise((resolve, reject) => {
    const asked = request(url + path, { headers });
    asked.on("error", reject);
    asked.on("response", (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    asked.on("upgrade", (response, socket) => {
      socket.destroy();
      resolve(response.statusCode ?? 0);
    });
    asked.end();
  });
}
