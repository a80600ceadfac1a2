import { describe, expect, test } from "vitest";
import { REQUEST_QUEUE, RpmsgDevice } from "../../rpmsg/device.ts";
import { Driver, message, nameServiceMessage } from "./support/device-driver.ts";
import type { Received } from "./support/device-endpoints.ts";
import { openEndpoint } from "./support/device-endpoints.ts";

const PEER = 0x400;
const LOCAL = 1030;

function boot(): { device: RpmsgDevice; driver: Driver; received: Received[] } {
  const device = new RpmsgDevice();
  const { received } = openEndpoint(device, LOCAL);
  return { device, received, driver: new Driver(device, { size: 64 }).boot(1) };
}

/** Bytes that differ from their neighbours, so that a shift or a cut shows. */
function pattern(length: number): Buffer {
  return Buffer.from(Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 8) + 1) & 0xff));
}

test("the header's bytes are taken where the wire has them", () => {
  const { driver, received, device } = boot();
  driver.offerBytes(
    Buffer.from([
      0x04,
      0x03,
      0x02,
      0x81, // src 0x81020304
      0x06,
      0x04,
      0x00,
      0x00, // dst 1030
      0xef,
      0xbe,
      0xad,
      0xde, // reserved: never looked at
      0x02,
      0x00, // len 2
      0xff,
      0xff, // flags: never looked at
      0xaa,
      0xbb, // payload
      0xcc, // beyond len: not part of the message
    ]),
  );
  driver.kick(REQUEST_QUEUE);
  expect(received).toEqual([{ src: 0x8102_0304, bytes: Buffer.from([0xaa, 0xbb]) }]);
  expect(device.counters).toMatchObject({ messagesFromGuest: 1, bytesFromGuest: 2 });
});

describe("lengths", () => {
  test.each([0, 1, 3, 63, 64, 65, 495, 496, 497, 4096, 65535])(
    "len %i in a buffer that holds it",
    (length) => {
      const { driver, received, device } = boot();
      const payload = pattern(length);
      driver.send(PEER, LOCAL, payload);
      expect(received).toHaveLength(1);
      expect(received[0]?.bytes.equals(payload)).toBe(true);
      expect(device.counters.bytesFromGuest).toBe(length);
      expect(driver.returned()).toEqual([0]);
    },
  );

  test.each([
    { len: 1, room: 0 },
    { len: 497, room: 496 },
    { len: 65535, room: 496 },
    { len: 65535, room: 65534 },
  ])("len $len in a buffer with room for $room is malformed", ({ len, room }) => {
    const { driver, received, device } = boot();
    driver.offerBytes(message(PEER, LOCAL, pattern(room), { len }));
    driver.kick(REQUEST_QUEUE);
    expect(received).toEqual([]);
    expect(device.counters).toMatchObject({ malformed: 1, messagesFromGuest: 0, unknownAddress: 0 });
    expect(driver.returned()).toEqual([0]);
  });

  test.each(Array.from({ length: 16 }, (_, i) => i))("a buffer of %i bytes is no message", (length) => {
    const { driver, received, device } = boot();
    driver.offerBytes(message(PEER, LOCAL).subarray(0, length));
    driver.offer(PEER, LOCAL, "next");
    driver.kick(REQUEST_QUEUE);
    expect(received.map(({ bytes }) => bytes.toString())).toEqual(["next"]);
    expect(device.counters.malformed).toBe(1);
    expect(driver.returned()).toEqual([0, 0]);
  });
});

