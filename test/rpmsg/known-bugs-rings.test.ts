import { describe, expect, test } from "vitest";
import { REQUEST_QUEUE, RpmsgDevice } from "../../rpmsg/device.ts";
import { GuestMemory } from "../../rpmsg/memory/guest-memory.ts";
import { heapRegion } from "../../rpmsg/memory/heap-memory.ts";
import { codeOf } from "./support/coded.ts";
import { Driver, message, nameServiceMessage, turns, UNTOUCHED } from "./support/device-driver.ts";
import { openEndpoint, openSender, texts } from "./support/device-endpoints.ts";
import type { RawDescriptor } from "./support/raw-ring.ts";
import { CANARY, INDIRECT, NEXT, offsetOf, RawRing, WRITE } from "./support/raw-ring.ts";

// Bugs that other implementations of vhost, virtio and RPMsg had in rings, headers and name service, one test each.

const PEER = 0x400;
const LOCAL = 1030;
const DESTROY = 1;

function boot(options: { nameService?: boolean; size?: number; limit?: number } = {}) {
  const errors: string[] = [];
  const device = new RpmsgDevice(
    { onError: (queue, { code }) => errors.push(`${queue} ${code}`) },
    options.limit === undefined ? {} : { maxGuestAnnouncements: options.limit },
  );
  const { endpoint, received } = openEndpoint(device, LOCAL);
  const driver = new Driver(device, { size: 64, ...options }).boot(4);
  return { device, driver, endpoint, received, errors };
}

/** A ring of 8 with these descriptors, whose first one is available. */
function ringOf(descriptors: readonly RawDescriptor[], table: readonly RawDescriptor[] = []) {
  const ring = new RawRing({ size: 8 });
  for (const [i, descriptor] of descriptors.entries()) ring.describe(i, descriptor);
  ring.table(ring.buffer(-0x800), table);
  ring.offer(0);
  return { ring, queue: ring.device(), table: ring.buffer(-0x800) };
}

/** What looking at the next chain costs the guest. */
function verdict(
  descriptors: readonly RawDescriptor[],
  table?: readonly RawDescriptor[],
): string | undefined {
  const { queue } = ringOf(descriptors, table);
  return codeOf(() => queue.peek());
}

const TABLE = new RawRing().buffer(-0x800);
const BUFFER = new RawRing().buffer(0);

describe("addresses and lengths", () => {
  test("CVE-2018-1059: only the start of a span is checked, not its end", () => {
    const end = BUFFER - offsetOf.buffers + 0x40000;
    expect(verdict([{ address: end - 16, length: 17 }])).toBe("descriptor-range");
    expect(verdict([{ address: end - 16, length: 17, flags: WRITE }])).toBe("descriptor-range");
    expect(verdict([{ address: end - 16, length: 16 }])).toBeUndefined();
  });

  test.each([
    ["of 64 bits", 2n ** 64n - 8n, 0x4000_8010],
    ["of the largest whole number", 2n ** 53n - 8n, 16],
    ["of 32 bits", 0xffff_fff8n, 0x4000_8010],
  ])("CVE-2020-10722: offset + size overflows at the end %s", (_end, address, length) => {
    expect(verdict([{ address, length }])).toBe("descriptor-range");
    expect(verdict([{ address, length: 16, flags: INDIRECT }])).toBe("descriptor-range");
    const memory = new GuestMemory();
    memory.add(heapRegion(0x4000_0000, 0x1_0000));
    expect(memory.find(Number(address), length)).toBeUndefined();
    expect(memory.findUser(Number(address), length)).toBeUndefined();
    expect(memory.read(Number(address), new Uint8Array(16), 0, 16)).toBe(false);
  });

  test.each([0n, 0xdead_0000n, 2n ** 64n - 1n])(
    "CVE-2020-10725: a descriptor of zero length with the bad address %d is never touched",
    (address) => {
      const { ring, queue } = ringOf([
        { address, length: 0, flags: NEXT, next: 1 },
        { address: BUFFER, length: 64, flags: NEXT | WRITE, next: 2 },
        { address, length: 0, flags: WRITE },
      ]);
      expect(queue.peek()).toBe(true);
      expect([queue.readableLength, queue.writableLength, queue.segmentCount]).toEqual([0, 64, 1]);
      queue.gather(new Uint8Array(0), 0);
      queue.writeMessage(Uint32Array.of(1, 2, 3, 4), new Uint8Array(48), 0, 48);
      queue.complete(64);
      queue.publish();
      expect(ring.used(0)).toEqual({ id: 0, length: 64 });
    },
  );

  test.each([NEXT, 0])("CVE-2020-10725: an indirect table of zero length, with flags %i", (flags) => {
    expect(verdict([{ address: 0, length: 0, flags: INDIRECT | flags, next: 1 }])).toMatch(/^indirect-/);
  });
});

