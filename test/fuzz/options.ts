import { parseArgs } from "node:util";
import { z } from "zod";

export const USAGE = `usage: npm run fuzz -- --seconds N [--target NAME]... [--seed S] [--cases N]

  --seconds N    how long in all, shared equally by the targets
  --target NAME  only this one; may be given several times
  --seed S       of the first case; chosen and printed if not given
  --cases N      most cases of a target: 1 with the seed of a finding runs that case again`;

/** What the command line asks for. */
export interface FuzzOptions {
  /** Infinity where only `cases` bounds the run. */
  seconds: number;
  targets: string[];
  seed: number | undefined;
  cases: number;
}

const whole = z.string().regex(/^\d+$/, "not a whole number").transform(Number);
const flags = z
  .strictObject({
    seconds: z.string().transform(Number).pipe(z.number().positive()).optional(),
    target: z.array(z.string()).default([]),
    seed: whole.pipe(z.int().max(0xffff_ffff)).optional(),
    cases: whole.pipe(z.int().positive()).optional(),
  })
  .refine(({ seconds, cases }) => seconds !== undefined || cases !== undefined, {
    error: "give --seconds, or --cases",
  });

/**
 * Reads the arguments of the command.
 * @param known names of the targets
 * @throws Error that says which argument is wrong
 */
export function fuzzOptions(args: readonly string[], known: readonly string[]): FuzzOptions {
  const { values } = parseArgs({
    args: [...args],
    options: {
      seconds: { type: "string" },
      target: { type: "string", multiple: true },
      seed: { type: "string" },
      cases: { type: "string" },
    },
  });
  const parsed = flags.safeParse(values);
  if (!parsed.success) throw new Error(z.prettifyError(parsed.error));
  const { seconds, target, seed, cases } = parsed.data;
  const unknown = target.find((name) => !known.includes(name));
  if (unknown !== undefined) throw new Error(`no target is called ${unknown}: there are ${known.join(", ")}`);
  return {
    seconds: seconds ?? Number.POSITIVE_INFINITY,
    targets: target.length === 0 ? [...known] : [...new Set(target)],
    seed,
    cases: cases ?? Number.POSITIVE_INFINITY,
  };
}
