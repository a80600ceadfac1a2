import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decodeDeviceConfig, encodeDeviceConfig } from "../../../rpmsg/wire/device-config.ts";

// u8 version; u16 size; u32 txbuf_size; u32 rxbuf_size, packed: the fields after the first are unaligned.
// biome-ignore format: a field a line
const CONFIG = [
  0x01, // version
  0x0b, 0x00, // size of the structure
  0x00, 0x02, 0x00, 0x00, // txbuf_size 512
  0x04, 0x03, 0x02, 0x81, // rxbuf_size, highest bit set
];
const decoded = { txBufferSize: 512, rxBufferSize: 0x81020304 };

describe("device configuration", () => {
  it("is 11 packed bytes", () => {
    expect([...encodeDeviceConfig(decoded)]).toEqual(CONFIG);
  });

  it("is decoded, at any place of a buffer", () => {
    expect(decodeDeviceConfig(Uint8Array.from(CONFIG))).toEqual(decoded);
    const larger = new Uint8Array(32).fill(0xee);
    larger.set(CONFIG, 3);
    expect(decodeDeviceConfig(larger.subarray(3, 14))).toEqual(decoded);
  });

  it("may be longer: a later structure begins with these fields", () => {
    expect(decodeDeviceConfig(Uint8Array.from([...CONFIG, 9, 9, 9]))).toEqual(decoded);
  });

  it.each([0, 1, 3, 7, 10])("is rejected with %d bytes", (length) => {
    expect(decodeDeviceConfig(Uint8Array.from(CONFIG.slice(0, length)))).toBeUndefined();
  });

  it("does not read behind a short view of a longer buffer", () => {
    expect(decodeDeviceConfig(Uint8Array.from(CONFIG).subarray(0, 10))).toBeUndefined();
  });

  it.each([0, 2, 255])("is rejected with version %d", (version) => {
    expect(decodeDeviceConfig(Uint8Array.from([version, ...CONFIG.slice(1)]))).toBeUndefined();
  });

  it("comes back as it was encoded", () => {
    const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
    fc.assert(
      fc.property(u32, u32, (txBufferSize, rxBufferSize) => {
        expect(decodeDeviceConfig(encodeDeviceConfig({ txBufferSize, rxBufferSize }))).toEqual({
          txBufferSize,
          rxBufferSize,
        });
      }),
    );
  });

  it("never throws, whatever the bytes", () => {
    const version = fc.constantFrom(0, 1, 1, 2);
    fc.assert(
      fc.property(version, fc.uint8Array({ maxLength: 24 }), (first, rest) => {
        const bytes = Uint8Array.of(first, ...rest);
        expect(decodeDeviceConfig(bytes) !== undefined).toBe(first === 1 && bytes.length >= 11);
      }),
      { numRuns: 10_000 },
    );
    expect(decodeDeviceConfig(new Uint8Array())).toBeUndefined();
  });
});
