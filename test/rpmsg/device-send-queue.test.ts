import { describe, expect, test } from "vitest";
import { RESPONSE_QUEUE, RpmsgDevice } from "../../rpmsg/device.ts";
import { collectGarbage } from "./posix/support.ts";
import { Driver, turns } from "./support/device-driver.ts";
import { openEndpoint, openSender } from "./support/device-endpoints.ts";

function boot(buffers: number) {
  const device = new RpmsgDevice();
  const driver = new Driver(device, { size: 64 }).boot(buffers);
  const senderAt = (address: number, options: { limit?: number; onWritable?: () => void } = {}) =>
    openSender(device, openEndpoint(device, address).endpoint, { peer: 0x400, ...options });
  return { device, driver, senderAt };
}

function take(driver: Driver, buffers: number): string[] {
  for (let i = 0; i < buffers; i++) driver.post(512);
  driver.kick(RESPONSE_QUEUE);
  return driver.receiveAll().map(({ payload }) => payload.toString());
}

// Each message counts 4 bytes more than its payload.
describe("the bound of what waits", () => {
  test("queue-full takes nothing", () => {
    const { driver, senderAt } = boot(0);
    const sender = senderAt(1030, { limit: 42 });
    expect(sender.send("12345")).toBe("queued");
    expect(sender.send("67890")).toBe("queued");
    expect(sender.send("x")).toBe("queue-full");
    expect(sender.queue.pendingBytes).toBe(42);
    expect(take(driver, 3)).toEqual(["12345", "67890"]);
  });

  test("one message always fits", () => {
    const { driver, senderAt } = boot(0);
    const sender = senderAt(1030, { limit: 10 });
    expect(sender.send("longer than the limit")).toBe("queued");
    expect(sender.send("x")).toBe("queue-full");
    expect(take(driver, 1)).toEqual(["longer than the limit"]);
  });

  test("it is each sender's own", () => {
    const { senderAt } = boot(0);
    const one = senderAt(1030, { limit: 20 });
    const two = senderAt(1031, { limit: 20 });
    expect([one.send("1234"), one.send("5"), two.send("1234")]).toEqual(["queued", "queue-full", "queued"]);
  });

  test("empty messages are bounded too", () => {
    const { senderAt } = boot(0);
    const sender = senderAt(1030, { limit: 1000 });
    let taken = 0;
    while (taken < 100_000 && sender.send("") === "queued") taken++;
    expect(taken).toBe(62);
  });
});

test("a message that was sent is free at once, while others wait behind it", async () => {
  const { driver, senderAt } = boot(0);
  const sender = senderAt(1030);
  const tickets: WeakRef<() => void>[] = [];
  for (let i = 0; i < 500; i++) {
    const ticket = () => void i;
    tickets.push(new WeakRef(ticket));
    expect(sender.send(`${i}`, undefined, ticket)).toBe("queued");
  }
  for (let i = 0; i < 8; i++) expect(take(driver, 50)).toHaveLength(50);
  // What a WeakRef was just made of lives until the end of the turn.
  await turns(1);
  await collectGarbage();
  // Those that wait, and those that the guest may not have read yet: as many as the queue has buffers.
  expect(tickets.filter((ticket) => ticket.deref() !== undefined).length).toBeLessThanOrEqual(100 + 64);
});

describe("onWritable", () => {
  test("comes once, when a quarter of the limit or less is left", () => {
    const { driver, senderAt } = boot(0);
    const sender = senderAt(1030, { limit: 72 });
    for (const text of ["ab", "cd", "ef", "gh"]) expect(sender.send(text)).toBe("queued");
    take(driver, 2);
    expect(sender.heard).toEqual([]);
    take(driver, 1);
    expect(sender.heard).toEqual(["writable"]);
    take(driver, 1);
    expect(sender.heard).toEqual(["writable"]);
  });

  test("what is sent in it keeps the order", () => {
    const { driver, senderAt } = boot(0);
    let more = ["5", "6"];
    const sender = senderAt(1030, {
      limit: 68,
      onWritable: () => {
        for (const text of more) sender.send(text);
        more = [];
      },
    });
    for (const text of ["1", "2", "3", "4"]) sender.send(text);
    expect(take(driver, 10)).toEqual(["1", "2", "3", "4", "5", "6"]);
  });
});

