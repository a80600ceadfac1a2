import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decodeNameService, encodeNameService, isServiceName } from "../../../rpmsg/wire/name-service.ts";

/** A name field: these bytes, then NULs up to 32. */
function field(...bytes: number[]): number[] {
  return [...bytes, ...Array.from({ length: 32 - bytes.length }, () => 0)];
}

const RAW = [0x72, 0x70, 0x6d, 0x73, 0x67, 0x2d, 0x72, 0x61, 0x77]; // "rpmsg-raw"

// char name[32]; u32 addr; u32 flags (rpmsg_ns.h: struct rpmsg_ns_msg)
const messages = [
  {
    title: "a create",
    // biome-ignore format: a field a line
    bytes: [
      ...field(...RAW),
      0x00, 0x04, 0x00, 0x00, // addr 1024
      0x00, 0x00, 0x00, 0x00, // flags: create
    ],
    message: { name: "rpmsg-raw", address: 1024, created: true },
  },
  {
    title: "a destroy",
    // biome-ignore format: a field a line
    bytes: [
      ...field(...RAW),
      0xfe, 0xff, 0xff, 0xff, // addr, the largest
      0x01, 0x00, 0x00, 0x00, // flags: destroy
    ],
    message: { name: "rpmsg-raw", address: 0xffff_fffe, created: false },
  },
  {
    title: "NuttX's CREATE_ACK as a create",
    // biome-ignore format: a field a line
    bytes: [
      ...field(0x61),
      0x35, 0x00, 0x00, 0x00, // addr 53
      0x02, 0x00, 0x00, 0x00, // flags: CREATE_ACK
    ],
    message: { name: "a", address: 53, created: true },
  },
  {
    title: "the lowest flag among others as a destroy",
    // biome-ignore format: a field a line
    bytes: [
      ...field(0x61),
      0x01, 0x00, 0x00, 0x00, // addr 1
      0x03, 0x00, 0x00, 0x80, // flags: everything and destroy
    ],
    message: { name: "a", address: 1, created: false },
  },
  {
    title: "a name of 32 bytes without a NUL, which ends at the address",
    // biome-ignore format: a field a line
    bytes: [
      ...Array.from({ length: 32 }, (_, i) => 0x41 + (i % 26)),
      0x42, 0x43, 0x44, 0x45, // addr: letters too
      0x00, 0x00, 0x00, 0x00, // flags: create
    ],
    message: { name: "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF", address: 0x45444342, created: true },
  },
  {
    title: "bytes after the first NUL, which are not part of the name",
    // biome-ignore format: a field a line
    bytes: [
      ...field(0x61, 0x00, 0x62, 0x63),
      0x01, 0x00, 0x00, 0x00, // addr 1
      0x00, 0x00, 0x00, 0x00, // flags: create
    ],
    message: { name: "a", address: 1, created: true },
  },
  {
    title: "a name that is no UTF-8, one character a byte",
    // biome-ignore format: a field a line
    bytes: [
      ...field(0xc3, 0x28, 0xff, 0x80, 0x0a, 0x7f),
      0x01, 0x00, 0x00, 0x00, // addr 1
      0x00, 0x00, 0x00, 0x00, // flags: create
    ],
    message: { name: "\u00c3(\u00ff\u0080\n\u007f", address: 1, created: true },
  },
  {
    title: "an empty name",
    bytes: [...field(), 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00],
    message: { name: "", address: 1, created: true },
  },
];

describe("name service", () => {
  it.each(messages)("decodes $title", ({ bytes, message }) => {
    expect(decodeNameService(Uint8Array.from(bytes), 0, 40)).toEqual(message);
    // The same in the middle of a larger buffer, unaligned, with letters around.
    const larger = new Uint8Array(60).fill(0x7a);
    larger.set(bytes, 7);
    expect(decodeNameService(larger, 7, 40)).toEqual(message);
  });

  it.each([0, 1, 16, 39, 41, 72, 496])("rejects a length of %d", (length) => {
    expect(decodeNameService(new Uint8Array(512), 0, length)).toBeUndefined();
  });

  it("encodes a create and a destroy", () => {
    expect([...encodeNameService({ name: "rpmsg-raw", address: 1024, created: true })]).toEqual(
      messages[0]?.bytes,
    );
    expect([...encodeNameService({ name: "rpmsg-raw", address: 0xffff_fffe, created: false })]).toEqual(
      messages[1]?.bytes,
    );
  });

  it("copies what it decodes: later changes of the bytes change nothing", () => {
    const bytes = Uint8Array.from(messages[0]?.bytes ?? []);
    const message = decodeNameService(bytes, 0, 40);
    bytes.fill(0xff);
    expect(message).toEqual({ name: "rpmsg-raw", address: 1024, created: true });
  });

  it("comes back as it was encoded", () => {
    const character = fc.integer({ min: 1, max: 255 }).map((code) => String.fromCharCode(code));
    fc.assert(
      fc.property(
        fc.string({ unit: character, maxLength: 32 }),
        fc.integer({ min: 0, max: 0xffff_ffff }),
        fc.boolean(),
        (name, address, created) => {
          const bytes = encodeNameService({ name, address, created });
          expect(bytes).toHaveLength(40);
          expect(decodeNameService(bytes, 0, 40)).toEqual({ name, address, created });
        },
      ),
    );
  });

  it("never throws, whatever the bytes, and never gives a name with a NUL", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 0, maxLength: 80 }), fc.nat(80), (bytes, offset) => {
        const length = Math.max(0, bytes.length - offset);
        const message = decodeNameService(bytes, offset, length);
        expect(message === undefined).toBe(length !== 40);
        expect(decodeNameService(bytes, 0, bytes.length) === undefined).toBe(bytes.length !== 40);
      }),
      { numRuns: 5_000 },
    );
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 40, maxLength: 40 }), (bytes) => {
        const message = decodeNameService(bytes, 0, 40);
        expect(message?.name).not.toContain("\0");
        expect(message?.name.length).toBeLessThanOrEqual(32);
        expect(message?.created).toBe(((bytes[36] ?? 0) & 1) === 0);
      }),
      { numRuns: 10_000 },
    );
  });

  it.each([
    ["one byte", "a", true],
    ["31 bytes", "x".repeat(31), true],
    ["bytes that are no ASCII", "\u0001\u00ff", true],
    ["nothing", "", false],
    ["32 bytes: Linux overwrites the last one", "x".repeat(32), false],
    ["a NUL", "a\0b", false],
    ["a character that is no byte", "\u0100", false],
    ["half of a surrogate pair", "\ud83d", false],
  ])("of our own may be called %s: %j is %s", (_, name, allowed) => {
    expect(isServiceName(name)).toBe(allowed);
  });
});
