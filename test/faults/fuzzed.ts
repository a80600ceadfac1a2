import { randomInt } from "node:crypto";
import type { FuzzTarget } from "../fuzz/fuzz-target.ts";
import { runTarget } from "../fuzz/fuzz-target.ts";
import { count } from "../support/figures.ts";
import type { Scale, Scenario } from "./scenario.ts";

/** So many cases of a target of `npm run fuzz`. What has to hold, memory and descriptors too, the target itself checks. */
export function fuzzed(
  target: FuzzTarget,
  cases: Readonly<Record<Scale, number>>,
  texts: Pick<Scenario, "fault" | "passes">,
): Scenario {
  return {
    ...texts,
    async run(scale) {
      const seed = randomInt(2 ** 32);
      const result = await runTarget(target, seed, (done) => done < cases[scale]);
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
