import { expect, test } from "vitest";
import { FreeMemory } from "../../server/guests/free-memory.ts";

const MiB = 2 ** 20;
/** What is left after a trim. */
const LEFT = 50 * MiB;

/** Of these sizes of a process, one after another, those at which its free memory is given back. */
function trimmedAt(sizes: readonly number[]): number[] {
  let size = 0;
  const trimmed: number[] = [];
  const memory = new FreeMemory({
    resident: () => size,
    trim: () => {
      trimmed.push(size / MiB);
      size = LEFT;
    },
  });
  for (const each of sizes) {
    size = each * MiB;
    memory.look();
  }
  return trimmed;
}

test("memory is given back where the process has grown since the last time, and not where it has not", () => {
  expect(trimmedAt([80, 50, 57.9, 58, 50, 45, 120, 51])).toEqual([80, 58, 120]);
});
