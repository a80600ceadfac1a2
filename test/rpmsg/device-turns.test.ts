import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { REQUEST_QUEUE, RESPONSE_QUEUE, RpmsgDevice } from "../../rpmsg/device.ts";
import { Driver, message, turns } from "./support/device-driver.ts";
import { openEndpoint, openSender, texts } from "./support/device-endpoints.ts";

const COUNT = 4096;

/** A guest whose request ring is full of messages. */
function flooded(device: RpmsgDevice, descriptorsEach = 1): Driver {
  const driver = new Driver(device, { size: COUNT }).boot(0);
  const address = driver.allocate(64);
  driver.bytes(address, 17).set(message(0x400, 1030, "x"));
  const pieces = Array.from({ length: descriptorsEach }, (_, i) =>
    i === 0
      ? { address, length: 17, writable: false }
      : { address: address + 17, length: 1, writable: false },
  );
  while (driver.request.addChain(pieces) !== -1);
  driver.request.publish();
  return driver;
}

describe("work in one turn is bounded", () => {
  test.each([
    { descriptors: 1, most: 1024 },
    { descriptors: 4, most: 256 },
  ])("chains of $descriptors descriptors: $most messages", async ({ descriptors, most }) => {
    const device = new RpmsgDevice();
    let count = 0;
    device.createEndpoint(() => count++, 1030);
    const driver = flooded(device, descriptors);
    driver.kick(REQUEST_QUEUE);
    const seen = [count];
    const total = COUNT / descriptors;
    while (count < total && seen.length < 100) {
      await nextTurn();
      seen.push(count);
    }
    expect(count).toBe(total);
    const steps = seen.map((value, i) => value - (seen[i - 1] ?? 0));
    expect(Math.max(...steps)).toBe(most);
    expect(driver.returned()).toHaveLength(total);
  });

  test("malformed messages cost as much as good ones", async () => {
    const device = new RpmsgDevice();
    const driver = flooded(device);
    driver.kick(REQUEST_QUEUE);
    expect(device.counters.unknownAddress).toBe(1024);
    await turns(8);
    expect(device.counters.unknownAddress).toBe(COUNT);
  });

  test("what is returned is visible after each turn, not at the end", () => {
    const device = new RpmsgDevice();
    const driver = flooded(device);
    driver.kick(REQUEST_QUEUE);
    expect(driver.returned()).toHaveLength(1024);
    expect(driver.calls[REQUEST_QUEUE]).toBe(1);
  });

  test("a stop takes the whole ring at once", () => {
    const device = new RpmsgDevice();
    let count = 0;
    device.createEndpoint(() => count++, 1030);
    flooded(device);
    expect(device.stop()?.[1].base).toBe(COUNT);
    expect(count).toBe(COUNT);
  });
});

/** Offers descriptor 0 of a queue once more, whether it came back or not: what no honest driver does. */
function offerAgain(driver: Driver, queue: 0 | 1): void {
  const { available } = driver.rings[queue];
  const index = driver.bytes(available + 2, 2);
  const next = index.readUInt16LE();
  driver.bytes(available + 4 + 2 * (next % 16), 2).writeUInt16LE(0);
  index.writeUInt16LE((next + 1) & 0xffff);
}

