import { describe, expect, test } from "vitest";
import { baseOf, channelUrl } from "../../client/target.ts";

describe("the URL of a channel", () => {
  test.each([
    ["ws://h:1/ws/v1/demo/echo", {}, "ws://h:1/ws/v1/demo/echo"],
    ["http://h:1/ws/v1/demo/echo?share=shared#x", {}, "ws://h:1/ws/v1/demo/echo?share=shared"],
    ["https://h/ws/v1/demo/echo", {}, "wss://h/ws/v1/demo/echo"],
    ["wss://h/ws/v1/demo/%ff%40@0x400", {}, "wss://h/ws/v1/demo/%ff%40@0x400"],
    ["http://h:1", { guest: "demo", endpoint: "echo" }, "ws://h:1/ws/v1/demo/echo"],
    ["ws://h:1/ws/v1/other/one", { guest: "demo", endpoint: "echo" }, "ws://h:1/ws/v1/demo/echo"],
    ["http://h/below/this", { guest: "demo", endpoint: "echo" }, "ws://h/below/this/ws/v1/demo/echo"],
    ["http://h", { guest: "demo", endpoint: "~a@b/ü" }, "ws://h/ws/v1/demo/%7Ea%40b%2F%C3%BC"],
    ["http://h", { guest: "demo", announce: "a b" }, "ws://h/ws/v1/demo?announce=a+b"],
  ])("%s with %j", (target, place, url) => {
    expect(channelUrl(target, place).href).toBe(url);
    expect(channelUrl(new URL(target), place).href).toBe(url);
  });

  test.each([
    ["/ws/v1/demo/echo", "not the URL of a bridge"], // outside a browser there is nothing to be relative to
    ["http://h:1", "names no endpoint"],
    ["ftp://h/ws/v1/demo/echo", "want http: or ws:"],
  ])("%s is refused: %s", (target, why) => {
    expect(() => channelUrl(target, {})).toThrow(TypeError);
    expect(() => channelUrl(target, {})).toThrow(why);
  });
});

test.each([
  ["http://h:1", "http://h:1/"],
  ["wss://h/ws/v1/demo/echo?share=shared", "https://h/"],
  ["ws://h/below/ws/v1/demo", "http://h/below/"],
  ["http://h/below/this?x=1#y", "http://h/below/this/"],
])("the bridge of %s is %s", (target, base) => {
  expect(baseOf(target).href).toBe(base);
});
