/**
 * `npm run faults [-- NAME...] [--full] [--write]`: faults that the bridge is to survive, one after another, as a table.
 * With `--write` it goes into docs/reliability.md. The exit code is 1 when one has not passed.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { describeMachine } from "../../bench/harness.ts";
import { runScenario, scenarioNames } from "./run-scenario.ts";
import type { Result } from "./scenario.ts";
import { isPassed } from "./scenario.ts";
import { faultTable, writeFaultTable } from "./table.ts";

const PAGE = "docs/reliability.md";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { full: { type: "boolean", default: false }, write: { type: "boolean", default: false } },
});
const known = scenarioNames();
const unknown = positionals.filter((name) => !known.includes(name));
if (unknown.length > 0) {
  console.error(`there is no fault ${unknown.join(", ")}; there are ${known.join(", ")}`);
  process.exit(2);
}
const scale = values.full ? "full" : "short";
const results: Result[] = [];
for (const name of positionals.length === 0 ? known : positionals) {
  console.error(`${name} ...`);
  const result = await runScenario(name, scale);
  results.push(result);
  const verdict = result.skipped ?? (isPassed(result) ? "passed" : "failed");
  console.error(`${name}: ${verdict} in ${result.seconds.toFixed(1)} s`);
}
console.log(`${describeMachine()}\n\n${faultTable(results, scale)}`);
if (values.write) {
  const note = `Rows are measured one by one; the last time ${new Date().toISOString().slice(0, 10)},\n${describeMachine()}.`;
  writeFileSync(PAGE, writeFaultTable(readFileSync(PAGE, "utf8"), results, scale, note));
}
if (!results.every(isPassed)) process.exitCode = 1;
