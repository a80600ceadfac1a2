import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { RESPONSE_QUEUE, RpmsgDevice } from "../../rpmsg/device.ts";
import { Driver, turns } from "./support/device-driver.ts";
import { openEndpoint, openSender } from "./support/device-endpoints.ts";

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
});
afterEach(() => {
  vi.useRealTimers();
});

describe("the peer", () => {
  test("is learned from the first message and changed by the next", async () => {
    const learned: (number | undefined)[] = [];
    const device = new RpmsgDevice({ onPeer: (endpoint) => learned.push(endpoint.peer) });
    const { endpoint } = openEndpoint(device, 1030);
    const sender = openSender(device, endpoint);
    const driver = new Driver(device).boot();
    expect(endpoint.peer).toBeUndefined();
    for (const src of [0x400, 0x400, 0x401]) {
      driver.send(src, 1030, "hello");
      expect(sender.send(`to ${src}`)).toBe("sent");
    }
    await turns();
    expect(learned).toEqual([0x400, 0x401]);
    expect(driver.receiveAll().map(({ dst }) => dst)).toEqual([0x400, 0x400, 0x401]);
  });

  test("is known before the handler of its first message runs", async () => {
    const device = new RpmsgDevice();
    const driver = new Driver(device).boot();
    const endpoint = device.createEndpoint(() => expect(sender.send("reply")).toBe("sent"), 1030);
    const sender = openSender(device, endpoint);
    driver.send(0x400, 1030);
    await turns();
    expect(driver.receive()).toMatchObject({ src: 1030, dst: 0x400 });
  });

  test("is one endpoint's own", () => {
    const device = new RpmsgDevice();
    const one = openEndpoint(device, 1030);
    const two = openEndpoint(device, 1031);
    new Driver(device).boot().send(0x400, 1030);
    expect([one.endpoint.peer, two.endpoint.peer]).toEqual([0x400, undefined]);
  });

  test("is forgotten on a reset", () => {
    const device = new RpmsgDevice();
    const { endpoint } = openEndpoint(device, 1030);
    new Driver(device).boot().send(0x400, 1030);
    device.reset();
    expect(endpoint.peer).toBeUndefined();
  });

  test("is learned without a client too: the message is dropped by whoever has the endpoint", () => {
    const device = new RpmsgDevice();
    const endpoint = device.createEndpoint(() => {}, 1030);
    new Driver(device).boot().send(0x400, 1030);
    expect(endpoint.peer).toBe(0x400);
  });
});

