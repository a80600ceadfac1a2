import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { interfaceFacts, interfaceTexts } from "../../../server/capture/interface-name.ts";
import {
  interfaceBlock,
  packetBlock,
  sectionBlock,
  statisticsBlock,
} from "../../../server/capture/pcapng.ts";
import type { CapturedItem } from "../../../server/capture/pcapng-reader.ts";
import { PcapngError, PcapngReader } from "../../../server/capture/pcapng-reader.ts";

const text = fc.string({ unit: "grapheme", maxLength: 20 });
const time = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const written = fc.oneof(
  fc.record({ kind: fc.constant("section" as const) }),
  fc.record({ kind: fc.constant("interface" as const), name: text, description: text }),
  fc.record({
    ...{ kind: fc.constant("message" as const), own: fc.nat(), time, toGuest: fc.boolean() },
    ...{
      packet: fc.uint8Array({ maxLength: 70 }),
      more: fc.nat(100),
      comments: fc.array(text, { maxLength: 3 }),
    },
  }),
  fc.record({
    kind: fc.constant("statistics" as const),
    own: fc.nat(),
    received: fc.nat(),
    dropped: fc.nat(),
  }),
);

/** What the reader is to find, without the bytes of the blocks. */
type Told = object;

/** Writes a file, and says what is in it. */
function write(steps: readonly (typeof written extends fc.Arbitrary<infer Step> ? Step : never)[]): {
  file: Buffer;
  told: Told[];
} {
  const blocks = [sectionBlock("", "")];
  const told: Told[] = [{ kind: "section" }];
  let names: string[] = [];
  for (const step of steps) {
    if (step.kind === "section") {
      names = [];
      blocks.push(sectionBlock("again", ""));
      told.push({ kind: "section" });
    } else if (step.kind === "interface") {
      const { kind, name, description } = step;
      blocks.push(interfaceBlock(name, description));
      told.push({ kind, id: names.push(name) - 1, name, description });
    } else if (names.length > 0) {
      const own = step.own % names.length;
      if (step.kind === "message") {
        const { kind, packet, more, toGuest, comments } = step;
        const originalLength = packet.length + more;
        const facts = { interface: own, time: step.time, toGuest, originalLength, comments };
        blocks.push(packetBlock(facts, packet, packet.length));
        const hex = Buffer.from(packet).toString("hex");
        told.push({
          kind,
          name: names[own],
          time: step.time,
          toGuest,
          originalLength,
          comments,
          packet: hex,
        });
      } else {
        const { kind, received, dropped } = step;
        blocks.push(statisticsBlock(own, { received, dropped }, 0n, 0n));
        told.push({ kind, name: names[own], received, dropped });
      }
    }
  }
  return { file: Buffer.concat(blocks), told };
}

function tell(item: CapturedItem): Told {
  switch (item.kind) {
    case "interface": {
      const { id, name, description } = item.interface;
      return { kind: item.kind, id, name, description };
    }
    case "message": {
      const { time: at, toGuest, originalLength, comments, packet } = item.message;
      const { name } = item.message.interface;
      const hex = packet.toString("hex");
      return { kind: item.kind, name, time: at, toGuest, originalLength, comments, packet: hex };
    }
    case "statistics": {
      const { kind, received, dropped } = item;
      return { kind, name: item.interface.name, received, dropped };
    }
    default:
      return { kind: item.kind };
  }
}

