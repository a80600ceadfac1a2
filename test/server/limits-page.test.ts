import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import type { Rate } from "../../schemas/index.ts";
import { Config } from "../../schemas/index.ts";
import { countedLimits } from "../../server/counted-limits.ts";

const page = readFileSync(new URL("../../docs/limits.md", import.meta.url), "utf8");
const rows = [...page.matchAll(/^\| `(\w+)` +\| ([^|]*?) +\|([^|]*)\|([^|]*)\|$/gm)];

/** A value as the page has it. */
function shown(value: number | boolean | Rate): string {
  return typeof value === "object" ? `${value.perSecond}/s, burst ${value.burst}` : String(value);
}

test("the page has every limit of the configuration, with its default", () => {
  const listed = rows.map(([, key = "", value]) => [key, value]);
  const { limits } = Config.parse({});
  expect(Object.fromEntries(listed)).toEqual(
    Object.fromEntries(Object.entries(limits).map(([key, value]) => [key, shown(value)])),
  );
  expect(listed).toHaveLength(Object.keys(limits).length);
});

test("what has no other metric is counted when it is reached", () => {
  const bare = rows.filter(([, , , , metric = ""]) => metric.trim() === "").map(([, key]) => key);
  // At these two nothing happens to anybody.
  const counted = new Set<string | undefined>([...countedLimits, "limitLocal", "pingInterval"]);
  expect(bare.filter((key) => !counted.has(key))).toEqual([]);
  expect(bare).toContain("drainTimeout");
});

test("whatever is counted is on the page", () => {
  for (const limit of countedLimits) expect(page).toContain(`\`${limit}\``);
});
