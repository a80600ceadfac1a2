import { expect, test } from "vitest";
import { FreeMemory } from "../../server/guests/free-memory.ts";

const MiB = 2 ** 20;
/** What is left after a trim. */
const LEFT = 50 * MiB;

/**
 * Of these sizes of a process, one after another, those at which its free memory is given back.
 * @param left bytes after each time
 */
function trimmedAt(sizes: readonly number[], left = [LEFT]): number[] {
  let size = 0;
  const trimmed: number[] = [];
  const memory = new FreeMemory({
    resident: () => size,
    trim: () => {
      trimmed.push(size / MiB);
      // The last one from then on.
      size = (left.length > 1 ? left.shift() : left[0]) ?? LEFT;
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

test("where a look fell on a peak, and nothing was free, it is given back later, though the process grows no more", () => {
  expect(trimmedAt([120, 120, 119, 57], [120 * MiB, 120 * MiB, LEFT])).toEqual([120, 120, 119]);
});
