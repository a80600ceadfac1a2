import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { drawChart } from "../../bench/chart.ts";
import { writePage } from "../../bench/page.ts";
import type { Results, ScenarioResult } from "../../bench/results.ts";
import { compareResults, mergeResults, readResults } from "../../bench/results.ts";
import { interleave, spread } from "../../bench/runner.ts";
import type { Sample, Scenario } from "../../bench/scenario.ts";
import { scenarios } from "../../bench/scenarios/all.ts";
import { isGross, judge, shortVariants, targets } from "../../bench/targets.ts";

const NAME = "echo-16x64x16";

/** Messages a second by round. */
function echoResult(naive: readonly number[], bridge: readonly number[]): ScenarioResult {
  const samples = (values: readonly number[]) => values.map((perSecond) => ({ perSecond }));
  return {
    date: "2026-11-26T12:00:00.000Z",
    machine: "a machine",
    measureMs: 1000,
    notes: ["a note"],
    samples: { naive: samples(naive), bridge: samples(bridge) },
  };
}

function scenarioOf(name: string): Scenario {
  const found = scenarios.find((each) => each.name === name);
  if (found === undefined) throw new Error(`no scenario ${name}`);
  return found;
}

describe("rounds", () => {
  it("measure the variants in turn, every other round backwards", async () => {
    const calls: string[] = [];
    const measure = (name: string) => async (): Promise<Sample> => ({ call: calls.push(name) });
    const variants = { naive: measure("naive"), ours: measure("ours") };
    const samples = await interleave({ rounds: 3, variants });
    expect(calls).toEqual(["naive", "ours", "ours", "naive", "naive", "ours"]);
    expect(samples).toEqual({
      naive: [{ call: 1 }, { call: 4 }, { call: 5 }],
      ours: [{ call: 2 }, { call: 3 }, { call: 6 }],
    });
  });

  it("are compared one by one", () => {
    const { samples } = echoResult([100, 50, 200], [300, 200, 500]);
    expect(spread(samples, "perSecond", "bridge", "naive")).toEqual({ median: 3, least: 2.5, most: 4 });
    expect(spread(samples, "perSecond", "bridge")).toEqual({ median: 300, least: 200, most: 500 });
    expect(spread(samples, "perSecond", "bridge", "nobody")).toBeUndefined();
    expect(spread(samples, "p50us", "bridge", "naive")).toBeUndefined();
  });
});

describe("targets", () => {
  it("are all of scenarios that there are", () => {
    const names = new Set(scenarios.map(({ name }) => name));
    expect(targets.filter(({ scenario }) => !names.has(scenario))).toEqual([]);
    expect(names.size).toBe(scenarios.length);
  });

  it("say one bound each", () => {
    for (const { atLeast, atMost } of targets) expect([atLeast, atMost]).toContain(undefined);
    for (const { atLeast, atMost } of targets) expect(atLeast ?? atMost).toBeGreaterThan(0);
  });

  it.each([
    [450, "reached"],
    [449, "missed"],
    [225, "missed"],
    [224, "missed grossly"],
  ] as const)("of at least 4.5: %d to 100 is %s", (bridge, verdict) => {
    const { samples } = echoResult([100], [bridge]);
    expect(judge(NAME, samples).map((each) => each.verdict)).toEqual([verdict]);
  });

  it.each([
    [160, "reached"],
    [161, "missed"],
    [320, "missed"],
    [321, "missed grossly"],
  ] as const)("of at most 1.6: %d to 100 is %s", (p50us, verdict) => {
    const judgements = judge("echo-1x64x1", { naive: [{ p50us: 100 }], bridge: [{ p50us }] });
    expect(judgements.map((each) => each.verdict)).toEqual([verdict]);
  });
});

describe("the short form", () => {
  const short = scenarios.filter((each) => each.short === true).map(({ name }) => name);

  it("has something to compare in each of its scenarios", () => {
    expect(short.length).toBeGreaterThan(0);
    for (const name of short) expect(shortVariants(name).size).toBeGreaterThan(0);
  });

  it("measures what its targets compare", () => {
    const variants = shortVariants(NAME);
    expect([...variants].toSorted()).toEqual(["batched", "bridge"]);
    const samples = { batched: [{ perSecond: 100 }], bridge: [{ perSecond: 47 }] };
    expect(judge(NAME, samples)).toMatchObject([
      { target: { against: "batched" }, verdict: "missed grossly" },
    ]);
    expect([...shortVariants("device-queue-64")].toSorted()).toEqual([
      "request c",
      "request ts",
      "response ts",
    ]);
  });
});

