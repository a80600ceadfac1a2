import { expect, test } from "vitest";
import { runScenario, scenarioNames } from "./run-scenario.ts";

// What `npm run faults` measures, in a small form, and without a look at the clock. Needs `npm run build`.
test.for(scenarioNames())("%s", { timeout: 240_000 }, async (name, { skip }) => {
  const { problems, skipped } = await runScenario(name, "test");
  if (skipped !== undefined) skip(skipped);
  expect(problems).toEqual([]);
});
