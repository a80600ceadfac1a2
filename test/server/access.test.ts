import { once } from "node:events";
import { connect } from "node:net";
import supertest from "supertest";
import { describe, expect, test } from "vitest";
import { Problem } from "../../schemas/resources.ts";
import { testBridge } from "./support.ts";

/** The first line of the answer to a request with just these lines of a head. */
async function ask(url: string, lines: string[]): Promise<string> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  socket.end(`${lines.join("\r\n")}\r\n\r\n`);
  let answer = "";
  socket.setEncoding("latin1").on("data", (part: string) => {
    answer += part;
  });
  await once(socket, "close");
  return answer.slice(0, answer.indexOf("\r\n"));
}

describe("Host is compared by name; the port does not matter", () => {
  test.each([
    ["localhost", 200],
    ["localhost:8080", 200],
    ["LocalHost:1", 200],
    ["localhost:", 200],
    ["127.0.0.1", 200],
    ["127.0.0.1:65535", 200],
    ["192.168.7.2:8080", 200],
    ["[::1]", 200],
    ["[::1]:8080", 200],
    ["[2001:db8::7]:8080", 200],
    ["bridge.lab", 200],
    ["BRIDGE.lab:8080", 200],
    ["mixed.lab", 200],
    ["evil.example", 421],
    ["evil.example:8080", 421],
    ["localhost.evil.example", 421],
    ["127.0.0.1.evil.example", 421],
    ["evil.bridge.lab", 421],
    ["bridge.lab.", 421],
    ["localhost:80:80", 421],
    ["localhost:x", 421],
    ["evil.example:80@localhost", 421],
    ["localhost@evil.example", 421],
    ["::1", 421],
    ["[::1", 421],
    ["[evil.example]", 421],
    ["127.1", 421],
    ["0x7f000001", 421],
  ])("%s is %i", async (host, status) => {
    const { url } = await testBridge({ hosts: ["bridge.lab", "Mixed.Lab"] });
    const response = await supertest(url).get("/api/v1/guests").set("host", host);
    expect(response.status).toBe(status);
    if (status === 421) expect(Problem.parse(response.body).code).toBe("host-unknown");
  });

  test.each(["/%ff", "/ws/v1/%ff", "/nothing"])(
    "for %s as well, which is no path of the bridge",
    async (path) => {
      const { url } = await testBridge();
      // As it is: what is not decoded is not sent by clients that check.
      expect(await ask(url, [`GET ${path} HTTP/1.1`, "Host: evil.example", "Connection: close"])).toContain(
        "421",
      );
      const foreign = ["Host: localhost", "Origin: http://evil.example", "Connection: close"];
      expect(await ask(url, [`GET ${path} HTTP/1.1`, ...foreign])).toContain("403");
    },
  );

  test("without a Host there is no answer but an error", async () => {
    const { url } = await testBridge();
    expect(await ask(url, ["GET /api/v1/guests HTTP/1.1"])).toContain("400");
    expect(await ask(url, ["GET /api/v1/guests HTTP/1.0"])).toContain("421");
    expect(await ask(url, ["GET /api/v1/guests HTTP/1.1", "Host:"])).toContain("421");
    const upgrade = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"];
    const key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    expect(await ask(url, ["GET /ws/v1/demo/echo HTTP/1.1", ...upgrade, key])).toContain("400");
  });

  test.each(["/healthz", "/readyz", "/nothing", "/ws/v1/demo/echo"])(
    "%s is guarded as well",
    async (path) => {
      const { url } = await testBridge();
      await supertest(url).get(path).set("host", "evil.example").expect(421);
    },
  );
});