describe("a gross miss", () => {
  it.each([
    [[249, 200, 100], true],
    [[250, 200, 100], false],
    [[600, 700, 800], false],
  ])("is one of all rounds: %j to 100 with at least 5", (rounds, gross) => {
    const samples = {
      loop: rounds.map(() => ({ perSecond: 100 })),
      bridge: rounds.map((perSecond) => ({ perSecond })),
    };
    expect(judge("fan-out-64", samples).map(isGross)).toEqual([gross]);
  });

  it("is none of a target that is not for the short form", () => {
    const { samples } = echoResult([100], [10]);
    expect(judge(NAME, samples).map((each) => [each.verdict, isGross(each)])).toEqual([
      ["missed grossly", false],
    ]);
  });

  it.each([
    [[1001, 1500, 2000], true],
    [[1000, 1500, 2000], false],
  ])("is one of all rounds: %j to 100 with at most 5", (rounds, gross) => {
    const samples = {
      "request c": rounds.map(() => ({ ns: 100 })),
      "request ts": rounds.map((ns) => ({ ns })),
    };
    expect(judge("device-queue-64", samples).map(isGross)).toEqual([gross]);
  });
});

describe("a comparison", () => {
  const base: Results = { [NAME]: echoResult([100, 100, 100], [500, 510, 490]) };

  it.each([
    ["nothing", [500, 505, 495], false],
    ["less than noise", [455, 455, 455], false],
    ["a loss in all rounds", [400, 410, 390], true],
    ["a loss in some rounds", [400, 510, 390], false],
    ["a gain", [900, 900, 900], false],
  ] as const)("of %s", (_what, bridge, regression) => {
    const changes = compareResults(base, { [NAME]: echoResult([100, 100, 100], bridge) });
    expect(changes.map((each) => each.regression)).toEqual([regression]);
  });

  it("is one of ratios: a slower machine is no regression", () => {
    const changes = compareResults(base, { [NAME]: echoResult([50, 50, 50], [250, 255, 245]) });
    expect(changes.map(({ change, regression }) => [change, regression])).toEqual([[1, false]]);
  });

  it("takes more latency for a loss", () => {
    const latencies = (p50us: number): Results => ({
      "echo-1x64x1": { ...echoResult([], []), samples: { naive: [{ p50us: 100 }], bridge: [{ p50us }] } },
    });
    expect(compareResults(latencies(100), latencies(150))[0]).toMatchObject({ regression: true });
    expect(compareResults(latencies(150), latencies(100))[0]).toMatchObject({ regression: false });
  });
});

describe("files of results", () => {
  const directory = mkdtempSync(join(tmpdir(), "rpmsg-bench-"));
  const file = join(directory, "results.json");
  afterAll(() => rmSync(directory, { recursive: true }));

  it("keep what was not measured again", () => {
    mergeResults(file, { one: echoResult([1], [2]), two: echoResult([1], [2]) });
    mergeResults(file, { two: echoResult([1], [3]) });
    expect(readResults(file)).toEqual({ one: echoResult([1], [2]), two: echoResult([1], [3]) });
  });

  it("are refused with what is wrong", () => {
    writeFileSync(file, JSON.stringify({ one: { date: "today" } }));
    expect(() => readResults(file)).toThrow(/results\.json has no results of the bench: [\s\S]*date/);
  });
});

describe("the page", () => {
  const markers =
    "before\n<!-- bench: written by npm run bench -- --write -->\nold\n<!-- bench: end -->\nafter\n";

  it("has targets, figures, the command, the machine and the date between its markers", () => {
    const page = writePage(markers, scenarios, { [NAME]: echoResult([100, 100], [400, 420]) });
    expect(page).toMatch(/^before\n<!--/);
    expect(page).toMatch(/-->\nafter\n$/);
    expect(page).not.toContain("old");
    expect(page).toMatch(
      /\| echo-16x64x16 \| bridge \/ naive: perSecond \| at least 4\.5 \| 4\.10 \(4\.00 to 4\.20\) \| \*\*missed\*\* +\|/,
    );
    expect(page).toMatch(/\| bridge +\| 410 +\|/);
    expect(page).toContain("- a note\n");
    expect(page).toContain("`npm run bench -- --only=echo-16x64x16`, 2 rounds, 2026-11-26,\na machine.\n");
    expect(page).toContain("](performance/echo-16x64x16.svg)");
  });

  it("says how long was measured where it was not the default", () => {
    const result = { ...echoResult([100], [400]), measureMs: 400 };
    const page = writePage(markers, scenarios, { [NAME]: result });
    expect(page).toContain("`npm run bench -- --only=echo-16x64x16 --measure=400`, 1 rounds, 2026-11-26,");
  });

  it("is refused without markers", () => {
    expect(() => writePage("nothing", scenarios, {})).toThrow("the page has no lines");
  });
});

it("a chart shows each variant and each round", () => {
  const svg = drawChart(scenarioOf(NAME), echoResult([100, 90, 110], [400, 410, 420]));
  expect(svg).toMatch(/^<svg /);
  expect(svg).toContain(">naive<");
  expect(svg).toContain(">bridge<");
  expect(svg).toContain(">messages a second<");
  expect(svg.match(/aria-roledescription="point"/g)).toHaveLength(6);
});
