import { describe, expect, it } from "vitest";
import type { GuestErrorCode } from "../../../rpmsg/errors.ts";
import { GuestError } from "../../../rpmsg/errors.ts";
import type { RawDescriptor, RawRingOptions } from "../support/raw-ring.ts";
import { GUEST_BASE, INDIRECT, MEMORY_SIZE, NEXT, offsetOf, RawRing, WRITE } from "../support/raw-ring.ts";

const TABLE = GUEST_BASE + offsetOf.tables;
const BUFFER = GUEST_BASE + offsetOf.buffers;
const END = GUEST_BASE + MEMORY_SIZE;
const SIZE = 8;

/** One readable descriptor. */
const simple: RawDescriptor = { address: BUFFER, length: 16 };

interface Rejection {
  name: string;
  code: GuestErrorCode;
  arrange: (ring: RawRing) => void;
  options?: RawRingOptions;
}

function indirect(ring: RawRing, entries: readonly RawDescriptor[], bytes = 16 * entries.length): void {
  ring.table(TABLE, entries);
  ring.chain([{ address: TABLE, length: bytes, flags: INDIRECT }]);
}

const indexes: Rejection[] = [
  {
    name: "an index of size + 1",
    code: "avail-index-jump",
    arrange: (ring) => ring.setAvailableIndex(SIZE + 1),
  },
  { name: "an index far ahead", code: "avail-index-jump", arrange: (ring) => ring.setAvailableIndex(0x8000) },
  {
    name: "an index that goes backwards",
    code: "avail-index-jump",
    arrange: (ring) => ring.setAvailableIndex(0xffff),
  },
  {
    name: "an index of size + 1 across the wrap",
    code: "avail-index-jump",
    arrange: (ring) => ring.setAvailableIndex((0xfffe + SIZE + 1) & 0xffff),
    options: { start: 0xfffe },
  },
  {
    name: "an index that goes backwards across the wrap",
    code: "avail-index-jump",
    arrange: (ring) => ring.setAvailableIndex(0xffff),
    options: { start: 1 },
  },
  { name: "a head of size", code: "descriptor-index", arrange: (ring) => ring.offer(SIZE) },
  { name: "a head of 65535", code: "descriptor-index", arrange: (ring) => ring.offer(0xffff) },
  {
    name: "a next of size",
    code: "descriptor-index",
    arrange: (ring) => {
      ring.describe(0, { ...simple, flags: NEXT, next: SIZE });
      ring.offer(0);
    },
  },
  {
    name: "a next of 65535",
    code: "descriptor-index",
    arrange: (ring) => {
      ring.describe(0, { ...simple, flags: NEXT, next: 0xffff });
      ring.offer(0);
    },
  },
];

const loops: Rejection[] = [
  {
    name: "a descriptor that is its own next",
    code: "chain-too-long",
    arrange: (ring) => {
      ring.describe(3, { ...simple, flags: NEXT, next: 3 });
      ring.offer(3);
    },
  },
  {
    name: "an empty descriptor that is its own next",
    code: "chain-too-long",
    arrange: (ring) => {
      ring.describe(3, { address: 0, length: 0, flags: NEXT, next: 3 });
      ring.offer(3);
    },
  },
  {
    name: "a cycle of two",
    code: "chain-too-long",
    arrange: (ring) => {
      ring.describe(1, { ...simple, flags: NEXT, next: 2 });
      ring.describe(2, { ...simple, flags: NEXT, next: 1 });
      ring.offer(1);
    },
  },
  {
    name: "a cycle behind a beginning, of writable ones",
    code: "chain-too-long",
    arrange: (ring) => {
      ring.describe(0, { ...simple, flags: NEXT, next: 1 });
      ring.describe(1, { ...simple, flags: NEXT | WRITE, next: 2 });
      ring.describe(2, { ...simple, flags: NEXT | WRITE, next: 1 });
      ring.offer(0);
    },
  },
  {
    name: "an indirect entry that is its own next",
    code: "chain-too-long",
    arrange: (ring) => indirect(ring, [{ ...simple, flags: NEXT, next: 0 }]),
  },
  {
    name: "a cycle of two in an indirect table",
    code: "chain-too-long",
    arrange: (ring) =>
      indirect(ring, [
        { ...simple, flags: NEXT, next: 1 },
        { ...simple, flags: NEXT, next: 0 },
      ]),
  },
  {
    name: "an indirect table with more entries in use than the queue has",
    code: "chain-too-long",
    arrange: (ring) =>
      indirect(
        ring,
        Array.from({ length: SIZE + 1 }, (_, i) => ({
          ...simple,
          flags: i === SIZE ? 0 : NEXT,
          next: i + 1,
        })),
      ),
  },
];

