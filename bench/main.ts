/**
 * `npm run bench [-- OPTIONS]`: scenarios in turns with their peers, as ratios within each round.
 *
 * --only=NAME,...     scenarios of these names, or whose names begin so
 * --rounds=N          default 7
 * --measure=MS        of one measurement, default 1000
 * --short             a few scenarios in a short time; fails where a target is missed by more than a factor of two in all rounds
 * --json=FILE         what was measured, into a file
 * --compare=FILE      shows what changed since such a file was written; fails at a regression
 * --write             puts what was measured into docs/performance.md, with charts, beside what is there
 * --list              the names
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { drawChart } from "./chart.ts";
import { checkout, describeMachine } from "./harness.ts";
import { changeTable, figureTable, MEASURE_MS, roundedSamples, targetTable, writePage } from "./page.ts";
import type { Results, ScenarioResult } from "./results.ts";
import { compareResults, mergeResults, readResults } from "./results.ts";
import { interleave } from "./runner.ts";
import type { BenchOptions, Scenario } from "./scenario.ts";
import { scenarios } from "./scenarios/all.ts";
import { isGross, judge, shortVariants } from "./targets.ts";

const PAGE = join(checkout, "docs/performance.md");
const DIRECTORY = join(checkout, "docs/performance");
const RESULTS = join(DIRECTORY, "results.json");

const { values } = parseArgs({
  options: {
    only: { type: "string", default: "" },
    rounds: { type: "string" },
    measure: { type: "string" },
    short: { type: "boolean", default: false },
    json: { type: "string" },
    compare: { type: "string" },
    write: { type: "boolean", default: false },
    list: { type: "boolean", default: false },
  },
});
const rounds = Number(values.rounds ?? (values.short ? 3 : 7));
const options: BenchOptions = { measureMs: Number(values.measure ?? (values.short ? 300 : MEASURE_MS)) };
const prefixes = values.only.split(",");
/** A whole name is that scenario alone: echo-16x64x1 is not echo-16x64x16, too. */
const isNamed = (name: string, prefix: string) =>
  scenarios.some((each) => each.name === prefix) ? name === prefix : name.startsWith(prefix);
const chosen = scenarios.filter(
  ({ name, short = false }) =>
    prefixes.some((prefix) => isNamed(name, prefix)) && (short || !values.short || values.only !== ""),
);
if (!(Number.isInteger(rounds) && rounds > 0 && options.measureMs > 0) || chosen.length === 0) {
  const names = scenarios.map(({ name }) => name).join(", ");
  console.error(`bench: --rounds and --measure are numbers above 0, --only one or more of: ${names}`);
  process.exit(2);
}
if (values.list) {
  console.log(chosen.map(({ name, title }) => `${name.padEnd(20)} ${title}`).join("\n"));
  process.exit(0);
}
const base = values.compare === undefined ? undefined : readResults(values.compare);

async function run(scenario: Scenario): Promise<ScenarioResult | undefined> {
  const { name, title } = scenario;
  console.log(`## ${name}: ${title}\n`);
  const missing = scenario.missing?.();
  if (missing !== undefined) {
    console.log(`Not here: ${missing}\n`);
    return undefined;
  }
  const machine = describeMachine();
  const running = await scenario.start(options);
  try {
    const compared = shortVariants(name);
    const variants = Object.entries(running.variants).filter(([each]) => !values.short || compared.has(each));
    const samples = await interleave({
      rounds,
      variants: Object.fromEntries(variants),
      onMeasured: (variant, round) => process.stderr.write(`round ${round + 1}, ${variant}\n`),
    });
    const notes = running.notes?.() ?? [];
    const date = new Date().toISOString();
    const result = { date, machine, measureMs: options.measureMs, notes, samples: roundedSamples(samples) };
    console.log([figureTable(result), ...notes, targetTable([name], { [name]: result })].join("\n"));
    return result;
  } finally {
    await running.stop();
  }
}

/** After each scenario: a long run that is ended leaves what it has measured. */
function write(scenario: Scenario, result: ScenarioResult): void {
  mkdirSync(DIRECTORY, { recursive: true });
  const all = mergeResults(RESULTS, { [scenario.name]: result });
  writeFileSync(join(DIRECTORY, `${scenario.name}.svg`), drawChart(scenario, result));
  writeFileSync(PAGE, writePage(readFileSync(PAGE, "utf8"), scenarios, all));
}

const hasFailed = ({ name }: Scenario, { samples }: ScenarioResult) => judge(name, samples).some(isGross);

/** Once more where it fails or breaks off: a machine that was busy with something else for a moment is no regression. */
async function runTwice(scenario: Scenario): Promise<ScenarioResult | undefined> {
  try {
    const result = await run(scenario);
    if (result === undefined || !hasFailed(scenario, result)) return result;
  } catch (error) {
    console.error(error);
  }
  return run(scenario);
}

console.log(`${describeMachine()}\n`);
const results: Results = {};
let failed = false;
for (const scenario of chosen) {
  const { name } = scenario;
  const result = values.short ? await runTwice(scenario) : await run(scenario);
  if (result === undefined) continue;
  results[name] = result;
  if (values.write) write(scenario, result);
  failed ||= values.short && hasFailed(scenario, result);
}
if (chosen.length > 1) console.log(targetTable(Object.keys(results), results));
if (base !== undefined) {
  const changes = compareResults(base, results);
  console.log(`Since ${values.compare}:\n\n${changeTable(changes)}`);
  failed ||= changes.some(({ regression }) => regression);
}
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(results, undefined, 1)}\n`);
process.exit(failed ? 1 : 0);