describe("headers", () => {
  test.each(Array.from({ length: 16 }, (_, i) => i))(
    "a short header of %i bytes is taken as a message",
    (length) => {
      const { driver, device, received } = boot();
      // What lay there before would make it one.
      driver.offerBytes(message(PEER, LOCAL, "stale"));
      driver.kick(REQUEST_QUEUE);
      driver.offerBytes(message(PEER, LOCAL).subarray(0, length));
      driver.kick(REQUEST_QUEUE);
      expect(texts(received)).toEqual(["stale"]);
      expect(device.counters.malformed).toBe(1);
      expect(driver.returned()).toEqual([0, 0]);
    },
  );

  test("CVE-2022-2132: a header that is spread over 16 descriptors of one byte", async () => {
    const { driver, device, endpoint, received } = boot();
    driver.offerBytes(
      message(PEER, LOCAL, "spread"),
      Array.from({ length: 16 }, () => 1),
    );
    driver.kick(REQUEST_QUEUE);
    expect(texts(received)).toEqual(["spread"]);
    // And the other way: the header that we write.
    const ring = new Driver(device, { size: 64 });
    device.stop();
    ring.post(...Array.from({ length: 16 }, () => 1), 64);
    ring.boot(0);
    openSender(device, endpoint, { peer: PEER }).send("back");
    await turns();
    expect(ring.receive()).toMatchObject({ src: LOCAL, dst: PEER, len: 4, used: 20 });
  });

  test("CVE-2020-14374: a length that changes between check and use", () => {
    const { driver, device } = boot();
    const lengths: number[] = [];
    device.createEndpoint((_src, _bytes, _offset, length) => lengths.push(length), 1031);
    driver.offerBytes(message(PEER, 1031, "0123456789"));
    // Each look at the word of `len` gives more than the one before.
    let looks = 0;
    const { u32 } = driver.window;
    const changing = new Proxy(u32, {
      get(target, key) {
        const value: unknown = Reflect.get(target, key, target);
        return value === 10 && looks++ > 0 ? 0xffff : value;
      },
    });
    Object.defineProperty(driver.window, "u32", { value: changing });
    driver.kick(REQUEST_QUEUE);
    expect(lengths).toEqual([10]);
    expect(looks).toBe(1);
  });

  test.each([
    { len: 0, room: 496, taken: true },
    { len: 496, room: 496, taken: true },
    { len: 497, room: 496, taken: false },
    { len: 497, room: 497, taken: true },
    { len: 65535, room: 496, taken: false },
    { len: 65535, room: 65535, taken: true },
  ])("len $len where the buffer has room for $room", ({ len, room, taken }) => {
    const { driver, device, received } = boot();
    driver.offerBytes(message(PEER, LOCAL, Buffer.alloc(room, 7), { len }));
    driver.kick(REQUEST_QUEUE);
    expect(received.map(({ bytes }) => bytes.length)).toEqual(taken ? [len] : []);
    expect(device.counters.malformed).toBe(taken ? 0 : 1);
    expect(driver.returned()).toEqual([0]);
  });

  test.each(Array.from({ length: 16 }, (_, i) => i))(
    "a receive buffer of %i bytes, too short for a header, is written or given back empty",
    async (length) => {
      const device = new RpmsgDevice();
      const { endpoint } = openEndpoint(device, LOCAL);
      const driver = new Driver(device);
      const address = driver.allocate(64);
      driver.bytes(address, 64).fill(UNTOUCHED);
      driver.postAt({ address, length });
      driver.boot(0);
      expect(openSender(device, endpoint, { peer: PEER }).send("")).toBe("queued");
      await turns();
      expect(driver.receive()).toBeUndefined();
      expect(driver.bytes(address, 64).every((byte) => byte === UNTOUCHED)).toBe(true);
      expect(driver.failures).toEqual([{ queue: 0, code: "buffer-too-small" }]);
    },
  );
});

