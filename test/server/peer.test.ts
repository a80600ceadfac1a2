import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Config } from "../../schemas/index.ts";
import { addressKey, canonicalAddress } from "../../server/access/address.ts";
import { Peers } from "../../server/access/peer.ts";
import { checkConfig } from "../../server/config/check-config.ts";
import { configKeyOf } from "./support.ts";

type Headers = Record<string, string>;

/** The peer of a request from `remoteAddress` with those headers. */
function peerOf(
  trustedProxies: string[],
  remoteAddress: string | undefined,
  headers: Headers,
  listen = "0.0.0.0:8080",
) {
  const peers = new Peers(Config.parse({ trustedProxies, listen }));
  return peers.of({ socket: { remoteAddress }, headers });
}

const addressOf = (...args: Parameters<typeof peerOf>): string => peerOf(...args).address;

describe("addresses have one spelling", () => {
  test.each([
    ["192.0.2.7", "192.0.2.7"],
    ["::ffff:192.0.2.7", "192.0.2.7"],
    ["::FFFF:c000:207", "192.0.2.7"],
    ["0:0:0:0:0:ffff:192.0.2.7", "192.0.2.7"],
    ["::1", "0:0:0:0:0:0:0:1"],
    ["::", "0:0:0:0:0:0:0:0"],
    ["2001:DB8::0001", "2001:db8:0:0:0:0:0:1"],
    ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5:6"],
    ["1::", "1:0:0:0:0:0:0:0"],
    ["64:ff9b::192.0.2.7", "64:ff9b:0:0:0:0:c000:207"],
    ["fe80::1%eth0", "fe80:0:0:0:0:0:0:1"],
  ])("%s is %s", (text, canonical) => {
    expect(canonicalAddress(text)).toBe(canonical);
  });

  test.each(["", "localhost", "192.0.2", "192.0.2.256", "010.0.0.1", "1::2::3", "[::1]", "%eth0", " ::1"])(
    '"%s" is none',
    (text) => expect(canonicalAddress(text)).toBeUndefined(),
  );

  test("one of IPv6 counts as its /64, one of IPv4 as itself", () => {
    const keyOf = (text: string) => addressKey(canonicalAddress(text) ?? "");
    expect(keyOf("2001:db8:0:1::5")).toBe(keyOf("2001:db8:0:1:ffff::6"));
    expect(keyOf("2001:db8:0:1::5")).not.toBe(keyOf("2001:db8:0:2::5"));
    expect(keyOf("::ffff:192.0.2.7")).toBe("192.0.2.7");
  });

  test("whatever the spelling, the spelling that comes out is spelled so itself", () => {
    fc.assert(
      fc.property(fc.ipV6(), (text) => {
        const canonical = canonicalAddress(text);
        expect(canonical).toBeDefined();
        expect(canonicalAddress(canonical ?? "")).toBe(canonical);
        // What URLs make of an address is another opinion of the same.
        expect(new URL(`http://[${text}]/`).hostname).toBe(
          new URL(
            canonical?.includes(":") === false ? `http://[::ffff:${canonical}]/` : `http://[${canonical}]/`,
          ).hostname,
        );
      }),
    );
  });
});

