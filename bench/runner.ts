import { median } from "./harness.ts";
import type { Sample } from "./scenario.ts";

export interface InterleaveOptions<Name extends string> {
  rounds: number;
  /** What to measure: each call is one measurement. */
  variants: Readonly<Record<Name, () => Promise<Sample>>>;
  /** Told of each measurement. */
  onMeasured?: (name: Name, round: number, sample: Sample) => void;
}

/** By variant: what each round gave, in the order of the rounds. */
export type Samples = Readonly<Record<string, readonly Sample[]>>;

/**
 * Measures variants in turn, round after round.
 *
 * On a machine with other work its speed drifts: a ratio within a round is worth more than one of two medians. Every
 * other round goes backwards, so that a steady drift favours no variant.
 */
export async function interleave<Name extends string>(
  options: InterleaveOptions<Name>,
): Promise<Record<Name, Sample[]>> {
  const { rounds, variants, onMeasured } = options;
  const names = Object.keys(variants) as Name[];
  const samples = Object.fromEntries(names.map((name) => [name, [] as Sample[]])) as Record<Name, Sample[]>;
  for (let round = 0; round < rounds; round++) {
    for (const name of round % 2 === 0 ? names : names.toReversed()) {
      const sample = await variants[name]();
      samples[name].push(sample);
      onMeasured?.(name, round, sample);
    }
  }
  return samples;
}

/** What rounds say of a figure: their median, the least and the greatest. */
export interface Spread {
  readonly median: number;
  readonly least: number;
  readonly most: number;
}

/**
 * A figure of a variant over the rounds; with `against`, its ratio to that variant's within each round.
 * @returns undefined where there is no such variant or figure
 */
export function spread(
  samples: Samples,
  figure: string,
  variant: string,
  against?: string,
): Spread | undefined {
  const others = against === undefined ? undefined : samples[against];
  const values = (samples[variant] ?? []).map((sample, round) => {
    const value = sample[figure] ?? Number.NaN;
    return against === undefined ? value : value / (others?.[round]?.[figure] ?? Number.NaN);
  });
  if (values.length === 0 || values.some(Number.isNaN)) return undefined;
  return { median: median(values), least: Math.min(...values), most: Math.max(...values) };
}
