import { describe, expect, it } from "vitest";
import { copyBytes } from "../../../rpmsg/memory/copy-bytes.ts";

describe("copyBytes", () => {
  // Both ways of copying, and the step from one to the other.
  it.each([0, 1, 15, 63, 64, 65, 66, 496, 4096])("copies %d bytes and touches nothing else", (length) => {
    const from = Uint8Array.from({ length: length + 10 }, (_, i) => (i * 13 + 5) & 0xff);
    const to = new Uint8Array(length + 20).fill(0xee);
    copyBytes(from, 3, to, 7, length);
    expect(to.subarray(0, 7).every((byte) => byte === 0xee)).toBe(true);
    expect(Buffer.compare(to.subarray(7, 7 + length), from.subarray(3, 3 + length))).toBe(0);
    expect(to.subarray(7 + length).every((byte) => byte === 0xee)).toBe(true);
  });
});