describe("without trusted proxies", () => {
  const headers = { "x-forwarded-for": "203.0.113.9", forwarded: "for=203.0.113.9;host=evil;proto=https" };

  test.each([
    ["192.0.2.7", "192.0.2.7", false],
    ["::ffff:192.0.2.7", "192.0.2.7", false],
    ["127.0.0.1", "127.0.0.1", true],
    ["127.8.9.10", "127.8.9.10", true],
    ["::ffff:127.0.0.1", "127.0.0.1", true],
    ["::1", "0:0:0:0:0:0:0:1", true],
    ["2001:db8::1", "2001:db8:0:0:0:0:0:1", false],
  ])("%s is %s, whatever its headers say", (remote, address, local) => {
    const peer = { address, local, host: undefined, protocol: undefined };
    expect(peerOf([], remote, headers)).toMatchObject(peer);
  });

  test("the protocol is https where the connection has TLS", () => {
    const socket = { remoteAddress: "192.0.2.7", encrypted: true };
    const peers = new Peers(Config.parse({}));
    expect(peers.of({ socket, headers }).protocol).toBe("https");
  });

  test("a connection that was reset has no address, and is not local", () => {
    expect(peerOf(["unix", "loopback"], undefined, headers)).toMatchObject({
      address: "unknown",
      local: false,
    });
  });

  test("whoever comes over the Unix socket is local", () => {
    expect(peerOf([], undefined, headers, "unix:/run/bridge.sock")).toMatchObject({
      address: "unix",
      local: true,
    });
  });
});

describe("X-Forwarded-For of a trusted proxy", () => {
  const PROXIES = ["10.0.0.0/8", "2001:db8:f::/48", "192.0.2.1"];

  test.each([
    ["one client", "203.0.113.9", "203.0.113.9"],
    ["what the client itself has said is left of it", "127.0.0.1, 203.0.113.9", "203.0.113.9"],
    ["trusted proxies in between", "203.0.113.9, 192.0.2.1,10.9.9.9", "203.0.113.9"],
    ["a forged chain behind the client", "10.0.0.2, 10.0.0.3, 203.0.113.9, 10.0.0.4", "203.0.113.9"],
    ["an IPv6 client", "2001:DB8::9", "2001:db8:0:0:0:0:0:9"],
    ["a mapped address", "::ffff:203.0.113.9", "203.0.113.9"],
    ["a port", "203.0.113.9:4711", "203.0.113.9"],
    ["brackets and a port", "[2001:db8::9]:4711", "2001:db8:0:0:0:0:0:9"],
    ["brackets alone", "[2001:db8::9]", "2001:db8:0:0:0:0:0:9"],
    ["all of them trusted: the first", "10.0.0.7, 10.0.0.8", "10.0.0.7"],
    ["a trusted network of IPv6", "203.0.113.9, 2001:db8:f:1::1", "203.0.113.9"],
  ])("%s", (_what, header, address) => {
    const peer = { address, key: addressKey(address), local: false };
    expect(peerOf(PROXIES, "10.0.0.1", { "x-forwarded-for": header })).toMatchObject(peer);
  });

  test.each([
    ["nothing", ""],
    ["no address", "unknown"],
    ["an obfuscated identifier", "_SEVKISEK"],
    ["a name", "localhost"],
    ["garbage", "'; DROP TABLE clients; --"],
    ["control characters", "\u0001\u007f"],
    ["a comma at its end", "203.0.113.9,"],
    ["brackets that do not close", "[2001:db8::9"],
    ["IPv4 in brackets", "[203.0.113.9]"],
    ["IPv6 with what looks like a port", "2001:db8::9]:80"],
    ["a zone", "fe80::1%lo"],
    ["a number out of range", "203.0.113.256"],
    ["octal digits", "0177.0.0.1"],
    ["something very long", "9".repeat(16_000)],
    ["a bracket and something very long", `[${":".repeat(16_000)}`],
  ])("a client that is named by %s counts as the proxy, not as local", (_what, header) => {
    const headers = { "x-forwarded-for": header };
    expect(peerOf(["10.0.0.1"], "10.0.0.1", headers)).toMatchObject({ address: "10.0.0.1", local: false });
    expect(peerOf(["loopback"], "127.0.0.1", headers)).toMatchObject({ address: "127.0.0.1", local: false });
    // As far as it is known.
    expect(addressOf(PROXIES, "10.0.0.1", { "x-forwarded-for": `${header}, 10.0.0.5` })).toBe("10.0.0.5");
  });

  test("of a proxy on this machine, of which the client may say it is local", () => {
    const headers = { "x-forwarded-for": "127.0.0.1" };
    expect(peerOf(["loopback"], "127.0.0.1", headers)).toMatchObject({ address: "127.0.0.1", local: false });
  });

  test("of one that comes over the Unix socket", () => {
    const listen = "unix:/run/bridge.sock";
    const headers = { "x-forwarded-for": "203.0.113.9" };
    expect(peerOf(["unix"], undefined, headers, listen)).toMatchObject({
      address: "203.0.113.9",
      local: false,
    });
    expect(peerOf(["unix"], undefined, {}, listen)).toMatchObject({ address: "unix", local: true });
    expect(peerOf(["loopback"], undefined, headers, listen)).toMatchObject({ address: "unix", local: true });
  });

  test("that says nothing is the peer itself", () => {
    expect(peerOf(["loopback"], "::1", {})).toMatchObject({ address: "0:0:0:0:0:0:0:1", local: true });
    expect(peerOf(["10.0.0.1"], "10.0.0.1", {})).toMatchObject({ address: "10.0.0.1", local: false });
  });

  test("has thousands of entries", () => {
    const header = `203.0.113.9, ${"10.0.0.5,".repeat(1700)}10.0.0.6`;
    expect(addressOf(PROXIES, "10.0.0.1", { "x-forwarded-for": header })).toBe("203.0.113.9");
  });

  test("is heard from the proxy alone", () => {
    expect(addressOf(PROXIES, "198.51.100.4", { "x-forwarded-for": "203.0.113.9" })).toBe("198.51.100.4");
  });
});