describe("what is written is read", () => {
  test("in pieces of any size, and the blocks are the file", () => {
    fc.assert(
      fc.property(
        fc.array(written, { maxLength: 12 }),
        fc.infiniteStream(fc.integer({ min: 1, max: 60 })),
        (steps, sizes) => {
          const { file, told } = write(steps);
          const reader = new PcapngReader();
          const items: CapturedItem[] = [];
          for (let at = 0; at < file.length; ) {
            const size = sizes.next().value as number;
            items.push(...reader.read(file.subarray(at, at + size)));
            at += size;
          }
          reader.end();
          expect(items.map(tell)).toEqual(told);
          expect(Buffer.concat(items.map(({ block }) => block))).toEqual(file);
        },
      ),
    );
  });

  test("cut anywhere, it is told, unless it is cut between blocks", () => {
    fc.assert(
      fc.property(fc.array(written, { maxLength: 6 }), fc.nat(), (steps, cut) => {
        const { file } = write(steps);
        const reader = new PcapngReader();
        const whole = reader.read(file).map(({ block }) => block.length);
        const ends = whole.map((_length, i) => whole.slice(0, i + 1).reduce((sum, each) => sum + each));
        const at = cut % file.length;
        const again = new PcapngReader();
        again.read(file.subarray(0, at));
        if (ends.includes(at)) again.end();
        else expect(() => again.end()).toThrow(PcapngError);
      }),
    );
  });

  test("any bytes are read, or refused as no pcapng", () => {
    const mutated = fc
      .tuple(fc.array(written, { maxLength: 6 }), fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 5 }))
      .map(([steps, changes]) => {
        const { file } = write(steps);
        for (const [at, value] of changes) file[at % file.length] = value;
        return file;
      });
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 100 }), mutated), (file) => {
        const reader = new PcapngReader();
        try {
          reader.read(file);
          reader.end();
        } catch (error) {
          expect(error).toBeInstanceOf(PcapngError);
        }
      }),
    );
  });
});

/** As Wireshark on a machine of the other byte order writes it: microseconds, without options. */
const BIG_ENDIAN = Buffer.from(
  [
    "0a0d0d0a 0000001c 1a2b3c4d 0001 0000 ffffffffffffffff 0000001c",
    "00000001 00000014 0093 0000 00000000 00000014",
    "00000006 00000034 00000000 00000000 00000007 00000011 00000011",
    "0004000001040000000000000100000068 000000 00000034",
  ]
    .join("")
    .replaceAll(" ", ""),
  "hex",
);

test("the other byte order, and microseconds where an interface says nothing", () => {
  const [, , item] = new PcapngReader().read(BIG_ENDIAN);
  expect(item).toMatchObject({
    kind: "message",
    message: { time: 7000n, toGuest: false, originalLength: 17, comments: [] },
  });
});

test.each([
  { what: "another link type", file: withLinkType(1), says: 'interface "x" has link type 1, not 147' },
  { what: "an interface that is not there", file: withInterface(7), says: "there is no interface 7" },
  {
    what: "a time that no clock has",
    file: withSeconds(8_640_000_000_001n),
    says: "a time after the year 275760",
  },
  { what: "a text", file: Buffer.from("hello, this is no capture"), says: "it is no pcapng" },
  {
    what: "a pcap of old",
    file: Buffer.from("d4c3b2a1020004000000000000000000", "hex"),
    says: "it is no pcapng",
  },
])("$what is refused", ({ file, says }) => {
  expect(() => new PcapngReader().read(file)).toThrow(says);
});

function withLinkType(type: number): Buffer {
  const own = interfaceBlock("x", "");
  own.writeUInt16LE(type, 8);
  return Buffer.concat([sectionBlock("", ""), own, packet(0)]);
}

function withInterface(id: number): Buffer {
  return Buffer.concat([sectionBlock("", ""), interfaceBlock("x", ""), packet(id)]);
}

function withSeconds(time: bigint): Buffer {
  const own = interfaceBlock("x", "");
  // The resolution: behind the head, the body, a name of one character and an empty description.
  own[8 + 8 + 8 + 4 + 4] = 0;
  return Buffer.concat([sectionBlock("", ""), own, packet(0, time)]);
}

function packet(id: number, time = 0n): Buffer {
  const facts = { interface: id, time, toGuest: true, originalLength: 16, comments: [] };
  return packetBlock(facts, Buffer.alloc(16), 16);
}

test("the last time that a clock has is read", () => {
  const [, , item] = new PcapngReader().read(withSeconds(8_640_000_000_000n));
  expect(item).toMatchObject({ message: { time: 8_640_000_000_000_000_000_000n } });
});

test("what an interface is about is read from its texts", () => {
  const name = fc.string({ unit: "grapheme", minLength: 1, maxLength: 31 });
  const endpoint = fc.record({ endpoint: name, origin: fc.constantFrom("guest" as const, "host" as const) });
  const none = fc.constant({ endpoint: undefined, origin: undefined });
  fc.assert(
    fc.property(fc.oneof(endpoint, none), fc.option(fc.nat(), { nil: undefined }), (about, address) => {
      const facts = { guest: "vm-0", ...about };
      expect(interfaceFacts(interfaceTexts(facts, address))).toEqual(facts);
    }),
  );
});
