import { formatTable, median } from "./harness.ts";
import type { Change, Results, ScenarioResult } from "./results.ts";
import { rounded } from "./results.ts";
import { spread } from "./runner.ts";
import type { Scenario } from "./scenario.ts";
import type { Judgement, Target } from "./targets.ts";
import { judge } from "./targets.ts";

function text(value: number): string {
  if (!Number.isFinite(value)) return "";
  const size = Math.abs(value);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2);
}

function describe({ figure, variant, against }: Target): string {
  return against === undefined ? `${variant}: ${figure}` : `${variant} / ${against}: ${figure}`;
}

function wanted({ atLeast, atMost, unit }: Target): string {
  const bound = atLeast === undefined ? `at most ${atMost}` : `at least ${atLeast}`;
  return unit === undefined ? bound : `${bound} ${unit}`;
}

function targetRow({ target, reached, verdict }: Judgement): Record<string, string> {
  const { unit } = target;
  const figure = `${text(reached.median)}${unit === undefined ? "" : ` ${unit}`}`;
  return {
    scenario: target.scenario,
    figure: describe(target),
    wanted: wanted(target),
    reached: `${figure} (${text(reached.least)} to ${text(reached.most)})`,
    verdict: verdict === "reached" ? verdict : `**${verdict}**`,
  };
}

/** Each target with what was reached: the median over the rounds, the least and the greatest. */
export function targetTable(names: readonly string[], results: Results): string {
  const judgements = names.flatMap((name) => judge(name, results[name]?.samples ?? {}));
  return judgements.length === 0 ? "" : formatTable(judgements.map(targetRow));
}

/** All figures of a scenario: a row a variant, medians over the rounds. */
export function figureTable({ samples }: ScenarioResult): string {
  const names = [...new Set(Object.values(samples).flatMap((rounds) => rounds.flatMap(Object.keys)))];
  return formatTable(
    Object.entries(samples).map(([variant]) => ({
      variant,
      ...Object.fromEntries(
        names.map((name) => {
          const found = spread(samples, name, variant);
          return [name, found === undefined ? "" : text(found.median)];
        }),
      ),
    })),
  );
}

export function changeTable(changes: readonly Change[]): string {
  return formatTable(
    changes.map(({ judgement: { target }, before, now, change, regression }) => ({
      scenario: target.scenario,
      figure: describe(target),
      before: text(before),
      now: text(now),
      change: `${change >= 1 ? "+" : ""}${((change - 1) * 100).toFixed(0)} %`,
      verdict: regression ? "**regression**" : "",
    })),
  );
}

/** How long a variant is measured in a round where the command line does not say. */
export const MEASURE_MS = 1000;
const BEGIN = "<!-- bench: written by npm run bench -- --write -->\n";
const END = "<!-- bench: end -->\n";

/**
 * Puts results into a page, between its markers.
 * @throws {Error} the page has no markers
 */
export function writePage(page: string, scenarios: readonly Scenario[], results: Results): string {
  const begin = page.indexOf(BEGIN);
  const end = page.indexOf(END);
  if (begin < 0 || end < begin) throw new Error(`the page has no lines ${BEGIN}and ${END}`);
  const measured = scenarios.filter(({ name }) => results[name] !== undefined);
  const parts = measured.map(({ name, title }) => {
    const result = results[name] as ScenarioResult;
    const rounds = median(Object.values(result.samples).map((each) => each.length));
    const notes = result.notes.map((note) => `- ${note}\n`).join("");
    const measure = result.measureMs === MEASURE_MS ? "" : ` --measure=${result.measureMs}`;
    return [
      `### ${title}\n`,
      `![${title}](performance/${name}.svg)\n`,
      figureTable(result),
      ...(notes === "" ? [] : [notes]),
      `\`npm run bench -- --only=${name}${measure}\`, ${rounds} rounds, ${result.date.slice(0, 10)},`,
      `${result.machine}.\n`,
    ].join("\n");
  });
  const table = targetTable(
    measured.map(({ name }) => name),
    results,
  );
  const body = ["", "## Targets\n", table, "## Scenarios\n", ...parts].join("\n");
  return `${page.slice(0, begin + BEGIN.length)}${body}\n${page.slice(end)}`;
}

/** What is kept of samples: figures without false digits. */
export function roundedSamples(samples: ScenarioResult["samples"]): ScenarioResult["samples"] {
  return Object.fromEntries(
    Object.entries(samples).map(([variant, rounds]) => [
      variant,
      rounds.map((sample) =>
        Object.fromEntries(
          Object.entries(sample)
            .filter(([, value]) => Number.isFinite(value))
            .map(([name, value]) => [name, rounded(value)]),
        ),
      ),
    ]),
  );
}
