import { expect, test } from "vitest";
import {
  interfaceBlock,
  packetBlock,
  sectionBlock,
  statisticsBlock,
} from "../../../server/capture/pcapng.ts";

/** Bytes of annotated lines: hexadecimal digits before `//`. */
function bytes(lines: string): Buffer {
  return Buffer.from(lines.replaceAll(/\/\/.*$/gm, "").replaceAll(/\s/g, ""), "hex");
}

test("a section", () => {
  expect(sectionBlock("bridge", "two")).toEqual(
    bytes(`
      0a0d0d0a  // block type: section header
      34000000  // block length, 52
      4d3c2b1a  // byte order, here little endian
      0100 0000 // version 1.0
      ffffffffffffffff // section length: not known
      0100 0300 // comment, 3 bytes
      74776f 00 // "two", to a whole word
      0400 0600 // application, 6 bytes
      627269646765 0000 // "bridge"
      00000000  // end of options
      34000000  // block length again
    `),
  );
});

test("an interface", () => {
  expect(interfaceBlock("vm/tty", "four")).toEqual(
    bytes(`
      01000000  // block type: interface description
      34000000  // block length, 52
      9300 0000 // link type 147, reserved
      0f000100  // most of a packet: 16 + 65535
      0200 0600 // name, 6 bytes
      766d2f747479 0000 // "vm/tty"
      0300 0400 // description, 4 bytes
      666f7572  // "four"
      0900 0100 // resolution, 1 byte
      09 000000 // 10^-9 s
      00000000  // end of options
      34000000
    `),
  );
});

test.each([
  { toGuest: false, flags: "01000000" },
  { toGuest: true, flags: "02000000" },
])("a message, to the guest $toGuest", ({ toGuest, flags }) => {
  const packet = bytes("00040000 01040000 00000000 0500 0000 68656c6c6f");
  const facts = { interface: 3, time: 0x1122_3344_5566_7788n, toGuest, originalLength: 21, comments: ["ab"] };
  // What is behind the message in its buffer is not part of it.
  expect(packetBlock(facts, Buffer.concat([packet, bytes("ffffff")]), 21)).toEqual(
    bytes(`
      06000000  // block type: enhanced packet
      4c000000  // block length, 76
      03000000  // interface
      44332211  // time in nanoseconds, high half
      88776655  // low half
      15000000  // bytes here, 21
      15000000  // bytes that there were
      00040000  // RPMsg: source 1024
      01040000  // destination 1025
      00000000  // reserved
      0500 0000 // length, flags
      68656c6c6f 000000 // "hello", to a whole word
      0100 0200 // comment, 2 bytes
      6162 0000 // "ab"
      0200 0400 // flags, 4 bytes
      ${flags}  // inbound 1, outbound 2
      00000000  // end of options
      4c000000
    `),
  );
});

test("what was counted", () => {
  const start = 0x0000_0001_0000_0002n;
  const end = 0x0000_0003_0000_0004n;
  expect(statisticsBlock(2, { received: 10, dropped: 3 }, start, end)).toEqual(
    bytes(`
      05000000  // block type: interface statistics
      4c000000  // block length, 76
      02000000  // interface
      03000000  // time, high half
      04000000  // low half
      0200 0800 // start
      01000000 02000000
      0300 0800 // end
      03000000 04000000
      0400 0800 // received
      0a00000000000000
      0500 0800 // dropped
      0300000000000000
      00000000  // end of options
      4c000000
    `),
  );
});
