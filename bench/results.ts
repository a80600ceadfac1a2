import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { z } from "zod";
import { spread } from "./runner.ts";
import type { Judgement } from "./targets.ts";
import { judge } from "./targets.ts";

const ScenarioResult = z.strictObject({
  /** When it was measured, and on what. */
  date: z.iso.datetime(),
  machine: z.string(),
  measureMs: z.number(),
  notes: z.array(z.string()),
  /** By variant, then by round: the figures by name. */
  samples: z.record(z.string(), z.array(z.record(z.string(), z.number()))),
});
export type ScenarioResult = z.infer<typeof ScenarioResult>;

/** What was measured, by the names of the scenarios: the form of every JSON file that the bench writes and reads. */
const Results = z.record(z.string(), ScenarioResult);
export type Results = z.infer<typeof Results>;

/** @throws {Error} the file is not there, or is none that the bench has written */
export function readResults(file: string): Results {
  const read = Results.safeParse(JSON.parse(readFileSync(file, "utf8")));
  if (!read.success) throw new Error(`${file} has no results of the bench: ${z.prettifyError(read.error)}`);
  return read.data;
}

/** Replaces those of the same scenarios in a file, and keeps the others. */
export function mergeResults(file: string, results: Results): Results {
  const merged = { ...(existsSync(file) ? readResults(file) : {}), ...results };
  writeFileSync(file, `${JSON.stringify(merged, undefined, 1)}\n`);
  return merged;
}

/** Four digits are more than a measurement is worth. */
export function rounded(value: number): number {
  return Number(value.toPrecision(4));
}

export interface Change {
  readonly judgement: Judgement;
  readonly before: number;
  readonly now: number;
  /** now / before where more is better, before / now where less is: below 1 it got worse. */
  readonly change: number;
  /** Worse by more than the limit, and so in most rounds: the best round now is worse than the median before. */
  readonly regression: boolean;
}

/** A change by less than this is not told from noise. */
const NOISE = 0.1;

/** Compares what both have of the targets' figures: ratios to a peer of the same run, where a target is one. */
export function compareResults(base: Results, results: Results): Change[] {
  return Object.entries(results).flatMap(([name, { samples }]) => {
    const before = base[name];
    if (before === undefined) return [];
    return judge(name, samples).flatMap((judgement): Change[] => {
      const { figure, variant, against, atLeast } = judgement.target;
      const old = spread(before.samples, figure, variant, against);
      if (old === undefined) return [];
      const { reached } = judgement;
      const more = atLeast !== undefined;
      const change = more ? reached.median / old.median : old.median / reached.median;
      const best = more ? reached.most : reached.least;
      const worse = more ? best < old.median : best > old.median;
      const regression = change < 1 - NOISE && worse;
      return [{ judgement, before: old.median, now: reached.median, change, regression }];
    });
  });
}
