import { expect, test } from "vitest";
import { soak } from "./soak.ts";

/** Of a run: `npm run soak` takes longer ones, and has a look at memory, which a short one tells nothing of. */
const MINUTES = Number(process.env["RPMSG_SOAK_MINUTES"] ?? 1);
const SEED = Number(process.env["RPMSG_SOAK_SEED"] ?? Math.floor(Math.random() * 2 ** 32));

// Needs `npm run build`.
test(`${MINUTES} minutes of mixed load with faults lose nothing unseen and leave nothing (seed ${SEED})`, {
  timeout: MINUTES * 60_000 + 120_000,
}, async () => {
  const { problems, mixed, visitors, descriptors } = await soak({ minutes: MINUTES, seed: SEED });
  expect(problems).toEqual([]);
  expect(descriptors.after).toBeLessThanOrEqual(descriptors.before);
  // Everything that can happen did.
  for (const figure of [...Object.values(visitors), mixed.resets, mixed.pauses]) {
    expect(figure).toBeGreaterThan(0);
  }
});