describe("Origin", () => {
  test.each([
    ["http://bridge.lab:9000", "bridge.lab:9000", 200],
    ["https://bridge.lab", "bridge.lab", 200],
    ["http://BRIDGE.lab:9000", "Bridge.LAB:9000", 200],
    ["http://127.0.0.1:8080", "127.0.0.1:8080", 200],
    ["http://[::1]:8080", "[::1]:8080", 200],
    ["app://127.0.0.1:8080", "127.0.0.1:8080", 403],
    ["http://127.0.0.1:8080.evil", "127.0.0.1:8080", 403],
    ["http://evil@127.0.0.1:8080", "127.0.0.1:8080", 403],
    ["https://panel.example", "127.0.0.1:8080", 200],
    ["https://panel.example:8443", "127.0.0.1:8080", 200],
    ["https://panel.example:1", "127.0.0.1:8080", 403],
    ["http://panel.example", "127.0.0.1:8080", 403],
    ["https://panel.example.evil", "127.0.0.1:8080", 403],
    ["http://evil.example", "127.0.0.1:8080", 403],
    ["http://localhost:8080", "127.0.0.1:8080", 403],
    ["http://127.0.0.1:8081", "127.0.0.1:8080", 403],
    ["http://127.0.0.1", "127.0.0.1:8080", 403],
    ["null", "127.0.0.1:8080", 403],
    ["", "127.0.0.1:8080", 403],
    ["file://", "127.0.0.1:8080", 403],
    ["chrome-extension://abcdef", "127.0.0.1:8080", 403],
    ["127.0.0.1:8080", "127.0.0.1:8080", 403],
  ])("%s, asking %s, is %i", async (origin, host, status) => {
    const { url } = await testBridge({
      hosts: ["bridge.lab"],
      origins: ["https://panel.example", "https://panel.example:8443"],
    });
    const response = await supertest(url).get("/api/v1/guests").set({ host, origin });
    expect(response.status).toBe(status);
    if (status === 403) expect(Problem.parse(response.body).code).toBe("origin-forbidden");
    // Only pages of origins that are configured may read it.
    const known = origin.startsWith("https://panel.example") && status === 200;
    expect(response.headers["access-control-allow-origin"]).toBe(known ? origin : undefined);
  });
});

describe("a page that came without TLS is not that of a bridge with TLS", () => {
  const bridge = { hosts: ["bridge.lab"], trustedProxies: ["loopback"] };

  test.each([
    ["https://bridge.lab", { "x-forwarded-proto": "https" }, 200],
    ["http://bridge.lab", { "x-forwarded-proto": "https" }, 403],
    ["http://bridge.lab", { forwarded: "proto=https" }, 403],
    ["http://bridge.lab", { "x-forwarded-proto": "http" }, 200],
    ["http://bridge.lab", {}, 200],
    // A proxy may have taken TLS off without a word.
    ["https://bridge.lab", {}, 200],
  ])("behind a trusted proxy: %s, with %o, is %i", async (origin, headers, status) => {
    const { url } = await testBridge(bridge);
    const response = await supertest(url)
      .get("/api/v1/guests")
      .set({ host: "bridge.lab", origin, ...headers });
    expect(response.status).toBe(status);
  });
});

describe("what a trusted proxy says of the name", () => {
  test.each([
    // proxies, headers, status
    ["is the page's own name", ["loopback"], "127.0.0.1:8080", "bridge.lab", "https://bridge.lab", 200],
    ["is another than the page's", ["loopback"], "127.0.0.1:8080", "bridge.lab", "https://evil.example", 403],
    ["is not heard from others", [], "127.0.0.1:8080", "bridge.lab", "https://bridge.lab", 403],
    ["has to be known", ["loopback"], "127.0.0.1:8080", "evil.example", undefined, 421],
    // A page that has rebound its name reaches the bridge from loopback and sets what headers it likes.
    ["does not stand for Host", ["loopback"], "evil.example:8080", "localhost", "http://localhost", 421],
  ])("%s", async (_what, trustedProxies, host, forwardedHost, origin, status) => {
    const { url } = await testBridge({ hosts: ["bridge.lab"], trustedProxies });
    const headers = { host, "x-forwarded-host": forwardedHost, ...(origin !== undefined && { origin }) };
    const response = await supertest(url).get("/api/v1/guests").set(headers);
    expect(response.status).toBe(status);
  });
});