describe("a send before the peer is known", () => {
  test("waits, and goes with the first message of the guest, in order", async () => {
    const device = new RpmsgDevice();
    const { endpoint } = openEndpoint(device, 1030);
    const sender = openSender(device, endpoint);
    const driver = new Driver(device).boot();
    const published: string[] = [];
    for (const text of ["one", "two"]) {
      expect(sender.send(text, undefined, () => published.push(text))).toBe("queued");
    }
    await turns();
    expect(driver.receive()).toBeUndefined();
    expect(published).toEqual([]);
    driver.send(0x400, 1030);
    await turns();
    expect(driver.receiveAll().map(({ dst, payload }) => `${dst} ${payload.toString()}`)).toEqual([
      "1024 one",
      "1024 two",
    ]);
    expect(published).toEqual(["one", "two"]);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(sender.heard).not.toContain("no-peer");
  });

  test("fails with no-peer after the timeout and not before, each message at its own time", async () => {
    const device = new RpmsgDevice();
    const { endpoint } = openEndpoint(device, 1030);
    const sender = openSender(device, endpoint, { timeout: 15_000 });
    new Driver(device).boot();
    sender.send("one");
    await vi.advanceTimersByTimeAsync(5_000);
    sender.send("two");
    await vi.advanceTimersByTimeAsync(9_998);
    const codes = () => sender.heard.filter((what) => what !== "writable");
    expect(codes()).toEqual([]);
    await vi.advanceTimersByTimeAsync(2);
    expect(codes()).toEqual(["no-peer"]);
    await vi.advanceTimersByTimeAsync(4_997);
    expect(codes()).toEqual(["no-peer"]);
    await vi.advanceTimersByTimeAsync(3);
    expect(codes()).toEqual(["no-peer", "no-peer"]);
    expect(vi.getTimerCount()).toBe(0);
  });

  test("does not hold up other senders, even those that come later", async () => {
    const device = new RpmsgDevice();
    const waiting = openSender(device, openEndpoint(device, 1030).endpoint);
    const other = openSender(device, openEndpoint(device, 1031).endpoint, { peer: 0x400 });
    const driver = new Driver(device).boot();
    waiting.send("waits");
    await turns();
    expect(other.send("goes")).toBe("sent");
    await turns();
    expect(driver.receiveAll().map(({ payload }) => payload.toString())).toEqual(["goes"]);
  });

  test("with a destination of its own it goes at once", async () => {
    const device = new RpmsgDevice();
    const sender = openSender(device, openEndpoint(device, 1030).endpoint);
    const driver = new Driver(device).boot();
    expect(sender.send("direct", 0x500)).toBe("sent");
    await turns();
    expect(driver.receive()?.dst).toBe(0x500);
  });

  test("before the guest attaches it waits as well", async () => {
    const device = new RpmsgDevice();
    const sender = openSender(device, openEndpoint(device, 1030).endpoint, { timeout: 1000 });
    expect(sender.send("nobody there")).toBe("queued");
    await vi.advanceTimersByTimeAsync(1001);
    expect(sender.heard).toContain("no-peer");
  });

  test("a reset gives it up, and says so", async () => {
    const device = new RpmsgDevice();
    const sender = openSender(device, openEndpoint(device, 1030).endpoint);
    new Driver(device).boot();
    sender.send("lost");
    await turns();
    device.reset();
    const second = new Driver(device).boot();
    second.send(0x400, 1030);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(second.receive()).toBeUndefined();
    expect(sender.heard).toEqual(["guest-gone"]);
    expect(sender.queue.pending).toBe(0);
  });
});

describe("without buffers", () => {
  test("a message fails with no-buffer after the timeout", async () => {
    const device = new RpmsgDevice();
    const sender = openSender(device, openEndpoint(device, 1030).endpoint, { peer: 0x400, timeout: 15_000 });
    const driver = new Driver(device).boot(0);
    sender.send("stuck");
    await vi.advanceTimersByTimeAsync(14_999);
    expect(sender.heard).toEqual([]);
    await vi.advanceTimersByTimeAsync(2);
    expect(sender.heard).toEqual(["no-buffer"]);
    driver.post(512);
    driver.kick(RESPONSE_QUEUE);
    await turns();
    expect(driver.receive()).toBeUndefined();
  });

  test("one that was given up does not take those behind it along", async () => {
    const device = new RpmsgDevice();
    const sender = openSender(device, openEndpoint(device, 1030).endpoint, { peer: 0x400, timeout: 1000 });
    const driver = new Driver(device).boot(0);
    sender.send("old");
    await vi.advanceTimersByTimeAsync(600);
    sender.send("young");
    await vi.advanceTimersByTimeAsync(600);
    driver.post(512);
    driver.kick(RESPONSE_QUEUE);
    expect(driver.receiveAll().map(({ payload }) => payload.toString())).toEqual(["young"]);
    expect(vi.getTimerCount()).toBe(0);
  });

  test("one too large for the buffer that comes is given up as too-large", async () => {
    const device = new RpmsgDevice();
    const sender = openSender(device, openEndpoint(device, 1030).endpoint, { peer: 0x400 });
    const driver = new Driver(device).boot(0);
    sender.send("x".repeat(100));
    sender.send("fits");
    driver.post(64);
    driver.kick(RESPONSE_QUEUE);
    await turns();
    expect(driver.receiveAll().map(({ payload }) => payload.toString())).toEqual(["fits"]);
    expect(sender.heard).toContain("too-large");
  });

  test("an endless timeout is none", async () => {
    const device = new RpmsgDevice();
    const { endpoint } = openEndpoint(device, 1030);
    const sender = openSender(device, endpoint, { peer: 0x400, timeout: Number.POSITIVE_INFINITY });
    new Driver(device).boot(0);
    sender.send("patient");
    expect(vi.getTimerCount()).toBe(0);
    await vi.advanceTimersByTimeAsync(10_000_000);
    expect(sender.queue.pending).toBe(1);
  });
});
