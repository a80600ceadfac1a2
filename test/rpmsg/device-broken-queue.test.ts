import { describe, expect, test } from "vitest";
import { REQUEST_QUEUE, RESPONSE_QUEUE, RpmsgDevice } from "../../rpmsg/device.ts";
import { Driver, turns } from "./support/device-driver.ts";
import { openEndpoint, openSender, texts } from "./support/device-endpoints.ts";

function boot() {
  const errors: string[] = [];
  const device = new RpmsgDevice({ onError: (queue, error) => errors.push(`${queue} ${error.code}`) });
  const { endpoint, received } = openEndpoint(device, 1030);
  const sender = openSender(device, endpoint, { peer: 0x400 });
  const driver = new Driver(device).boot(4);
  return { device, driver, endpoint, received, sender, errors };
}

/** Makes the available index of a queue jump by more than its size. */
function jump(driver: Driver, queue: 0 | 1): void {
  const index = driver.bytes(driver.rings[queue].available + 2, 2);
  index.writeUInt16LE((index.readUInt16LE() + 100) & 0xffff);
}

describe("a broken request queue", () => {
  test("is stopped once and counted once, and the driver is told", async () => {
    const { device, driver, received, errors } = boot();
    jump(driver, REQUEST_QUEUE);
    for (let i = 0; i < 3; i++) driver.kick(REQUEST_QUEUE);
    driver.kick(RESPONSE_QUEUE);
    device.rescan();
    await turns();
    expect(errors).toEqual(["1 avail-index-jump"]);
    expect(driver.failures).toEqual([{ queue: 1, code: "avail-index-jump" }]);
    expect(device.counters.brokenQueues).toBe(1);
    expect(received).toEqual([]);
    expect(device.state).toBe("attached");
  });

  test("does not stop the response queue", async () => {
    const { driver, sender } = boot();
    jump(driver, REQUEST_QUEUE);
    driver.kick(REQUEST_QUEUE);
    expect(sender.send("one")).toBe("sent");
    await turns();
    expect(driver.receive()?.payload.toString()).toBe("one");
    for (let i = 0; i < 3; i++) sender.send("fill");
    expect(sender.send("waits")).toBe("queued");
    driver.receiveAll();
    driver.post(512);
    driver.kick(RESPONSE_QUEUE);
    expect(driver.receiveAll().at(-1)?.payload.toString()).toBe("waits");
  });

  test("what came before the bad chain was taken and is given back", () => {
    const { driver, received, errors } = boot();
    driver.offer(0x400, 1030, "good");
    driver.request.add(0x7fff_0000, 64, false);
    driver.request.publish();
    driver.offer(0x400, 1030, "behind it");
    driver.kick(REQUEST_QUEUE);
    expect(texts(received)).toEqual(["good"]);
    expect(driver.returned()).toEqual([0]);
    expect(errors).toEqual(["1 descriptor-range"]);
  });

  test("stays stopped over a pause and works again after a reset", async () => {
    const { device, driver, received, errors } = boot();
    driver.send(0x400, 1030, "before");
    jump(driver, REQUEST_QUEUE);
    driver.kick(REQUEST_QUEUE);
    const stopped = device.stop();
    driver.start([stopped?.[0].base ?? 0, stopped?.[1].base ?? 0]);
    await turns();
    expect(device.generation).toBe(1);
    expect(errors).toHaveLength(1);
    device.stop();
    new Driver(device).boot().send(0x400, 1030, "again");
    await turns();
    expect(texts(received)).toEqual(["before", "again"]);
    expect([device.generation, device.counters.brokenQueues]).toEqual([2, 1]);
  });
});

describe("a broken response queue", () => {
  test("is stopped once and counted once, and the driver is told", async () => {
    const { device, driver, sender, errors } = boot();
    for (let i = 0; i < 4; i++) expect(sender.send("fill")).toBe("sent");
    await turns();
    jump(driver, RESPONSE_QUEUE);
    for (let i = 0; i < 3; i++) expect(sender.send("waits")).toBe("queued");
    for (let i = 0; i < 3; i++) driver.kick(RESPONSE_QUEUE);
    await turns();
    expect(errors).toEqual(["0 avail-index-jump"]);
    expect(driver.failures).toEqual([{ queue: 0, code: "avail-index-jump" }]);
    expect(device.counters.brokenQueues).toBe(1);
    expect(driver.receiveAll()).toHaveLength(4);
  });

  test("does not stop the request queue", () => {
    const { device, driver, received, errors } = boot();
    jump(driver, RESPONSE_QUEUE);
    device.rescan();
    driver.send(0x400, 1030, "one");
    driver.send(0x400, 1030, "two");
    expect(texts(received)).toEqual(["one", "two"]);
    expect(driver.returned()).toEqual([0, 0]);
    expect(errors.length).toBeLessThanOrEqual(1);
  });

  test("what was sent before it broke in the same turn reaches the driver", async () => {
    const device = new RpmsgDevice();
    const sender = openSender(device, openEndpoint(device, 1030).endpoint, { peer: 0x400 });
    const driver = new Driver(device).boot(1);
    driver.post(3);
    expect(sender.send("sent")).toBe("sent");
    expect(sender.send("breaks")).toBe("queued");
    await turns();
    expect(device.counters.brokenQueues).toBe(1);
    expect(driver.receiveAll().map(({ payload }) => payload.toString())).toEqual(["sent"]);
    expect(driver.calls).toEqual([1, 0]);
  });

  test("works again after a reset", async () => {
    const { device, driver, sender } = boot();
    jump(driver, RESPONSE_QUEUE);
    for (let i = 0; i < 5; i++) sender.send("x");
    device.reset();
    const second = new Driver(device).boot();
    expect(sender.send("again")).toBe("sent");
    await turns();
    expect(second.receive()?.payload.toString()).toBe("again");
  });
});

test("both may break, and the process goes on", async () => {
  const { device, driver, errors, sender } = boot();
  for (let i = 0; i < 4; i++) sender.send("fill");
  jump(driver, REQUEST_QUEUE);
  jump(driver, RESPONSE_QUEUE);
  driver.kick(REQUEST_QUEUE);
  sender.send("x");
  await turns();
  expect(errors.toSorted()).toEqual(["0 avail-index-jump", "1 avail-index-jump"]);
  expect(device.counters.brokenQueues).toBe(2);
  device.reset();
  expect(device.state).toBe("detached");
});
