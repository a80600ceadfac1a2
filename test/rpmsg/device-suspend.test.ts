import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { RESPONSE_QUEUE, RpmsgDevice } from "../../rpmsg/device.ts";
import { Driver, nameServiceMessage, turns } from "./support/device-driver.ts";
import { openEndpoint, openSender, texts } from "./support/device-endpoints.ts";

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
});
afterEach(() => {
  vi.useRealTimers();
});

/** A guest that has announced a service, was told of one and has spoken to it. */
async function boot(buffers = 8) {
  const heard: string[] = [];
  const device = new RpmsgDevice({
    onState: (state) => heard.push(state),
    onReset: (generation) => heard.push(`reset ${generation}`),
    onWithdrawn: ({ name }) => heard.push(`withdrawn ${name}`),
    onTold: ({ name, told }) => heard.push(`${name} ${told ? "told" : "not told"}`),
  });
  const { endpoint, received } = openEndpoint(device, 1030);
  const sender = openSender(device, endpoint, { timeout: 15_000 });
  device.announce("rpmsg-raw", 1030);
  const driver = new Driver(device).boot(buffers);
  driver.send(0x400, 53, nameServiceMessage("echo", 0x401));
  driver.send(0x400, 1030, "hello");
  await turns();
  driver.receiveAll();
  driver.returned();
  return { device, driver, endpoint, received, sender, heard };
}

function bases(device: RpmsgDevice): [number, number] {
  const stopped = device.stop();
  if (stopped === undefined) throw new Error("the device did not run");
  return [stopped[0].base, stopped[1].base];
}

describe("a pause is not a reset", () => {
  test("the same positions resume: same generation, nothing withdrawn, nothing told again", async () => {
    const { device, driver, endpoint, heard } = await boot();
    heard.length = 0;
    const positions = bases(device);
    expect(positions).toEqual([1, 2]);
    expect(device.state).toBe("suspended");
    driver.start(positions);
    await turns();
    expect(heard).toEqual(["suspended", "attached"]);
    expect(device.generation).toBe(1);
    expect(endpoint.peer).toBe(0x400);
    expect([...device.guestAnnouncements]).toHaveLength(1);
    expect(driver.receiveAll()).toEqual([]);
  });

  test("messages that came meanwhile are delivered after it, without a kick, in both directions", async () => {
    const { device, driver, sender, received } = await boot();
    const positions = bases(device);
    expect(sender.send("queued 1")).toBe("queued");
    expect(sender.send("queued 2")).toBe("queued");
    driver.offer(0x400, 1030, "while stopped");
    driver.kick(1);
    driver.kick(RESPONSE_QUEUE);
    device.rescan();
    await turns();
    expect(driver.receiveAll()).toEqual([]);
    expect(texts(received)).toEqual(["hello"]);
    const calls = [...driver.calls];
    driver.start(positions);
    await turns();
    expect(driver.receiveAll().map(({ payload }) => payload.toString())).toEqual(["queued 1", "queued 2"]);
    expect(texts(received)).toEqual(["hello", "while stopped"]);
    expect(driver.calls[0]).toBeGreaterThan(calls[0] ?? 0);
  });

  test("what the guest had sent is taken before the stop, and the reply to it is published", async () => {
    const device = new RpmsgDevice();
    const driver = new Driver(device).boot();
    const endpoint = device.createEndpoint((src, bytes, offset, length) => {
      sender.queue.send(src, bytes, offset, length);
    }, 1030);
    const sender = openSender(device, endpoint);
    driver.offer(0x400, 1030, "last words");
    expect(bases(device)).toEqual([1, 1]);
    expect(driver.receive()?.payload.toString()).toBe("last words");
    expect(driver.returned()).toEqual([0]);
    const used = Buffer.from(driver.bytes(driver.rings[0].used, 6));
    await turns();
    expect(driver.bytes(driver.rings[0].used, 6)).toEqual(used);
  });

  test("deadlines stand still during the pause", async () => {
    const { device, driver, sender } = await boot(1);
    sender.send("waits");
    await vi.advanceTimersByTimeAsync(10_000);
    const positions = bases(device);
    sender.send("sent while suspended");
    await vi.advanceTimersByTimeAsync(3_600_000);
    const codes = () => sender.heard.filter((what) => what !== "writable");
    expect(codes()).toEqual([]);
    driver.start(positions);
    await vi.advanceTimersByTimeAsync(4_990);
    expect(codes()).toEqual([]);
    await vi.advanceTimersByTimeAsync(20);
    expect(codes()).toEqual(["no-buffer"]);
    await vi.advanceTimersByTimeAsync(9_970);
    expect(codes()).toEqual(["no-buffer"]);
    await vi.advanceTimersByTimeAsync(20);
    expect(codes()).toEqual(["no-buffer", "no-buffer"]);
  });

  test("two pauses: both are left out of the deadline", async () => {
    const { device, driver, sender } = await boot(1);
    sender.send("waits");
    for (let i = 0; i < 2; i++) {
      await vi.advanceTimersByTimeAsync(5_000);
      const positions = bases(device);
      await vi.advanceTimersByTimeAsync(100_000);
      driver.start(positions);
    }
    await vi.advanceTimersByTimeAsync(4_990);
    expect(sender.heard).toEqual([]);
    await vi.advanceTimersByTimeAsync(20);
    expect(sender.heard).toContain("no-buffer");
  });

  test("a pause before the first kick still waits for it", async () => {
    const device = new RpmsgDevice();
    device.announce("rpmsg-raw", 1030);
    openEndpoint(device, 1030);
    const driver = new Driver(device);
    driver.post(512);
    driver.start();
    driver.send(0x400, 1030, "so that the positions are not 0/0");
    driver.start(bases(device));
    await turns();
    expect(driver.receive()).toBeUndefined();
    driver.kick(RESPONSE_QUEUE);
    await turns();
    expect(driver.receive()?.dst).toBe(53);
    expect(device.generation).toBe(1);
  });
});

