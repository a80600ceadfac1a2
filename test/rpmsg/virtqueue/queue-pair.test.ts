import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Part } from "../support/queue-model.ts";
import { QueuePair } from "../support/queue-model.ts";

/** Plain data, so that a counterexample can be read. */
type Operation =
  | readonly ["add", Part]
  | readonly ["addChain" | "addIndirect", readonly Part[]]
  | readonly ["complete", number]
  | readonly ["wantKicks" | "wantCalls", boolean]
  | readonly ["publishAvailable" | "peek" | "publishUsed" | "pop"];

const part: fc.Arbitrary<Part> = fc.record({
  length: fc.oneof(fc.nat(40), fc.constantFrom(0, 1, 16, 17, 64, 65, 100)),
  writable: fc.boolean(),
  shift: fc.nat(8),
});
const parts = fc.array(part, { minLength: 1, maxLength: 5 });

function one<Name extends Operation[0]>(name: Name): fc.Arbitrary<readonly [Name]> {
  return fc.constant([name] as const);
}

const operation: fc.Arbitrary<Operation> = fc.oneof(
  { weight: 4, arbitrary: fc.tuple(fc.constant("add" as const), part) },
  { weight: 4, arbitrary: fc.tuple(fc.constantFrom("addChain" as const, "addIndirect" as const), parts) },
  { weight: 4, arbitrary: one("publishAvailable") },
  { weight: 6, arbitrary: one("peek") },
  { weight: 6, arbitrary: fc.tuple(fc.constant("complete" as const), fc.constantFrom(0, 0.3, 0.7, 1, 1)) },
  { weight: 4, arbitrary: one("publishUsed") },
  { weight: 8, arbitrary: one("pop") },
  {
    weight: 6,
    arbitrary: fc.tuple(fc.constantFrom("wantKicks" as const, "wantCalls" as const), fc.boolean()),
  },
);

function perform(pair: QueuePair, [name, argument]: Operation): void {
  if (name === "add") pair.add(argument);
  else if (name === "addChain") pair.addChain(argument);
  else if (name === "addIndirect") pair.addIndirect(argument);
  else if (name === "complete") pair.complete(argument);
  else if (name === "wantKicks") pair.wantKicks(argument);
  else if (name === "wantCalls") pair.wantCalls(argument);
  else pair[name]();
}

/** An operation, often once, at times so often that large rings fill up and batches are published. */
const times = fc.oneof(
  { weight: 4, arbitrary: fc.constant(1) },
  { weight: 1, arbitrary: fc.integer({ min: 2, max: 70 }) },
);
const runs = fc.array(fc.tuple(operation, times), { maxLength: 200, size: "max" });

const size = fc.constantFrom(1, 2, 4, 8, 16, 32, 64);
/** Where the indexes begin: at 0, or so that they pass 65536 on the way, the second time round too. */
const start = fc.oneof(
  { weight: 2, arbitrary: fc.constant(0) },
  { weight: 1, arbitrary: fc.integer({ min: 65536 - 60, max: 65536 }) },
  { weight: 1, arbitrary: fc.integer({ min: 131072 - 60, max: 131072 }) },
);

describe("a driver queue and a device queue over one ring", () => {
  it.each([
    ["flags", false],
    ["EVENT_IDX", true],
  ])(
    "lose, double and change nothing, and no notification is lost, with %s",
    (_, eventIndex) => {
      let operations = 0;
      fc.assert(
        fc.property(size, start, runs, (entries, begin, sequence) => {
          const pair = new QueuePair(entries, eventIndex);
          pair.advance(begin);
          for (const [each, count] of sequence) {
            for (let i = 0; i < count; i++) perform(pair, each);
            operations += count;
          }
          pair.finish();
        }),
        { numRuns: 100 },
      );
      expect(operations).toBeGreaterThanOrEqual(10_000);
      // Some seconds of computing, and a multiple of that where coverage is measured or the machine is busy.
    },
    60_000,
  );

  it.each([true, false])("pass every one of 200,000 chains, with EVENT_IDX %s", (eventIndex) => {
    const pair = new QueuePair(16, eventIndex);
    pair.advance(200_000);
    pair.add({ length: 20, writable: false, shift: 0 });
    expect(() => pair.finish()).not.toThrow();
  });
});
