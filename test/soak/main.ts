/**
 * `npm run soak -- --minutes N [--seed S] [--json] [--write]`: a bridge under mixed load with faults for so long. With
 * `--write` the summary goes into docs/reliability.md, with `--json` everything comes on standard output. The exit code
 * is 1 when it has not passed.
 */
import { randomInt } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { describeMachine } from "../../bench/harness.ts";
import { soak } from "./soak.ts";
import { isPassed, summary, writeSummary } from "./summary.ts";

const PAGE = "docs/reliability.md";

const { values } = parseArgs({
  options: {
    minutes: { type: "string" },
    seed: { type: "string" },
    json: { type: "boolean", default: false },
    write: { type: "boolean", default: false },
  },
});
const minutes = Number(values.minutes);
const seed = Number(values.seed ?? randomInt(2 ** 32));
if (!(minutes > 0) || !Number.isInteger(seed)) {
  console.error("usage: npm run soak -- --minutes N [--seed S] [--json] [--write]");
  process.exit(2);
}
console.error(`${minutes} minutes, seed ${seed} ...`);
const result = await soak({ minutes, seed });
const note = `Run on ${new Date().toISOString().slice(0, 10)}, ${describeMachine()}.`;
console.log(values.json ? JSON.stringify(result, undefined, 1) : `${note}\n\n${summary(result)}`);
if (values.write) writeFileSync(PAGE, writeSummary(readFileSync(PAGE, "utf8"), result, note));
process.exit(isPassed(result) ? 0 : 1);
