import { describe, expect, test } from "vitest";
import { parseAnnounceFlag, parseGuestFlag, parseListen } from "../../server/config/flags.ts";
import { configKeyOf } from "./support.ts";

describe("--guest", () => {
  test.each([
    ["a=emulated", { kind: "emulated" }],
    ["a=emulated,profile=openamp", { kind: "emulated", profile: "openamp" }],
    ["a=emulated:board.js", { kind: "emulated", path: "board.js" }],
    [
      "a=emulated:./lab/board.ts,profile=openamp",
      { kind: "emulated", path: "./lab/board.ts", profile: "openamp" },
    ],
    ["a=emulated:", { kind: "emulated", path: "" }],
    ["a=vhost-user:/run/a.sock", { kind: "vhost-user", path: "/run/a.sock" }],
    ["a=vhost-user:/run/a:b=c.sock", { kind: "vhost-user", path: "/run/a:b=c.sock" }],
    [
      "a=vhost-user:a.sock,mode=connect,x=y=z",
      { kind: "vhost-user", path: "a.sock", mode: "connect", x: "y=z" },
    ],
    ["a=emulated,profile=", { kind: "emulated", profile: "" }],
  ])("%s", (text, guest) => {
    expect(parseGuestFlag(text)).toEqual({ name: "a", guest });
  });

  test.each([
    "",
    "a",
    "a=",
    "=emulated",
    "a=:x",
    "a=emulated,",
    "a=emulated,x",
    "__proto__=emulated",
    "a.b=emulated",
  ])("%j is refused", async (text) => {
    expect(await configKeyOf(() => parseGuestFlag(text))).toBe("--guest");
  });
});

describe("--announce", () => {
  test.each([
    ["vm/x", { name: "x" }],
    ["vm/x@1040", { name: "x", address: 1040 }],
    ["vm/x@0x410", { name: "x", address: 1040 }],
    ["vm/a/b", { name: "a/b" }],
    ["vm/a@b@7", { name: "a@b", address: 7 }],
    ["vm/two words", { name: "two words" }],
  ])("%s", (text, announcement) => {
    expect(parseAnnounceFlag(text)).toEqual({ guest: "vm", announcement });
  });

  test.each(["", "vm", "/x", "vm/x@", "vm/x@y", "vm/x@-1", "vm/x@4294967295"])(
    "%j is refused",
    async (text) => {
      expect(await configKeyOf(() => parseAnnounceFlag(text))).toBe("--announce");
    },
  );
});

describe("listen", () => {
  test.each([
    ["127.0.0.1:8080", { host: "127.0.0.1", port: 8080 }],
    ["0.0.0.0:0", { host: "0.0.0.0", port: 0 }],
    ["localhost:65535", { host: "localhost", port: 65_535 }],
    ["[::1]:80", { host: "::1", port: 80 }],
    ["unix:/run/bridge.sock", { path: "/run/bridge.sock" }],
    ["unix:relative:8080", { path: "relative:8080" }],
  ])("%s", (text, address) => {
    expect(parseListen(text)).toEqual(address);
  });

  test.each([
    "",
    "8080",
    ":8080",
    "localhost",
    "localhost:",
    "localhost:65536",
    "localhost:x",
    "::1:80",
    "[::1]",
    "[]:80",
    "unix:",
  ])("%j is refused", async (text) => {
    expect(await configKeyOf(() => parseListen(text))).toBe("listen");
  });
});