describe("chains", () => {
  const loop = (next: number, flags = 0): RawDescriptor => ({
    address: BUFFER,
    length: 8,
    flags: NEXT | flags,
    next,
  });

  test.each([0, WRITE])("a descriptor that is its own next, with flags %i", (flags) => {
    expect(verdict([loop(0, flags)])).toBe("chain-too-long");
  });

  test.each([0, WRITE])("a cycle of two descriptors, with flags %i", (flags) => {
    expect(verdict([loop(1, flags), loop(0, flags)])).toBe("chain-too-long");
  });

  test.each([
    { name: "itself", entries: [loop(0)] },
    { name: "a cycle of two", entries: [loop(1), loop(0)] },
    { name: "a cycle of three behind a beginning", entries: [loop(1), loop(2), loop(3), loop(1)] },
  ])("a loop in an indirect table: $name", ({ entries }) => {
    expect(verdict([{ address: TABLE, length: 16 * entries.length, flags: INDIRECT }], entries)).toBe(
      "chain-too-long",
    );
  });

  test("an indirect table whose entry is an indirect table, itself", () => {
    const self = { address: TABLE, length: 16, flags: INDIRECT };
    expect(verdict([self], [self])).toBe("indirect-nested");
  });
});

describe("the available index", () => {
  test.each([
    { name: "size + 1", start: 0, index: 9 },
    { name: "size + 1 over the wrap", start: 0xfffc, index: (0xfffc + 9) & 0xffff },
    { name: "backwards", start: 5, index: 4 },
    { name: "backwards over the wrap", start: 0, index: 0xffff },
  ])("jumps: $name", ({ start, index }) => {
    const ring = new RawRing({ size: 8, start });
    ring.setAvailableIndex(index);
    const queue = ring.device();
    expect(codeOf(() => queue.peek())).toBe("avail-index-jump");
    expect(ring.usedIndex).toBe(start);
  });

  test.each([0, 0xfffc, 0xffff])("a full ring from %i on is no jump, over the wrap either", (start) => {
    const ring = new RawRing({ size: 8, start });
    for (let i = 0; i < 8; i++) ring.describe(i, { address: BUFFER, length: 16 });
    ring.offer(0, 1, 2, 3, 4, 5, 6, 7);
    const queue = ring.device();
    const heads: number[] = [];
    while (queue.peek()) {
      heads.push(queue.head);
      queue.complete(0);
    }
    queue.publish();
    expect(heads).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(ring.usedIndex).toBe((start + 8) & 0xffff);
  });
});

