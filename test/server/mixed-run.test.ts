import { expect, test } from "vitest";
import { mixedRun } from "../support/mixed-run.ts";

/** Seconds of a run: more of them find more. */
const SECONDS = Number(process.env["RPMSG_MIXED_SECONDS"] ?? 5);
const SEED = Number(process.env["RPMSG_MIXED_SEED"] ?? Math.floor(Math.random() * 2 ** 32));

test(`clients of all kinds and a guest that is reset again and again lose nothing unseen (seed ${SEED})`, {
  timeout: SECONDS * 1000 + 60_000,
}, async () => {
  const figures = await mixedRun({ seconds: SECONDS, seed: SEED });
  if (process.env["RPMSG_MIXED_SECONDS"] !== undefined) console.log(JSON.stringify(figures, undefined, 1));
  expect(figures.problems).toEqual([]);
  // It was a mixed run: everything that can happen did.
  expect(figures.resets).toBeGreaterThan(0);
  const idle = Object.entries(figures.endpoints).filter(
    ([, { accepted, received }]) => accepted === 0 || received === 0,
  );
  expect(idle).toEqual([]);
});
