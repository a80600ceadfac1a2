import { expect, test } from "vitest";
import { runTarget } from "./fuzz-target.ts";
import { targets } from "./targets.ts";

/** Any: the long form, `npm run fuzz`, takes another one each time. */
const SEED = 4;

test.each(targets)(
  "$name: $shortCases cases find nothing",
  async (target) => {
    const { cases, finding } = await runTarget(target, SEED, (done) => done < target.shortCases);
    if (finding !== undefined)
      throw new Error(`case ${finding.seed} of ${target.name}`, { cause: finding.error });
    expect(cases).toBe(target.shortCases);
    // Some seconds of computing, and a multiple of that where coverage is measured or the machine is busy.
  },
  60_000,
);
