import { randomInt } from "node:crypto";
import type { FuzzTarget } from "../fuzz/fuzz-target.ts";
import { runTarget } from "../fuzz/fuzz-target.ts";
import { count } from "../support/figures.ts";
import type { Scale, Scenario } from "./scenario.ts";

/** How much: cases, or seconds. */
type Amount =
  | { readonly cases: Readonly<Record<Scale, number>> }
  | { readonly seconds: Readonly<Record<Scale, number>> };

/** So much of a target of `npm run fuzz`. What has to hold, memory and descriptors too, the target itself checks. */
export function fuzzed(
  target: FuzzTarget,
  amount: Amount,
  texts: Pick<Scenario, "fault" | "passes">,
): Scenario {
  return {
    ...texts,
    async run(scale) {
      const seed = randomInt(2 ** 32);
      const start = performance.now();
      const more = (done: number): boolean =>
        "cases" in amount
          ? done < amount.cases[scale]
          : performance.now() - start < amount.seconds[scale] * 1000;
      const result = await runTarget(target, seed, more);
      const { finding, outcomes, seconds, figures } = result;
      const accepted = outcomes.get("accepted") ?? 0;
      return {
        measured:
          `${count(result.cases)} cases from seed ${seed} in ${seconds.toFixed(0)} s: ${count(accepted)} accepted, ` +
          `${count(result.cases - accepted)} refused${figures === "" ? "" : `; ${figures}`}`,
        problems: finding === undefined ? [] : [`seed ${finding.seed}: ${String(finding.error)}`],
      };
    },
  };
}
