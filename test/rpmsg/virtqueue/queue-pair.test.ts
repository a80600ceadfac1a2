import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Part } from "../support/queue-model.ts";
import { QueuePair } from "../support/queue-model.ts";

type Operation = (pair: QueuePair) => void;

const part: fc.Arbitrary<Part> = fc.record({
  length: fc.oneof(fc.nat(40), fc.constantFrom(0, 1, 16, 17, 64, 65, 100)),
  writable: fc.boolean(),
  shift: fc.nat(8),
});
const parts = fc.array(part, { minLength: 1, maxLength: 5 });

const once: fc.Arbitrary<Operation> = fc.oneof(
  {
    weight: 4,
    arbitrary: part.map(
      (each): Operation =>
        (pair) =>
          pair.add(each),
    ),
  },
  {
    weight: 2,
    arbitrary: parts.map(
      (each): Operation =>
        (pair) =>
          pair.addChain(each),
    ),
  },
  {
    weight: 2,
    arbitrary: parts.map(
      (each): Operation =>
        (pair) =>
          pair.addIndirect(each),
    ),
  },
  { weight: 4, arbitrary: fc.constant<Operation>((pair) => pair.publishAvailable()) },
  { weight: 6, arbitrary: fc.constant<Operation>((pair) => pair.peek()) },
  {
    weight: 6,
    arbitrary: fc.constantFrom(0, 0.3, 0.7, 1, 1).map(
      (share): Operation =>
        (pair) =>
          pair.complete(share),
    ),
  },
  { weight: 4, arbitrary: fc.constant<Operation>((pair) => pair.publishUsed()) },
  { weight: 8, arbitrary: fc.constant<Operation>((pair) => pair.pop()) },
  {
    weight: 3,
    arbitrary: fc.boolean().map(
      (wanted): Operation =>
        (pair) =>
          pair.wantKicks(wanted),
    ),
  },
  {
    weight: 3,
    arbitrary: fc.boolean().map(
      (wanted): Operation =>
        (pair) =>
          pair.wantCalls(wanted),
    ),
  },
);

/** Runs of one operation, so that large rings fill up and batches are published. */
const run = fc.tuple(
  once,
  fc.oneof(
    { weight: 4, arbitrary: fc.constant(1) },
    { weight: 1, arbitrary: fc.integer({ min: 2, max: 70 }) },
  ),
);

const size = fc.constantFrom(1, 2, 4, 8, 16, 32, 64);
/** Where the indexes begin: at 0, or so that they pass 65536 on the way, the second time round too. */
const start = fc.oneof(
  { weight: 2, arbitrary: fc.constant(0) },
  { weight: 1, arbitrary: fc.integer({ min: 65536 - 60, max: 65536 }) },
  { weight: 1, arbitrary: fc.integer({ min: 131072 - 60, max: 131072 }) },
);

describe("a driver queue and a device queue over one ring", () => {
  it.each([
    { eventIndex: false, title: "flags" },
    { eventIndex: true, title: "EVENT_IDX" },
  ])("lose, double and change nothing, and no notification is lost, with $title", ({ eventIndex }) => {
    let operations = 0;
    fc.assert(
      fc.property(
        size,
        start,
        fc.array(run, { minLength: 100, maxLength: 200, size: "max" }),
        (entries, begin, runs) => {
          const pair = new QueuePair(entries, eventIndex);
          pair.advance(begin);
          for (const [operation, times] of runs) {
            for (let i = 0; i < times; i++) {
              operation(pair);
              operations++;
            }
          }
          pair.finish();
        },
      ),
      { numRuns: 100 },
    );
    expect(operations).toBeGreaterThanOrEqual(10_000);
  });

  it.each([true, false])("pass every one of 200,000 chains, with EVENT_IDX %s", (eventIndex) => {
    const pair = new QueuePair(16, eventIndex);
    pair.advance(200_000);
    pair.add({ length: 20, writable: false, shift: 0 });
    pair.finish();
  });
});