describe("a restart elsewhere is a reset", () => {
  test.each([
    { name: "0/0", shift: undefined },
    { name: "another response base", shift: [1, 0] },
    { name: "another request base", shift: [0, 1] },
  ])("$name", async ({ shift }) => {
    const { device, driver, endpoint, sender, heard } = await boot();
    const positions = bases(device);
    sender.send("for the old driver");
    heard.length = 0;
    const [response, request] = positions;
    if (shift === undefined) {
      const second = new Driver(device).boot();
      await turns();
      expect(second.receiveAll().map(({ dst }) => dst)).toEqual([53]);
      expect(heard.at(-1)).toBe("rpmsg-raw told");
      heard.pop();
    } else {
      // Where the driver's own positions are does not matter here: only nothing may be kept.
      driver.start([response + (shift[0] ?? 0), request + (shift[1] ?? 0)]);
    }
    expect(heard).toEqual(["reset 2", "rpmsg-raw not told", "withdrawn echo", "detached", "attached"]);
    expect(device.generation).toBe(2);
    expect(endpoint.peer).toBeUndefined();
    expect(sender.queue.pending).toBe(0);
  });

  test("another used index with the same base", async () => {
    const { device, driver } = await boot();
    const positions = bases(device);
    driver.bytes(driver.rings[1].used + 2, 2).writeUInt16LE(7);
    driver.start(positions);
    expect(device.generation).toBe(2);
  });

  test("a stop that never had a message is a reset at 0/0: nothing tells it from a new driver", () => {
    const device = new RpmsgDevice();
    new Driver(device).boot().start(bases(device));
    expect(device.generation).toBe(2);
  });

  test("reset while suspended", async () => {
    const { device, heard } = await boot();
    device.stop();
    heard.length = 0;
    device.reset();
    device.reset();
    expect(heard).toEqual(["reset 2", "rpmsg-raw not told", "withdrawn echo", "detached"]);
  });

  test("start without a stop is a reset too", async () => {
    const { device } = await boot();
    new Driver(device).boot();
    expect(device.generation).toBe(2);
    expect(device.state).toBe("attached");
  });

  test("the first attachment resets nothing: what waits for the guest is kept", async () => {
    const heard: string[] = [];
    const device = new RpmsgDevice({
      onReset: () => heard.push("reset"),
      onState: (state) => heard.push(state),
    });
    const sender = openSender(device, openEndpoint(device, 1030).endpoint, { peer: 0x400 });
    sender.send("kept");
    device.reset();
    const driver = new Driver(device).boot();
    await turns();
    expect(driver.receive()?.payload.toString()).toBe("kept");
    expect(heard).toEqual(["attached"]);
    expect(device.generation).toBe(1);
  });

  test("a handler that stops the device: its message is taken once", async () => {
    const device = new RpmsgDevice();
    const got: string[] = [];
    let positions: [number, number] | undefined;
    device.createEndpoint((_src, bytes, offset, length) => {
      got.push(Buffer.from(bytes.subarray(offset, offset + length)).toString());
      positions ??= bases(device);
    }, 1030);
    const driver = new Driver(device).boot();
    driver.offer(0x400, 1030, "one");
    driver.offer(0x400, 1030, "two");
    driver.kick(1);
    expect(got).toEqual(["one"]);
    driver.start(positions);
    await turns();
    expect(got).toEqual(["one", "two"]);
    expect(device.generation).toBe(1);
  });
});