describe("fairness with a slow driver", () => {
  test("several senders get one message each in turn", () => {
    const { driver, senderAt } = boot(0);
    const senders = { a: senderAt(1030), b: senderAt(1031), c: senderAt(1032) };
    for (let i = 0; i < 4; i++) senders.a.send(`a${i}`);
    for (let i = 0; i < 2; i++) senders.b.send(`b${i}`);
    for (let i = 0; i < 3; i++) senders.c.send(`c${i}`);
    const got: string[] = [];
    while (got.length < 9) got.push(...take(driver, 1));
    expect(got).toEqual(["a0", "b0", "c0", "a1", "b1", "c1", "a2", "c2", "a3"]);
  });

  test("nobody passes those who wait, though a buffer is there", () => {
    const { driver, senderAt } = boot(0);
    const patient = senderAt(1030);
    const late = senderAt(1031);
    patient.send("first");
    driver.post(512);
    driver.post(512);
    expect(late.send("second")).toBe("queued");
    expect(take(driver, 0)).toEqual(["first", "second"]);
    expect(late.send("third")).toBe("queued");
  });

  test("one that keeps its queue full does not starve another", () => {
    const { driver, senderAt } = boot(0);
    const greedy = senderAt(1030, { limit: 400, onWritable: () => fill() });
    const fill = (): void => {
      while (greedy.send("g") === "queued");
    };
    fill();
    const modest = senderAt(1031);
    for (let i = 0; i < 5; i++) modest.send("m");
    const got = take(driver, 10);
    expect(got.filter((text) => text === "m")).toHaveLength(5);
  });

  test("more messages than a queue compacts at arrive in order", async () => {
    const { driver, senderAt } = boot(0);
    const sender = senderAt(1030, { limit: 1_000_000 });
    for (let i = 0; i < 3000; i++) expect(sender.send(`${i}`)).toBe("queued");
    const got: string[] = [];
    // Buffers are posted again where they were.
    const addresses = Array.from({ length: 64 }, () => driver.allocate(64));
    while (got.length < 3000) {
      for (const address of addresses) driver.postAt({ address, length: 64 });
      driver.kick(RESPONSE_QUEUE);
      await turns(1);
      const messages = driver.receiveAll();
      expect(messages.length).toBeGreaterThan(0);
      got.push(...messages.map(({ payload }) => payload.toString()));
    }
    expect(got).toEqual(Array.from({ length: 3000 }, (_, i) => `${i}`));
    expect(sender.queue).toMatchObject({ pending: 0, pendingBytes: 0 });
  });
});

describe("closed", () => {
  test("a closed sender's messages are given up, it sends no more, and others go on", () => {
    const { driver, senderAt } = boot(0);
    const one = senderAt(1030);
    const two = senderAt(1031);
    one.send("dropped");
    two.send("kept");
    one.queue.close();
    expect(one.send("x")).toBe("endpoint-gone");
    expect(take(driver, 2)).toEqual(["kept"]);
    expect(one.heard).toEqual(["endpoint-gone"]);
  });

  test("a closed endpoint sends no more", () => {
    const { device } = boot(1);
    const { endpoint } = openEndpoint(device, 1030);
    const sender = openSender(device, endpoint, { peer: 0x400 });
    endpoint.close();
    endpoint.close();
    expect(sender.send("x")).toBe("endpoint-gone");
  });

  test("a closed device neither sends nor receives", async () => {
    const { device, driver } = boot(4);
    const { endpoint, received } = openEndpoint(device, 1030);
    const sender = openSender(device, endpoint, { peer: 0x400 });
    sender.send("before");
    await turns();
    device.close();
    sender.send("after");
    driver.send(0x400, 1030, "late");
    await turns();
    expect(driver.receiveAll()).toHaveLength(1);
    expect(received).toEqual([]);
    expect(() => device.createEndpoint(() => {})).toThrow(expect.objectContaining({ code: "device-closed" }));
  });
});