describe("Forwarded of a trusted proxy (RFC 7239)", () => {
  const PROXIES = ["10.0.0.0/8"];

  test.each([
    ["a client", "for=203.0.113.9", "203.0.113.9"],
    ["in any case, quoted", 'For="203.0.113.9"', "203.0.113.9"],
    ["with a port", 'for="203.0.113.9:4711"', "203.0.113.9"],
    ["with an obfuscated port", 'for="203.0.113.9:_x"', "203.0.113.9"],
    ["IPv6", 'for="[2001:db8:cafe::17]:4711"', "2001:db8:cafe:0:0:0:0:17"],
    ["several pairs", "by=203.0.113.43;for=203.0.113.9;proto=http;host=a", "203.0.113.9"],
    ["several elements", "for=1.1.1.1, for=203.0.113.9 , for=10.1.2.3;proto=http", "203.0.113.9"],
    ["empty elements", ",, for=203.0.113.9,;", "203.0.113.9"],
    ["escapes", 'for="203.0.113.\\9"', "203.0.113.9"],
    ["a comma and a semicolon in quotes", 'for=1.1.1.1;host="a,b;c", for=203.0.113.9', "203.0.113.9"],
    ["unknown", "for=1.1.1.1, for=unknown", "10.0.0.1"],
    ["an obfuscated identifier", "for=1.1.1.1, for=_gazonk", "10.0.0.1"],
    ["an element without a node", "for=1.1.1.1, proto=https", "10.0.0.1"],
    ["IPv6 without brackets, as some write it", 'for="2001:db8::17"', "2001:db8:0:0:0:0:0:17"],
    // What breaks the syntax may hide what the proxy has added.
    ["a quote that does not end", 'for="1.1.1.1, for=203.0.113.9', "10.0.0.1"],
    ["a node twice", "for=1.1.1.1;for=203.0.113.9", "10.0.0.1"],
    ["no pair", "203.0.113.9", "10.0.0.1"],
    ["a pair without a value", "for=", "10.0.0.1"],
    ["garbage between pairs", "for=1.1.1.1 for=203.0.113.9", "10.0.0.1"],
    ["nothing", "", "10.0.0.1"],
    ["something very long", `for="${"\\a".repeat(8000)}`, "10.0.0.1"],
  ])("with %s", (_what, header, address) => {
    expect(peerOf(PROXIES, "10.0.0.1", { forwarded: header })).toMatchObject({ address, local: false });
  });

  test("of a proxy that is on this machine makes nobody local, whatever it says", () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (forwarded, forwardedFor) => {
        const peer = peerOf(["loopback", "unix"], "127.0.0.1", {
          forwarded,
          "x-forwarded-for": forwardedFor,
        });
        expect(peer.local).toBe(false);
        expect(canonicalAddress(peer.address)).toBe(peer.address);
      }),
    );
  });

  test("counts where X-Forwarded-For says the same; else the client is not known", () => {
    const both = (forwarded: string, forwardedFor: string) =>
      addressOf(PROXIES, "10.0.0.1", { forwarded, "x-forwarded-for": forwardedFor });
    expect(both("for=203.0.113.9", "203.0.113.9")).toBe("203.0.113.9");
    expect(both("for=203.0.113.9", "1.1.1.1, 203.0.113.9")).toBe("203.0.113.9");
    // The client has sent the header that its proxy passes on as it is.
    expect(both("for=1.1.1.1", "203.0.113.9")).toBe("10.0.0.1");
    expect(both("for=203.0.113.9", "1.1.1.1")).toBe("10.0.0.1");
    expect(both("for=unknown", "203.0.113.9")).toBe("10.0.0.1");
  });
});

