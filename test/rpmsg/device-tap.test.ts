import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { REQUEST_QUEUE, RESPONSE_QUEUE, RpmsgDevice } from "../../rpmsg/device.ts";
import { readHeader } from "../../rpmsg/wire/header.ts";
import { Driver, message, nameServiceMessage } from "./support/device-driver.ts";

const PEER = 0x400;
const LOCAL = 1030;

interface Seen {
  toGuest: boolean;
  outcome: string;
  src: number;
  dst: number;
  packet: Buffer;
  originalLength: number;
}

function tapped(size = 64) {
  const device = new RpmsgDevice();
  const endpoint = device.createEndpoint(() => {}, LOCAL);
  const seen: Seen[] = [];
  device.tap = ({ packet, length, ...message }) =>
    seen.push({ ...message, packet: Buffer.from(packet.subarray(0, length)) });
  const driver = new Driver(device, { size }).boot(8);
  const queue = device.createSendQueue(endpoint, endpoint, {}, { limit: 65_536, timeout: 15_000 });
  return { device, seen, driver, queue };
}

describe("a tap sees what goes through the rings", () => {
  test("a message of the guest with all that its header says", () => {
    const { driver, seen } = tapped();
    const bytes = Buffer.from("00040000060400004433221103002211aabbcc", "hex");
    // Beyond the length there is nothing of the message.
    driver.offerBytes(Buffer.concat([bytes, Buffer.from("ffff", "hex")]));
    driver.kick(REQUEST_QUEUE);
    const [src, dst] = [PEER, LOCAL];
    const about = { toGuest: false, outcome: "passed", src, dst, originalLength: 19 };
    expect(seen).toEqual([{ ...about, packet: bytes }]);
  });

  test("the same in pieces that cut header and payload", () => {
    const { driver, seen } = tapped();
    const bytes = message(PEER, LOCAL, "in several pieces");
    driver.offerBytes(bytes, [3, 20]);
    driver.kick(REQUEST_QUEUE);
    expect(seen.map(({ packet, outcome }) => [packet, outcome])).toEqual([[Buffer.from(bytes), "passed"]]);
  });

  test("a message to the guest as it was written, and before what the guest answers", () => {
    const { driver, seen, queue } = tapped();
    expect(queue.send(PEER, Buffer.from("..hello"), 2, 5)).toBe("sent");
    driver.send(PEER, LOCAL, "back");
    expect(seen.map(({ toGuest, packet }) => [toGuest, packet.subarray(16).toString()])).toEqual([
      [true, "hello"],
      [false, "back"],
    ]);
    expect(readHeader(seen[0]?.packet ?? Buffer.alloc(16))).toEqual({
      ...{ src: LOCAL, dst: PEER, reserved: 0, len: 5, flags: 0 },
    });
  });

  test("name service both ways", () => {
    const { device, driver, seen } = tapped();
    driver.offer(1024, 53, nameServiceMessage("up", 1024));
    driver.kick(REQUEST_QUEUE);
    driver.kick(RESPONSE_QUEUE);
    device.announce("down", LOCAL);
    expect(seen.map(({ toGuest, dst, packet }) => [toGuest, dst, packet.length])).toEqual([
      [false, 53, 56],
      [true, 53, 56],
    ]);
  });

  test("what is dropped: to nobody, without a header, and with one that does not fit", () => {
    const { device, driver, seen } = tapped();
    driver.send(PEER, 9999, "nobody");
    driver.offerBytes(Buffer.from("short"));
    driver.offerBytes(Buffer.from("0004000006040000000000000900000078", "hex"));
    driver.kick(REQUEST_QUEUE);
    expect(
      seen.map(({ outcome, packet, originalLength }) => [outcome, packet.length, originalLength]),
    ).toEqual([
      ["unknown-address", 22, 22],
      ["malformed", 5, 5],
      ["malformed", 17, 17],
    ]);
    expect(device.counters).toMatchObject({ unknownAddress: 1, malformed: 2, messagesFromGuest: 0 });
  });

  test("of a malformed message longer than any, the beginning", () => {
    const { driver, seen } = tapped(256);
    const bytes = Buffer.alloc(70_000, 1);
    bytes.writeUInt16LE(0xffff, 12);
    // It is as long as its buffer says, and 65,535 of 69,984 bytes fit: no fault of the header.
    driver.offerBytes(bytes);
    driver.kick(REQUEST_QUEUE);
    expect(seen.map(({ packet, outcome }) => [packet.length, outcome])).toEqual([
      [65_551, "unknown-address"],
    ]);
  });

  test("nothing when it is taken away", () => {
    const { device, driver, seen } = tapped();
    device.tap = undefined;
    driver.send(PEER, LOCAL, "unseen");
    expect(seen).toEqual([]);
    expect(device.counters.messagesFromGuest).toBe(1);
  });

  test("as often as the counters say, whatever comes", () => {
    const step = fc.oneof(
      fc.record({ payload: fc.uint8Array({ maxLength: 40 }), to: fc.constantFrom(LOCAL, 53, 7777) }),
      fc.record({ raw: fc.uint8Array({ minLength: 1, maxLength: 40 }) }),
      fc.record({ send: fc.uint8Array({ maxLength: 40 }) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const { device, driver, seen, queue } = tapped();
        for (const each of steps) {
          if ("send" in each) queue.send(PEER, each.send, 0, each.send.length);
          else if ("raw" in each) driver.offerBytes(each.raw);
          else driver.offer(PEER, each.to, each.payload);
          driver.kick(REQUEST_QUEUE);
        }
        const count = (toGuest: boolean, outcome: string) =>
          seen.filter((one) => one.toGuest === toGuest && one.outcome === outcome).length;
        const bytes = (toGuest: boolean) =>
          seen
            .filter((one) => one.toGuest === toGuest && one.outcome === "passed")
            .reduce((sum, { packet }) => sum + packet.length - 16, 0);
        expect(device.counters).toMatchObject({
          messagesToGuest: count(true, "passed"),
          bytesToGuest: bytes(true),
          messagesFromGuest: count(false, "passed"),
          bytesFromGuest: bytes(false),
          malformed: count(false, "malformed"),
          unknownAddress: count(false, "unknown-address"),
        });
      }),
    );
  });
});
