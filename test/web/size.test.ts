import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { expect, test } from "vitest";

// Of the files that `npm run build` has made.
const folder = fileURLToPath(new URL("../../dist/web", import.meta.url));
const page = readFileSync(join(folder, "index.html"), "utf8");

/** Bytes, compressed as they are sent, of all that the overview loads: the page, its code and style, and the charts'. */
const BUDGET = 100_000;

test(`what / loads takes less than ${BUDGET} bytes`, () => {
  const named = [...page.matchAll(/(?:src|href)="\.\/(assets\/[^"]+)"/g)].map(([, name = ""]) => name);
  const charts = readdirSync(join(folder, "assets"))
    .filter((name) => /^chart-engine-.*\.(js|css)$/.test(name))
    .map((name) => `assets/${name}`);
  expect([named.length, charts.length]).toEqual([2, 2]);
  const sizes = ["index.html", ...named, ...charts].map(
    (name) => readFileSync(join(folder, `${name}.gz`)).length,
  );
  const sum = sizes.reduce((a, b) => a + b);
  expect(sum).toBeGreaterThan(20_000);
  expect(sum).toBeLessThan(BUDGET);
});

test("every file is there compressed as well, and nothing in the page is a script or a style itself", () => {
  const files = ["index.html", ...readdirSync(join(folder, "assets")).map((name) => `assets/${name}`)].filter(
    (name) => !name.endsWith(".gz"),
  );
  for (const name of files) {
    expect(existsSync(join(folder, `${name}.gz`)), name).toBe(true);
    expect(gunzipSync(readFileSync(join(folder, `${name}.gz`)))).toEqual(readFileSync(join(folder, name)));
  }
  expect(page).not.toMatch(/<style|style=|<script(?![^>]* src=)| on\w+=/);
});
