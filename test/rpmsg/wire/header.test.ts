import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { HEADER_SIZE, readHeader, writeHeader } from "../../../rpmsg/wire/header.ts";

const u32 = () => fc.integer({ min: 0, max: 0xffff_ffff });
const u16 = () => fc.integer({ min: 0, max: 0xffff });

// u32 src; u32 dst; u32 reserved; u16 len; u16 flags (virtio_rpmsg_bus.c: struct rpmsg_hdr)
const messages = [
  {
    name: "smallest values",
    // biome-ignore format: a field a line
    bytes: [
      0x00, 0x00, 0x00, 0x00, // src 0
      0x00, 0x00, 0x00, 0x00, // dst 0
      0x00, 0x00, 0x00, 0x00, // reserved
      0x00, 0x00, // len 0
      0x00, 0x00, // flags
    ],
    header: { src: 0, dst: 0, reserved: 0, len: 0, flags: 0 },
  },
  {
    name: "a name-service message of Linux",
    // biome-ignore format: a field a line
    bytes: [
      0x00, 0x04, 0x00, 0x00, // src 1024
      0x35, 0x00, 0x00, 0x00, // dst 53
      0x00, 0x00, 0x00, 0x00, // reserved
      0x28, 0x00, // len 40
      0x00, 0x00, // flags
    ],
    header: { src: 1024, dst: 53, reserved: 0, len: 40, flags: 0 },
  },
  {
    name: "every byte another one",
    // biome-ignore format: a field a line
    bytes: [
      0x01, 0x02, 0x03, 0x84, // src, highest bit set
      0x05, 0x06, 0x07, 0x88, // dst, highest bit set
      0x09, 0x0a, 0x0b, 0x8c, // reserved: rpmsg-lite and open-amp keep a buffer index here
      0x0d, 0x8e, // len
      0x0f, 0x90, // flags
    ],
    header: { src: 0x84030201, dst: 0x88070605, reserved: 0x8c0b0a09, len: 0x8e0d, flags: 0x900f },
  },
  {
    name: "largest values",
    bytes: Array.from({ length: 16 }, () => 0xff),
    header: { src: 0xffff_ffff, dst: 0xffff_ffff, reserved: 0xffff_ffff, len: 0xffff, flags: 0xffff },
  },
];

describe("header", () => {
  it.each(messages)("reads $name", ({ bytes, header }) => {
    expect(readHeader(Uint8Array.from(bytes))).toEqual(header);
  });

  it("is written with reserved and flags 0, over what was there", () => {
    const bytes = new Uint8Array(HEADER_SIZE).fill(0xee);
    writeHeader(bytes, 0, 0x84030201, 0x88070605, 0x8e0d);
    // biome-ignore format: a field a line
    expect([...bytes]).toEqual([
      0x01, 0x02, 0x03, 0x84, // src
      0x05, 0x06, 0x07, 0x88, // dst
      0x00, 0x00, 0x00, 0x00, // reserved
      0x0d, 0x8e, // len
      0x00, 0x00, // flags
    ]);
  });

  it("is written at any offset, and nothing around it", () => {
    for (let offset = 0; offset < 8; offset++) {
      const bytes = new Uint8Array(HEADER_SIZE + 8).fill(0xee);
      writeHeader(bytes, offset, 1, 2, 3);
      expect(bytes.subarray(0, offset).every((byte) => byte === 0xee)).toBe(true);
      expect(bytes.subarray(offset + HEADER_SIZE).every((byte) => byte === 0xee)).toBe(true);
      expect(readHeader(bytes, offset)).toEqual({ src: 1, dst: 2, reserved: 0, len: 3, flags: 0 });
    }
  });

  it("is read from a view in the middle of a buffer", () => {
    const outer = new Uint8Array(40).fill(0xee);
    const inner = outer.subarray(5, 30);
    writeHeader(inner, 3, 7, 8, 9);
    expect(readHeader(inner, 3)).toEqual({ src: 7, dst: 8, reserved: 0, len: 9, flags: 0 });
    expect(readHeader(outer, 8).src).toBe(7);
  });

  it("comes back as it was written", () => {
    fc.assert(
      fc.property(u32(), u32(), u16(), fc.nat(9), (src, dst, len, offset) => {
        const bytes = new Uint8Array(HEADER_SIZE + offset);
        writeHeader(bytes, offset, src, dst, len);
        expect(readHeader(bytes, offset)).toEqual({ src, dst, reserved: 0, len, flags: 0 });
      }),
    );
  });

  it("is read from any 16 bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: HEADER_SIZE, maxLength: 64 }), (bytes) => {
        const header = readHeader(bytes);
        const view = Buffer.from(bytes);
        expect(header.src).toBe(view.readUInt32LE(0));
        expect(header.dst).toBe(view.readUInt32LE(4));
        expect(header.len).toBe(view.readUInt16LE(12));
      }),
      { numRuns: 10_000 },
    );
  });
});