describe("descriptor layouts", () => {
  test.each([
    { name: "header and payload apart", cuts: [16] },
    { name: "a header in two", cuts: [7] },
    { name: "a header of 16 descriptors", cuts: Array.from({ length: 16 }, () => 1) },
    { name: "a header in four and a payload in three", cuts: [4, 4, 4, 4, 100, 1] },
    { name: "empty descriptors between", cuts: [0, 8, 0, 8, 0, 50, 0] },
    { name: "a header at the end of a long first descriptor", cuts: [200, 60] },
  ])("$name", ({ cuts }) => {
    const { driver, received } = boot();
    const payload = pattern(300);
    driver.offerBytes(message(PEER, LOCAL, payload), cuts);
    driver.kick(REQUEST_QUEUE);
    expect(received).toEqual([{ src: PEER, bytes: payload }]);
    expect(driver.returned()).toEqual([0]);
  });

  test.each([1, 2, 3, 5])("a buffer %i bytes from a word boundary", (shift) => {
    const { driver, received } = boot();
    driver.offerBytes(message(PEER, LOCAL, pattern(100)), [], shift);
    driver.kick(REQUEST_QUEUE);
    expect(received).toEqual([{ src: PEER, bytes: pattern(100) }]);
  });

  test("65535 bytes in seven descriptors", () => {
    const { driver, received } = boot();
    driver.offerBytes(message(PEER, LOCAL, pattern(65535)), [10, 20, 1000, 30000, 30000, 7]);
    driver.kick(REQUEST_QUEUE);
    expect(received[0]?.bytes.equals(pattern(65535))).toBe(true);
  });

  test("len is bounded by the chain, whatever a descriptor says", () => {
    const { driver, received, device } = boot();
    driver.offerBytes(message(PEER, LOCAL, pattern(50), { len: 51 }), [16, 25]);
    driver.kick(REQUEST_QUEUE);
    expect(received).toEqual([]);
    expect(device.counters.malformed).toBe(1);
  });
});

describe("addresses", () => {
  test.each([0, 1, 52, 54, 1023, 1031, 65536, 0x8000_0000, 0xffff_ffff])("nobody has address %i", (dst) => {
    const { driver, received, device } = boot();
    driver.send(PEER, dst, "lost");
    expect(received).toEqual([]);
    expect(device.counters).toMatchObject({ unknownAddress: 1, malformed: 0, messagesFromGuest: 0 });
    expect(driver.returned()).toEqual([0]);
  });

  test.each([0, 1, 1023, 65535, 65536, 0xffff_fffe])("an endpoint may have address %i", (address) => {
    const { driver, device } = boot();
    const { received } = openEndpoint(device, address);
    driver.send(7, address, "found");
    expect(received).toHaveLength(1);
  });

  test("a message from ANY is delivered and teaches nothing", () => {
    const { driver, device } = boot();
    const { endpoint, received } = openEndpoint(device, 2000);
    driver.send(0xffff_ffff, 2000, "anonymous");
    expect(received).toHaveLength(1);
    expect(endpoint.peer).toBeUndefined();
  });
});

test("without name service messages to 53 are counted and dropped", () => {
  const device = new RpmsgDevice({ onAnnounced: () => expect.unreachable() });
  const driver = new Driver(device, { nameService: false }).boot();
  driver.send(PEER, 53, nameServiceMessage("echo", PEER));
  expect(device.counters).toMatchObject({ nameServiceOff: 1, nameServiceMalformed: 0 });
  expect([...device.guestAnnouncements]).toEqual([]);
});

test("the handler's bytes are the guest's own where the payload lies in one piece", () => {
  const device = new RpmsgDevice();
  const driver = new Driver(device);
  let seen: Uint8Array | undefined;
  device.createEndpoint((_src, bytes) => {
    seen = bytes;
  }, LOCAL);
  driver.boot().send(PEER, LOCAL, "no copy");
  expect(seen).toBe(driver.window.u8);
});

test("a handler that throws does not stop the queue for good", () => {
  const device = new RpmsgDevice();
  let fail = true;
  device.createEndpoint(() => {
    if (fail) throw new Error("a fault of the handler");
  }, LOCAL);
  const { received } = openEndpoint(device, 2000);
  const driver = new Driver(device).boot();
  expect(() => driver.send(PEER, LOCAL, "bad luck")).toThrow("a fault of the handler");
  fail = false;
  driver.send(PEER, 2000, "next");
  expect(received.map(({ bytes }) => bytes.toString())).toEqual(["next"]);
});