const tables: Rejection[] = [
  {
    name: "an indirect table that was not negotiated",
    code: "indirect-not-negotiated",
    arrange: (ring) => indirect(ring, [simple]),
    options: { indirect: false },
  },
  {
    name: "INDIRECT with NEXT",
    code: "indirect-with-next",
    arrange: (ring) => {
      ring.table(TABLE, [simple]);
      ring.describe(0, { address: TABLE, length: 16, flags: INDIRECT | NEXT, next: 1 });
      ring.describe(1, simple);
      ring.offer(0);
    },
  },
  {
    name: "an indirect table in an indirect table",
    code: "indirect-nested",
    arrange: (ring) => indirect(ring, [{ address: TABLE, length: 16, flags: INDIRECT }]),
  },
  {
    name: "the same at its second entry",
    code: "indirect-nested",
    arrange: (ring) =>
      indirect(ring, [
        { ...simple, flags: NEXT, next: 1 },
        { address: TABLE, length: 16, flags: INDIRECT },
      ]),
  },
  ...[0, 1, 15, 17, 31, 0xffff_ffff].map(
    (bytes): Rejection => ({
      name: `an indirect table of ${bytes} bytes`,
      code: "indirect-length",
      arrange: (ring) => indirect(ring, [simple], bytes),
    }),
  ),
  {
    name: "an indirect next behind its table, though within the queue's size",
    code: "descriptor-index",
    arrange: (ring) => indirect(ring, [{ ...simple, flags: NEXT, next: 2 }, simple]),
  },
  {
    name: "an indirect table out of memory",
    code: "descriptor-range",
    arrange: (ring) => ring.chain([{ address: END, length: 16, flags: INDIRECT }]),
  },
  {
    name: "an indirect table that leaves memory in its first entry",
    code: "descriptor-range",
    arrange: (ring) => ring.chain([{ address: END - 15, length: 16, flags: INDIRECT }]),
  },
  {
    name: "an indirect table that leaves memory where its chain goes on",
    code: "descriptor-range",
    arrange: (ring) => {
      ring.table(END - 16, [{ ...simple, flags: NEXT, next: 1 }]);
      ring.chain([{ address: END - 16, length: 32, flags: INDIRECT }]);
    },
  },
  {
    name: "an indirect table at the end of 64 bits",
    code: "descriptor-range",
    arrange: (ring) => ring.chain([{ address: 2n ** 64n - 16n, length: 32, flags: INDIRECT }]),
  },
];

const buffers: Rejection[] = [
  ["before memory", GUEST_BASE - 1, 1],
  ["that begins before memory", GUEST_BASE - 1, 2],
  ["that ends one byte behind memory", END - 15, 16],
  ["behind memory", END, 1],
  ["at 0", 0, 1],
  ["at a user address", 0x7f12_3400_0000, 16],
  ["as long as 32 bits allow", BUFFER, 0xffff_ffff],
  ["whose end wraps at 32 bits", 0xffff_fff0, 0x4000_1000],
  ["whose end wraps at 64 bits, into memory", 2n ** 64n - 16n, 0x4000_8020],
  ["at 2^63", 2n ** 63n, 16],
  ["of memory plus 2^32", BigInt(BUFFER) + 2n ** 32n, 16],
].map(
  ([name, address, length]): Rejection => ({
    name: `a buffer ${name}`,
    code: "descriptor-range",
    arrange: (ring) =>
      ring.chain([{ address: address as number | bigint, length: length as number, flags: WRITE }]),
  }),
);

const orders: Rejection[] = [
  {
    name: "a readable descriptor after a writable one",
    code: "descriptor-order",
    arrange: (ring) => ring.chain([{ ...simple, flags: WRITE }, simple]),
  },
  {
    name: "the same later in the chain, with an empty descriptor between",
    code: "descriptor-order",
    arrange: (ring) =>
      ring.chain([simple, { ...simple, flags: WRITE }, { address: 0, length: 0, flags: WRITE }, simple]),
  },
  {
    name: "an empty readable descriptor after a writable one",
    code: "descriptor-order",
    arrange: (ring) =>
      ring.chain([
        { ...simple, flags: WRITE },
        { address: 0, length: 0 },
      ]),
  },
  {
    name: "a readable descriptor after an empty writable one",
    code: "descriptor-order",
    arrange: (ring) => ring.chain([{ address: 0, length: 0, flags: WRITE }, simple]),
  },
  {
    name: "the same in an indirect table",
    code: "descriptor-order",
    arrange: (ring) => indirect(ring, [{ ...simple, flags: WRITE | NEXT, next: 1 }, simple]),
  },
];

describe("the device side of a queue rejects", () => {
  it.each([...indexes, ...loops, ...tables, ...buffers, ...orders])(
    "$name: $code",
    ({ code, arrange, options }) => {
      const ring = new RawRing({ size: SIZE, ...options });
      const queue = ring.device();
      arrange(ring);
      const before = ring.bytes.slice();
      expect(() => queue.peek()).toThrow(expect.objectContaining({ code, constructor: GuestError }));
      // Nothing is current, nothing given back, nothing written.
      expect(() => queue.complete(0)).toThrow(RangeError);
      expect(queue.position).toEqual({ base: ring.start, used: ring.start });
      expect(queue.publish()).toBe(false);
      expect(Buffer.compare(ring.bytes, before)).toBe(0);
      // It stays broken: the chain is not skipped.
      expect(() => queue.peek()).toThrow(GuestError);
    },
  );
});