describe("a guest that does not let up", () => {
  test("CVE-2019-3900: a request ring that is full for ever leaves timers and other guests their turn", async () => {
    const device = new RpmsgDevice();
    const driver = new Driver(device).boot(0);
    const steps: number[] = [];
    let taken = 0;
    let full = true;
    device.createEndpoint(() => {
      taken++;
      if (full) offerAgain(driver, REQUEST_QUEUE);
    }, 1030);
    const other = new RpmsgDevice();
    const { received } = openEndpoint(other, 1030);
    const quiet = new Driver(other).boot(0);
    for (let i = 0; i < 16; i++) driver.offer(0x400, 1030, "x");
    driver.kick(REQUEST_QUEUE);
    let timer = false;
    const timeout = setTimeout(() => {
      timer = true;
    });
    for (let turn = 0; turn < 20 || !timer; turn++) {
      const before = taken;
      quiet.send(0x400, 1030, String(turn));
      // A storm of kicks beside it.
      driver.kick(REQUEST_QUEUE);
      expect(texts(received)).toContain(String(turn));
      await nextTurn();
      steps.push(taken - before);
      quiet.returned();
    }
    clearTimeout(timeout);
    // What a kick takes, and what the turn itself takes.
    expect(Math.max(...steps)).toBeLessThanOrEqual(2 * 1024);
    expect(Math.min(...steps)).toBeGreaterThan(0);
    full = false;
    await turns(8);
    expect(device.counters).toMatchObject({ messagesFromGuest: taken, brokenQueues: 0 });
  });

  test("receive buffers without end: what waits goes out in bounded turns", async () => {
    const device = new RpmsgDevice();
    const { endpoint } = openEndpoint(device, 1030);
    const driver = new Driver(device).boot(0);
    let sent = 0;
    const queue = device.createSendQueue(
      endpoint,
      { peer: 0x400 },
      {
        onSent: () => {
          sent++;
          offerAgain(driver, RESPONSE_QUEUE);
        },
      },
      { limit: 2 ** 20, timeout: 60_000 },
    );
    const count = 5000;
    for (let i = 0; i < count; i++) queue.send(undefined, Buffer.from("x"), 0, 1);
    driver.post(512);
    driver.kick(RESPONSE_QUEUE);
    const seen = [sent];
    for (let turn = 0; turn < 100 && sent < count; turn++) {
      await nextTurn();
      seen.push(sent);
    }
    expect(sent).toBe(count);
    expect(Math.max(...seen.map((value, i) => value - (seen[i - 1] ?? 0)))).toBe(1024);
    expect(device.idle).toBe(true);
  });
});

describe("hold and release", () => {
  test("messages stay in the ring until release, which needs no kick", async () => {
    const device = new RpmsgDevice();
    const { received } = openEndpoint(device, 1030);
    const driver = new Driver(device).boot();
    device.hold();
    driver.send(0x400, 1030, "held");
    await turns();
    expect(received).toEqual([]);
    expect(driver.returned()).toEqual([]);
    device.release();
    await turns();
    expect(texts(received)).toEqual(["held"]);
    expect(driver.returned()).toEqual([0]);
  });

  test("calls nest", async () => {
    const device = new RpmsgDevice();
    const { received } = openEndpoint(device, 1030);
    const driver = new Driver(device).boot();
    device.hold();
    device.hold();
    driver.send(0x400, 1030, "held");
    device.release();
    await turns();
    expect(received).toEqual([]);
    device.release();
    await turns();
    expect(received).toHaveLength(1);
  });

  test("the message during whose delivery it is called is delivered, the next is not", async () => {
    const device = new RpmsgDevice();
    const got: number[] = [];
    device.createEndpoint((_src, bytes, offset) => {
      got.push(bytes[offset] ?? -1);
      if (got.length === 1) device.hold();
    }, 1030);
    const driver = new Driver(device).boot();
    for (let i = 0; i < 3; i++) driver.offer(0x400, 1030, Buffer.from([i]));
    driver.kick(REQUEST_QUEUE);
    await turns();
    expect(got).toEqual([0]);
    expect(driver.returned()).toEqual([0]);
    device.release();
    await turns();
    expect(got).toEqual([0, 1, 2]);
  });

  test("the other direction goes on", async () => {
    const device = new RpmsgDevice();
    const { endpoint } = openEndpoint(device, 1030);
    const driver = new Driver(device).boot();
    device.hold();
    openSender(device, endpoint, { peer: 0x400 }).send("still");
    await turns();
    expect(driver.receive()?.payload.toString()).toBe("still");
  });

  test("what is held when the queues stop is taken then, once: after a reset it would be lost", async () => {
    const device = new RpmsgDevice();
    const { received } = openEndpoint(device, 1030);
    const driver = new Driver(device).boot();
    driver.send(0x400, 1030, "first");
    device.hold();
    driver.send(0x400, 1030, "held");
    const stopped = device.stop();
    expect(stopped?.[1].base).toBe(2);
    expect(texts(received)).toEqual(["first", "held"]);
    driver.start([stopped?.[0].base ?? 0, stopped?.[1].base ?? 0]);
    await turns();
    driver.send(0x400, 1030, "held again");
    await turns();
    expect(texts(received)).toEqual(["first", "held"]);
    device.release();
    await turns();
    expect(texts(received)).toEqual(["first", "held", "held again"]);
    expect(device.generation).toBe(1);
  });
});