describe("host and protocol of a trusted proxy", () => {
  const from = (headers: Headers) => {
    const { host, protocol } = peerOf(["10.0.0.1"], "10.0.0.1", headers);
    return { host, protocol };
  };

  test.each<[Headers, { host?: string; protocol?: string }]>([
    [
      { "x-forwarded-host": "panel.example", "x-forwarded-proto": "https" },
      { host: "panel.example", protocol: "https" },
    ],
    [
      { "x-forwarded-host": "forged, panel.example", "x-forwarded-proto": "http, HTTPS" },
      { host: "panel.example", protocol: "https" },
    ],
    [
      { forwarded: "for=1.1.1.1;host=panel.example;proto=https" },
      { host: "panel.example", protocol: "https" },
    ],
    // Those of the element that names the client.
    [{ forwarded: "for=9.9.9.9;host=forged, for=1.1.1.1;host=panel.example" }, { host: "panel.example" }],
    [{ "x-forwarded-proto": "wss" }, {}],
    [{ "x-forwarded-host": "", "x-forwarded-proto": "," }, {}],
    [{}, {}],
  ])("%j", (headers, { host, protocol }) => {
    expect(from(headers)).toEqual({ host, protocol });
  });

  test("of anybody else are not heard", async () => {
    const headers = { "x-forwarded-host": "panel.example", "x-forwarded-proto": "https" };
    expect(peerOf([], "10.0.0.1", headers)).toMatchObject({ host: undefined, protocol: undefined });
  });
});

describe("the configuration", () => {
  test.each(["loopback", "unix", "10.0.0.1", "10.0.0.0/8", "::1", "2001:db8::/32", "::ffff:10.0.0.0/104"])(
    "takes %s",
    (entry) => {
      const config = checkConfig({ trustedProxies: [entry] });
      expect(config.trustedProxies).toEqual([entry]);
      expect(() => new Peers(config)).not.toThrow();
    },
  );

  test.each(["", "localhost", "10.0.0.0/33", "10.0.0.1:80", "*", "10.0.0.*", "::/129"])(
    'refuses "%s"',
    async (entry) => {
      expect(await configKeyOf(() => checkConfig({ trustedProxies: [entry] }))).toBe("trustedProxies.0");
    },
  );

  test("means a network of IPv4 where it is written as mapped addresses", () => {
    const headers = { "x-forwarded-for": "203.0.113.9" };
    expect(addressOf(["::ffff:10.0.0.0/104"], "10.2.3.4", headers)).toBe("203.0.113.9");
    expect(addressOf(["::ffff:10.0.0.0/104"], "11.2.3.4", headers)).toBe("11.2.3.4");
  });
});
