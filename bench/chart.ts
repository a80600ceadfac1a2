import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { checkout } from "./harness.ts";
import type { ScenarioResult } from "./results.ts";
import type { Scenario } from "./scenario.ts";

/** A chart of a scenario as SVG: a bar a variant, the median of its rounds, and each round as a point. */
export function drawChart({ title, figure }: Scenario, { samples }: ScenarioResult): string {
  const values = Object.entries(samples).flatMap(([variant, rounds]) =>
    rounds.flatMap((sample, round) => {
      const value = sample[figure.name];
      return value === undefined ? [] : [{ variant, round, value }];
    }),
  );
  const x = { field: "value", type: "quantitative", title: figure.label, axis: { format: "~s" } };
  const y = { field: "variant", type: "nominal", title: null, sort: null };
  const spec = {
    $schema: "https://vega.github.io/schema/vega-lite/v6.json",
    title: { text: title, anchor: "start" },
    width: 520,
    height: { step: 34 },
    background: "white",
    data: { values },
    layer: [
      {
        mark: { type: "bar", height: 18, color: "#9ecae1" },
        encoding: { y, x: { ...x, aggregate: "median" } },
      },
      { mark: { type: "point", filled: true, size: 30, color: "#08519c" }, encoding: { y, x } },
      {
        mark: { type: "text", align: "left", dx: 6, dy: -13, fontSize: 10, color: "#333" },
        encoding: {
          y,
          x: { ...x, aggregate: "median" },
          text: { field: "value", type: "quantitative", aggregate: "median", format: ".3~s" },
        },
      },
    ],
    config: { font: "sans-serif", axis: { labelLimit: 240 } },
  };
  const script = join(checkout, "scripts/draw-chart.js");
  return execFileSync(process.execPath, [script], { input: JSON.stringify(spec), encoding: "utf8" });
}
