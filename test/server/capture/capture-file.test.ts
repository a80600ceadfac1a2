import { readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import {
  interfaceBlock,
  packetBlock,
  sectionBlock,
  statisticsBlock,
} from "../../../server/capture/pcapng.ts";
import type { CapturedItem } from "../../../server/capture/pcapng-reader.ts";
import { PcapngReader } from "../../../server/capture/pcapng-reader.ts";
import { CaptureFile } from "../../../server/cli/capture-file.ts";
import { testDirectory } from "../support.ts";

const head = [sectionBlock("", ""), interfaceBlock("vm/a", ""), interfaceBlock("vm/b", "")];

/** A message of the interface, with a number. */
function message(id: number, number: number): Buffer {
  const packet = Buffer.alloc(16);
  packet.writeUInt32LE(number, 0);
  const facts = { interface: id, time: BigInt(number), toGuest: true, originalLength: 16, comments: [] };
  return packetBlock(facts, packet, 16);
}

function items(...blocks: Buffer[]): CapturedItem[] {
  return new PcapngReader().read(Buffer.concat(blocks));
}

function readWhole(path: string): CapturedItem[] {
  const reader = new PcapngReader();
  const read = reader.read(readFileSync(path));
  reader.end();
  return read;
}

function numbersIn(read: readonly CapturedItem[]): number[] {
  return read.flatMap((item) => (item.kind === "message" ? [item.message.packet.readUInt32LE(0)] : []));
}

test("files of any size have all messages, in order, and each its interfaces", () => {
  const property = fc.property(
    fc.array(fc.nat(1), { maxLength: 30 }),
    fc.integer({ min: 1, max: 1000 }),
    (ids, fileSize) => {
      const directory = testDirectory();
      const tell = () => {};
      const file = new CaptureFile({ path: join(directory, "x"), fileSize, onFull: "stop", tell });
      const blocks = ids.map((id, number) => message(id, number));
      for (const item of items(...head, ...blocks)) file.write(item);
      file.finish();
      const numbers: number[] = [];
      for (let i = 1; numbers.length < ids.length || i === 1; i++) {
        const read = readWhole(join(directory, `x-${String(i).padStart(5, "0")}`));
        numbers.push(...numbersIn(read));
        const interfaces = read.filter(({ kind }) => kind === "interface");
        expect(interfaces).toHaveLength(2);
        expect(read.slice(-2).map(({ kind }) => kind)).toEqual(["statistics", "statistics"]);
      }
      expect(numbers).toEqual(ids.map((_id, number) => number));
    },
  );
  fc.assert(property, { numRuns: 30 });
});

test("a file has as many messages as its size says, however many interfaces it begins with", () => {
  const path = join(testDirectory(), "x");
  const each = message(0, 0).length;
  const file = new CaptureFile({ path, fileSize: 4 * each, onFull: "stop", tell: () => {} });
  const many = Array.from({ length: 50 }, (_, i) => interfaceBlock(`vm/${i}`, ""));
  const blocks = Array.from({ length: 8 }, (_, number) => message(0, number));
  for (const item of items(sectionBlock("", ""), ...many, ...blocks)) file.write(item);
  file.finish();
  expect(numbersIn(readWhole(`${path}-00001`))).toEqual([0, 1, 2, 3]);
  expect(numbersIn(readWhole(`${path}-00002`))).toEqual([4, 5, 6, 7]);
});

test("what the bridge has left out is in the file's own counts", () => {
  const path = join(testDirectory(), "a.pcapng");
  const file = new CaptureFile({ path, onFull: "stop", tell: () => {} });
  const counted = statisticsBlock(0, { received: 5, dropped: 4 }, 0n, 0n);
  for (const item of items(...head, message(0, 1), counted, message(0, 2), message(1, 3))) file.write(item);
  file.finish();
  const read = readWhole(path);
  expect(numbersIn(read)).toEqual([1, 2, 3]);
  const statistics = read.flatMap((item) =>
    item.kind === "statistics" ? [[item.interface.name, item.received, item.dropped]] : [],
  );
  expect(statistics.slice(-2)).toEqual([
    ["vm/a", 6, 4],
    ["vm/b", 1, 0],
  ]);
  expect(file.counts).toMatchObject({ messages: 3, dropped: 4 });
});

test("what was in a file before is gone when the first block comes", () => {
  const path = join(testDirectory(), "a.pcapng");
  writeFileSync(path, Buffer.concat([...head, message(0, 7)]));
  const file = new CaptureFile({ path, onFull: "stop", tell: () => {} });
  expect(numbersIn(readWhole(path))).toEqual([7]);
  for (const item of items(...head, message(0, 1))) file.write(item);
  file.finish();
  expect(numbersIn(readWhole(path))).toEqual([1]);
});

test("where the disk is full, the file is named in which it is, and what is not there not counted", () => {
  const path = join(testDirectory(), "x");
  symlinkSync("/dev/full", `${path}-00002`);
  const file = new CaptureFile({ path, fileSize: 1, onFull: "stop", tell: () => {} });
  const all = items(...head, message(0, 1), message(0, 2));
  for (const item of all.slice(0, -1)) file.write(item);
  const last = all.at(-1) as CapturedItem;
  expect(() => file.write(last)).toThrow(`${path}-00002 is complete up to there`);
  file.finish();
  expect(numbersIn(readWhole(`${path}-00001`))).toEqual([1]);
  expect(file.counts).toMatchObject({ messages: 1, dropped: 1 });
});

test("another section, as of a bridge that was started again, has interfaces of its own", () => {
  const path = join(testDirectory(), "a.pcapng");
  const file = new CaptureFile({ path, onFull: "stop", tell: () => {} });
  for (const item of items(...head, message(1, 1), ...head.slice(0, 2), message(0, 2))) file.write(item);
  file.finish();
  expect(numbersIn(readWhole(path))).toEqual([1, 2]);
});
