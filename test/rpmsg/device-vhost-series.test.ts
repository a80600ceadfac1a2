import { describe, expect, test } from "vitest";
import { REQUEST_QUEUE, RESPONSE_QUEUE, RpmsgDevice } from "../../rpmsg/device.ts";
import type { HostAnnouncement } from "../../rpmsg/name-service.ts";
import { Driver, message, nameServiceMessage, turns } from "./support/device-driver.ts";
import { openEndpoint, openSender, texts } from "./support/device-endpoints.ts";

/** Tells whether a 16-bit word is the used ring's flags or its event index, where the device asks for kicks. */
function flagsAndEvent(driver: Driver, queue: number): (array: Uint16Array, index: number) => boolean {
  const { used } = driver.rings[queue] as { used: number };
  const { u8, guestAddress } = driver.window;
  const bytes = [used, used + 4 + 8 * 16].map((address) => u8.byteOffset + address - guestAddress);
  return (array, index) => array.buffer === u8.buffer && bytes.includes(array.byteOffset + 2 * index);
}

// The mistakes of the "vhost: add an RPMsg API" series, one test each.
describe.each([{ eventIndex: false }, { eventIndex: true }])("not repeated, with %o", ({ eventIndex }) => {
  test("a notification race that stalls the queue", async () => {
    const device = new RpmsgDevice();
    const { received } = openEndpoint(device, 1030);
    const driver = new Driver(device, { eventIndex }).boot();
    await turns();
    // A message that appears while the device turns kicks on again, whose kick is therefore not sent.
    let late = 3;
    const store = Atomics.store;
    const asksForKicks = flagsAndEvent(driver, REQUEST_QUEUE);
    try {
      Atomics.store = ((array: Uint16Array, index: number, value: number) => {
        if (asksForKicks(array, index) && late > 0) {
          late--;
          driver.offer(0x400, 1030, `late ${late}`);
        }
        return store(array, index, value);
      }) as typeof Atomics.store;
      driver.send(0x400, 1030, "first");
    } finally {
      Atomics.store = store;
    }
    await turns();
    expect(late).toBeLessThan(3);
    expect(received).toHaveLength(1 + 3 - late);
  });

  test("a notification race that stalls the response queue", async () => {
    const device = new RpmsgDevice();
    const { endpoint } = openEndpoint(device, 1030);
    const driver = new Driver(device, { eventIndex }).boot(0);
    const sender = openSender(device, endpoint, { peer: 0x400 });
    // A buffer that appears just before the device asks for kicks: no kick comes for it.
    const store = Atomics.store;
    let posted = false;
    const asksForKicks = flagsAndEvent(driver, RESPONSE_QUEUE);
    try {
      Atomics.store = ((array: Uint16Array, index: number, value: number) => {
        if (asksForKicks(array, index) && !posted) {
          posted = true;
          driver.post(512);
        }
        return store(array, index, value);
      }) as typeof Atomics.store;
      expect(sender.send("not stalled")).toBe("queued");
    } finally {
      Atomics.store = store;
    }
    expect(posted).toBe(true);
    await turns();
    expect(driver.receive()?.payload.toString()).toBe("not stalled");
  });

  test("one bad message ends the drain until the next kick", () => {
    const device = new RpmsgDevice();
    const { received } = openEndpoint(device, 1030);
    const driver = new Driver(device, { eventIndex }).boot();
    driver.offer(0x400, 1030, "one");
    driver.offerBytes(message(0x400, 1030, "bad", { len: 4 }));
    driver.offerBytes(Buffer.alloc(3));
    driver.offer(0x400, 999, "nobody");
    driver.offer(0x400, 1030, "two");
    driver.kick(REQUEST_QUEUE);
    expect(texts(received)).toEqual(["one", "two"]);
    expect(driver.returned()).toEqual([0, 0, 0, 0, 0]);
    expect(device.counters).toMatchObject({ malformed: 2, unknownAddress: 1, messagesFromGuest: 2 });
  });

  test("error paths that return queue-0 buffers with length 0", async () => {
    const device = new RpmsgDevice();
    const { endpoint } = openEndpoint(device, 1030);
    const driver = new Driver(device, { eventIndex }).boot(3, 64);
    const sender = openSender(device, endpoint, { peer: 0x400 });
    expect(sender.send("x".repeat(49))).toBe("too-large");
    expect(sender.send("y".repeat(48))).toBe("sent");
    expect(sender.send("z", 0xffff_ffff)).toBe("address-invalid");
    device.stop();
    await turns();
    // The buffer that the long message did not fit is the one that the next message came in.
    expect(driver.receiveAll().map(({ used, len }) => [used, len])).toEqual([[64, 48]]);
  });

  test("a reply lost when queue 0 is empty although the request was consumed", async () => {
    const device = new RpmsgDevice();
    const driver = new Driver(device, { eventIndex }).boot(0);
    const endpoint = device.createEndpoint((src, bytes, offset, length) => {
      expect(replies.queue.send(src, bytes, offset, length)).toBe("queued");
    }, 1030);
    const replies = openSender(device, endpoint);
    driver.send(0x400, 1030, "ping 1");
    driver.send(0x400, 1030, "ping 2");
    expect(driver.returned()).toEqual([0, 0]);
    await turns();
    expect(driver.receive()).toBeUndefined();
    driver.post(512);
    driver.post(512);
    driver.kick(RESPONSE_QUEUE);
    await turns();
    expect(driver.receiveAll().map(({ payload }) => payload.toString())).toEqual(["ping 1", "ping 2"]);
    expect(replies.heard).not.toContain("no-buffer");
  });

  test("no handler for queue-0 kicks, so no resume", async () => {
    const device = new RpmsgDevice();
    const { endpoint } = openEndpoint(device, 1030);
    const driver = new Driver(device, { eventIndex }).boot(1);
    const sender = openSender(device, endpoint, { peer: 0x400 });
    expect(sender.send("first")).toBe("sent");
    expect(sender.send("second")).toBe("queued");
    await turns();
    expect(driver.receiveAll()).toHaveLength(1);
    driver.post(512);
    await turns();
    driver.kick(RESPONSE_QUEUE);
    expect(driver.receive()?.payload.toString()).toBe("second");
  });

  test("used.len non-zero on the read-only queue", () => {
    const device = new RpmsgDevice();
    openEndpoint(device, 1030);
    const driver = new Driver(device, { eventIndex }).boot();
    for (const length of [0, 1, 496]) driver.send(0x400, 1030, Buffer.alloc(length));
    expect(driver.returned()).toEqual([0, 0, 0]);
  });

  test("announcing an address nobody registered: the announced address is bound and reachable", async () => {
    const device = new RpmsgDevice();
    const { endpoint, received } = openEndpoint(device);
    const announcement: HostAnnouncement = device.announce("rpmsg-raw", endpoint.address);
    const driver = new Driver(device, { eventIndex }).boot();
    await turns();
    const told = driver.receive();
    const address = told?.payload.readUInt32LE(32);
    expect(address).toBe(announcement.address);
    driver.send(0x400, address ?? 0, "hello");
    expect(texts(received)).toEqual(["hello"]);
    expect(device.counters.unknownAddress).toBe(0);
  });

  test("no DESTROY", async () => {
    const device = new RpmsgDevice();
    const announcement = device.announce("rpmsg-raw", 1030);
    const driver = new Driver(device, { eventIndex }).boot();
    device.withdraw(announcement);
    await turns();
    expect(driver.receiveAll().map(({ payload }) => payload.readUInt32LE(36))).toEqual([0, 1]);
  });

  test("no receive of announcements", () => {
    const announced: string[] = [];
    const device = new RpmsgDevice({
      onAnnounced: ({ name, address }) => announced.push(`${name} ${address}`),
    });
    const driver = new Driver(device, { eventIndex }).boot();
    driver.send(0x400, 53, nameServiceMessage("rpmsg-tty", 0x400));
    expect(announced).toEqual(["rpmsg-tty 1024"]);
  });

  test("a static endpoint table: endpoints come and go while the guest runs", () => {
    const device = new RpmsgDevice();
    const driver = new Driver(device, { eventIndex }).boot();
    const first = openEndpoint(device, 2000);
    driver.send(0x400, 2000, "to the first");
    first.endpoint.close();
    driver.send(0x400, 2000, "to nobody");
    const second = openEndpoint(device, 2000);
    driver.send(0x400, 2000, "to the second");
    expect(texts(first.received)).toEqual(["to the first"]);
    expect(texts(second.received)).toEqual(["to the second"]);
    expect(device.counters.unknownAddress).toBe(1);
  });
});
