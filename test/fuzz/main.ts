/**
 * `npm run fuzz -- --seconds N [--target NAME]... [--seed S]`: hostile input against what takes it, for as long as you
 * like. Exits with 1 after a finding, 2 for wrong arguments, 130 when it was broken off.
 */
import { randomInt } from "node:crypto";
import { inspect } from "node:util";
import type { FuzzResult, FuzzTarget } from "./fuzz-target.ts";
import { runTarget } from "./fuzz-target.ts";
import type { FuzzOptions } from "./options.ts";
import { fuzzOptions, USAGE } from "./options.ts";
import { targets } from "./targets.ts";
import { Watchdog } from "./watchdog.ts";

let interrupted = false;
process.once("SIGINT", () => {
  // The case that runs is finished and what there is is printed; a second one ends the process at once.
  interrupted = true;
});

process.on("uncaughtException", (error) => {
  // Of a callback of the case that runs, or of what an earlier one left: its own seed is not known.
  console.error("FINDING, outside of the case that runs", error);
  process.exit(1);
});

async function main(options: FuzzOptions): Promise<number> {
  const { seconds, cases, seed = randomInt(2 ** 32) } = options;
  const chosen = targets.filter(({ name }) => options.targets.includes(name));
  let findings = 0;
  for (const target of chosen) {
    const until = performance.now() + (seconds * 1000) / chosen.length;
    // Printed before, so that the seed is known even where a case takes the process with it.
    process.stdout.write(`${target.name.padEnd(16)} seed ${seed} `);
    const watchdog = await Watchdog.start(`npm run fuzz -- --target ${target.name}`);
    const result = await runTarget(target, seed, (done, next) => {
      watchdog.beat(next);
      return !interrupted && done < cases && performance.now() < until;
    });
    await watchdog.close();
    process.stdout.write(`${summary(result)}\n`);
    if (result.finding !== undefined) {
      findings++;
      reportFinding(target, result.finding, seed);
    }
    if (interrupted) return 130;
  }
  return findings === 0 ? 0 : 1;
}

/** Cases, rate, verdicts, and whether there was a finding: the rest of a target's line. */
function summary({ cases, outcomes, seconds, figures, finding }: FuzzResult): string {
  const accepted = outcomes.get("accepted") ?? 0;
  const codes = [...outcomes].filter(([outcome]) => outcome !== "accepted").toSorted((a, b) => b[1] - a[1]);
  const rejected = codes.map(([code, count]) => `${code} ${count}`).join(", ");
  const rate = (cases / seconds).toFixed(0);
  const verdict = finding === undefined ? "clean" : "FINDING";
  return `cases ${cases} (${rate}/s) accepted ${accepted} rejected ${cases - accepted}${rejected === "" ? "" : ` (${rejected})`} ${figures === "" ? "" : `${figures} `}${verdict}`;
}

function reportFinding(target: FuzzTarget, finding: NonNullable<FuzzResult["finding"]>, seed: number): void {
  const again = finding.seed === undefined ? `--seed ${seed}` : `--seed ${finding.seed}`;
  console.error(inspect(finding.error));
  console.error(`again: npm run fuzz -- --target ${target.name} ${again} --cases 1`);
}

let options: FuzzOptions | undefined;
try {
  options = fuzzOptions(
    process.argv.slice(2),
    targets.map(({ name }) => name),
  );
} catch (error) {
  console.error(`${error instanceof Error ? error.message : String(error)}\n\n${USAGE}`);
  process.exitCode = 2;
}
if (options !== undefined) process.exitCode = await main(options);