describe("used elements", () => {
  test("used says more than was written, or than the buffer holds", async () => {
    const { ring, queue } = ringOf([{ address: BUFFER, length: 32, flags: WRITE }]);
    expect(queue.peek()).toBe(true);
    expect(() => queue.complete(33)).toThrow(RangeError);
    expect(ring.used(0)).toEqual({ id: 0, length: 0 });
    const { driver, endpoint, device } = boot();
    openSender(device, endpoint, { peer: PEER }).send("12345");
    await turns();
    expect(driver.receive()).toMatchObject({ used: 16 + 5, len: 5 });
  });

  test("an element is leaked on an error", async () => {
    const { driver, device, received, errors } = boot();
    // Malformed, unknown, name service of a wrong length, and a good one: each head comes back, once.
    driver.offerBytes(Buffer.alloc(3));
    driver.offer(PEER, 4711, "nobody");
    driver.offerBytes(message(PEER, LOCAL, "", { len: 9 }));
    driver.offerBytes(message(PEER, 53, Buffer.alloc(39)));
    driver.offer(PEER, LOCAL, "good");
    driver.kick(REQUEST_QUEUE);
    expect(driver.returned()).toEqual([0, 0, 0, 0, 0]);
    expect(driver.request.free).toBe(64);
    // Those before a chain that breaks the queue too.
    driver.offer(PEER, LOCAL, "before");
    driver.request.add(0xdead_0000, 64, false);
    driver.request.publish();
    driver.kick(REQUEST_QUEUE);
    await turns();
    expect(texts(received)).toEqual(["good", "before"]);
    expect(driver.returned()).toEqual([0]);
    expect(errors).toEqual(["1 descriptor-range"]);
    expect(device.counters.messagesFromGuest).toBe(3);
  });

  test("CVE-2018-1118: bytes that nobody has written are sent to the guest", async () => {
    const { driver, endpoint, device } = boot();
    device.announce("a", LOCAL);
    openSender(device, endpoint, { peer: PEER }).send("b");
    await turns();
    const [create, data] = driver.receiveAll();
    // Name, zeros up to its 32 bytes, address and flags; and of the header `reserved` and `flags`.
    expect(create?.payload).toEqual(nameServiceMessage("a", LOCAL));
    expect([create?.reserved, create?.flags, data?.reserved, data?.flags]).toEqual([0, 0, 0, 0]);
    // Behind the message the buffer is as the guest left it, and `used` does not say otherwise.
    for (const each of [create, data]) {
      expect(each?.used).toBe(16 + (each?.len ?? 0));
      expect(each?.buffer.subarray(each.used).every((byte) => byte === UNTOUCHED)).toBe(true);
    }
  });

  test("read-only buffers and the descriptor table are written", () => {
    const { ring, queue } = ringOf([
      { address: BUFFER, length: 24, flags: NEXT, next: 1 },
      { address: BUFFER + 64, length: 24, flags: WRITE },
    ]);
    const table = ring.bytes.slice(offsetOf.descriptors, offsetOf.descriptors + 16 * 8);
    expect(queue.peek()).toBe(true);
    queue.writeMessage(Uint32Array.of(1, 2, 3, 4), new Uint8Array(8), 0, 8);
    queue.complete(24);
    queue.publish();
    expect(ring.at(BUFFER, 64).every((byte) => byte === CANARY)).toBe(true);
    expect(ring.at(BUFFER + 88, 64).every((byte) => byte === CANARY)).toBe(true);
    expect(ring.bytes.slice(offsetOf.descriptors, offsetOf.descriptors + 16 * 8)).toEqual(table);
  });
});

describe("name service", () => {
  test("a name without NUL runs on into the address behind it", () => {
    const { driver, device } = boot();
    driver.send(PEER, 53, nameServiceMessage("n".repeat(32), 0x6161_6161));
    expect([...device.guestAnnouncements]).toEqual([{ name: "n".repeat(32), address: 0x6161_6161 }]);
  });

  test.each([39, 41])("a message of %i bytes", (length) => {
    const { driver, device } = boot();
    const bytes = Buffer.concat([nameServiceMessage("name", PEER), Buffer.alloc(1)]);
    driver.send(PEER, 53, bytes.subarray(0, length));
    expect([...device.guestAnnouncements]).toEqual([]);
    expect(device.counters.nameServiceMalformed).toBe(1);
    expect(driver.returned()).toEqual([0]);
  });

  test("a create twice", () => {
    const { driver, device } = boot();
    for (let i = 0; i < 2; i++) driver.send(PEER, 53, nameServiceMessage("twice", PEER));
    expect([...device.guestAnnouncements]).toHaveLength(1);
    driver.send(PEER, 53, nameServiceMessage("twice", PEER, DESTROY));
    expect([...device.guestAnnouncements]).toEqual([]);
  });

  test("a destroy of what was never created", () => {
    const { driver, device } = boot();
    driver.send(PEER, 53, nameServiceMessage("known", PEER));
    driver.send(PEER, 53, nameServiceMessage("known", PEER + 1, DESTROY));
    driver.send(PEER, 53, nameServiceMessage("unknown", PEER, DESTROY));
    expect([...device.guestAnnouncements]).toEqual([{ name: "known", address: PEER }]);
    expect(device.counters.nameServiceIgnored).toBe(2);
  });

  test("a flood of creates", () => {
    const { driver, device, received } = boot({ limit: 100 });
    for (let i = 0; i < 1000; i++) {
      driver.send(PEER, 53, nameServiceMessage(`flood ${i}`, i + 1024));
      expect(driver.returned()).toEqual([0]);
    }
    expect([...device.guestAnnouncements]).toHaveLength(100);
    expect(device.counters.nameServiceLimit).toBe(900);
    driver.send(PEER, LOCAL, "still served");
    expect(texts(received)).toEqual(["still served"]);
    device.reset();
    expect([...device.guestAnnouncements]).toEqual([]);
  });
});
