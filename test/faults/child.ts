/** The process of one scenario: `child.js NAME SCALE`. It tells its parent the result. */
import type { Outcome, Result, Scale, Scenario } from "./scenario.ts";

const [, , name, scale] = process.argv as [string, string, string, Scale];
const { scenario } = (await import(`./scenarios/${name}.js`)) as { scenario: Scenario };
const start = performance.now();
const outcome = await scenario.run(scale).catch((error: unknown): Outcome => {
  console.error(error);
  return { measured: "it broke off", problems: [error instanceof Error ? error.message : String(error)] };
});
const { fault, passes } = scenario;
const seconds = (performance.now() - start) / 1000;
const result: Result = { name, fault, passes, ...outcome, seconds };
process.send?.(result, () => process.exit());
