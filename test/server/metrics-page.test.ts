import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { missingTool, titledWith } from "../support/missing-tool.ts";
import type { Exposed } from "./exposition.ts";
import { readExposition } from "./exposition.ts";
import { eventually, startBridge, testBridge, testDirectory } from "./support.ts";

const docs = new URL("../../docs/", import.meta.url);
const read = (path: string) => readFileSync(new URL(path, docs), "utf8");

let metrics: Map<string, Exposed>;

/** A bridge over which messages went in both directions. */
beforeAll(async () => {
  const running = await startBridge();
  await running.endpoint("sink");
  const client = await running.connect("/ws/v1/demo/echo");
  client.send("hello");
  await client.next();
  metrics = readExposition(await (await fetch(`${running.url}/metrics`)).text());
  await client.close();
  await running.close();
}, 60_000);

/** The names of metrics and series that a query of Prometheus has. */
function namesIn(query: string): string[] {
  const bare = query.replaceAll(/"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\b(?:by|without)\s*\([^)]*\)/g, " ");
  return [...bare.matchAll(/\b((?:rpmsg|nodejs|process)_\w+)/g)].map(([, name]) => name ?? "");
}

/** Names of series; a histogram has three. */
function known(): Set<string> {
  return new Set(
    [...metrics].flatMap(([name, { type }]) =>
      type === "histogram" ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name],
    ),
  );
}

/** The labels that a query names, with the metric to which it asks for them. */
function selectorsIn(query: string): [name: string, labels: string[]][] {
  return [...query.matchAll(/(\w+)\{([^}]*)\}/g)].map(([, name = "", inner = ""]) => [
    name.replace(/_(?:bucket|sum|count)$/, ""),
    [...inner.matchAll(/(\w+)\s*(?:=~|!=|!~|=)/g)].map(([, label]) => label ?? ""),
  ]);
}

/** The labels by which a query sums up. */
function groupedBy(query: string): string[] {
  return [...query.matchAll(/\bby\s*\(([^)]*)\)/g)].flatMap(([, inner = ""]) => inner.split(/\s*,\s*/));
}

/** That a query asks for nothing that no scrape has; `job` and `instance` are Prometheus' own. */
function expectKnown(query: string): void {
  const series = known();
  const names = namesIn(query);
  for (const name of names) expect(series, query).toContain(name);
  const all = names.flatMap((name) => metrics.get(name.replace(/_(?:bucket|sum|count)$/, ""))?.series ?? []);
  const labels = new Set(["instance", "job", ...all.flatMap((each) => Object.keys(each.labels))]);
  for (const label of groupedBy(query)) expect(labels, query).toContain(label);
  for (const [name, labels] of selectorsIn(query)) {
    const own = new Set(metrics.get(name)?.series.flatMap((each) => Object.keys(each.labels)));
    for (const label of labels) {
      if (!["instance", "job"].includes(label)) expect(own, `${name} in ${query}`).toContain(label);
    }
  }
}

test("docs/metrics.md has all metrics as a scrape has them, and no others", () => {
  const rows = [
    ...read("metrics.md").matchAll(
      /^\| `([a-z_]+)`\s+\| (counter|gauge|histogram)\s+\| ([a-z, ]*?)\s*\| (.*?)\s*\|$/gm,
    ),
  ];
  const documented = rows.map(([, name, type, labels, help]) => ({ name, type, labels, help }));
  const scraped = [...metrics].map(([name, { type, help, series }]) => {
    const labels = new Set(series.flatMap((each) => Object.keys(each.labels)));
    labels.delete("le");
    return { name, type, labels: [...labels].join(", "), help };
  });
  const byName = (a: { name?: string | undefined }, b: { name?: string | undefined }) =>
    (a.name ?? "").localeCompare(b.name ?? "");
  expect(documented.toSorted(byName)).toEqual(scraped.toSorted(byName));
});

test("names follow the conventions of Prometheus: base units, and what they count", () => {
  for (const [name, { type, help, series }] of metrics) {
    expect(name).toMatch(/^(?:rpmsg|process|nodejs)_[a-z_]+$/);
    expect(name).not.toMatch(/_(?:ms|milliseconds|kb|mb|percent)(?:_|$)/);
    expect(help).toMatch(/^[A-Z1].*\.$|^Requests /);
    if (type !== "histogram") continue;
    expect(name).toMatch(/_(?:seconds|bytes)$/);
    for (const { labels, value } of series.filter((each) => each.name === `${name}_count`)) {
      const of = (suffix: string) =>
        series.filter(
          (each) =>
            each.name === name + suffix && Object.entries(labels).every(([k, v]) => each.labels[k] === v),
        );
      const buckets = of("_bucket").map((each) => each.value);
      expect(buckets).toEqual(buckets.toSorted((a, b) => a - b));
      expect([of("_bucket").at(-1)?.labels["le"], buckets.at(-1)]).toEqual(["+Inf", value]);
      expect(of("_sum").length).toBe(1);
    }
  }
});

test("what a message took is measured", () => {
  const count = metrics
    .get("rpmsg_guest_to_socket_seconds")
    ?.series.find(({ name }) => name.endsWith("_count"));
  const sum = metrics.get("rpmsg_guest_to_socket_seconds")?.series.find(({ name }) => name.endsWith("_sum"));
  expect(count?.value).toBe(1);
  expect(sum?.value).toBeGreaterThan(0);
  expect(sum?.value).toBeLessThan(20);
});

test("the lag of the event loop is measured from the first scrape on", async () => {
  const { url } = await testBridge();
  const looks = async () => {
    const lag = readExposition(await (await fetch(`${url}/metrics`)).text()).get(
      "nodejs_eventloop_lag_seconds",
    );
    return lag?.series.find(({ name }) => name.endsWith("_count"))?.value;
  };
  expect(await eventually("a look", async () => (await looks()) || undefined)).toBeGreaterThan(0);
});

interface Panel {
  id: number;
  type: string;
  title: string;
  gridPos: { x: number; y: number; w: number; h: number };
  datasource?: { type: string; uid: string };
  targets?: { refId: string; expr: string; datasource: { uid: string } }[];
}

interface Dashboard {
  title: string;
  uid: string;
  schemaVersion: number;
  time: { from: string; to: string };
  templating: { list: { name: string; type: string; definition?: string }[] };
  panels: Panel[];
}

describe("docs/grafana/rpmsg-bridge.json", () => {
  const dashboard = JSON.parse(read("grafana/rpmsg-bridge.json")) as Dashboard;

  test("asks for what a scrape has", () => {
    const queries = dashboard.panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr));
    expect(queries.length).toBeGreaterThan(25);
    for (const query of queries) {
      expect(namesIn(query).length).toBeGreaterThan(0);
      expectKnown(query);
    }
    for (const { definition } of dashboard.templating.list) {
      const [, asked] = /^label_values\((.*), \w+\)$/.exec(definition ?? "") ?? [];
      if (definition !== undefined) expectKnown(asked ?? "");
    }
  });

  test("has what Grafana needs to import it", () => {
    expect(dashboard).toMatchObject({ title: "rpmsg-bridge", uid: "rpmsg-bridge", id: null });
    expect(dashboard.schemaVersion).toBeGreaterThanOrEqual(36);
    expect(dashboard.templating.list.map(({ name, type }) => [name, type])).toEqual([
      ["datasource", "datasource"],
      ["instance", "query"],
      ["guest", "query"],
    ]);
    const ids = dashboard.panels.map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
    for (const { type, title, gridPos, targets, datasource } of dashboard.panels) {
      expect(["row", "timeseries", "stat"]).toContain(type);
      expect(title).not.toBe("");
      expect(gridPos.x + gridPos.w).toBeLessThanOrEqual(24);
      if (type === "row") continue;
      // Whichever data source whoever imports it has.
      expect(datasource?.type).toBe("prometheus");
      expect(datasource?.uid).toMatch(/^\$\{datasource\}$/);
      const refs = targets?.map(({ refId }) => refId) ?? [];
      expect(new Set(refs).size).toBe(refs.length);
      expect(refs.length).toBeGreaterThan(0);
    }
  });

  test("no panel lies on another", () => {
    const taken = new Set<string>();
    for (const { gridPos } of dashboard.panels) {
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          expect(taken).not.toContain(`${x},${y}`);
          taken.add(`${x},${y}`);
        }
      }
    }
  });
});

const noPromtool = missingTool("promtool", "prometheus");

/** `promtool check rules`: Prometheus' own parser. */
function expectReadable(rules: string): void {
  const path = join(testDirectory(), "rules.yml");
  writeFileSync(path, rules);
  const { status, stderr } = spawnSync("promtool", ["check", "rules", path], { encoding: "utf8" });
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
}

const reading = titledWith(noPromtool, "Prometheus reads the queries and the alerts");
test.skipIf(noPromtool !== undefined)(reading, () => {
  const dashboard = JSON.parse(read("grafana/rpmsg-bridge.json")) as Dashboard;
  const queries = dashboard.panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr));
  const rules = queries.map((expr, i) => ({
    record: `query:${i}`,
    expr: expr.replaceAll("$__rate_interval", "1m"),
  }));
  expectReadable(JSON.stringify({ groups: [{ name: "dashboard", rules }] }));
  expectReadable(read("prometheus/alerts.yml"));
});

test("docs/prometheus/alerts.yml asks for what a scrape has", () => {
  const { groups } = parse(read("prometheus/alerts.yml")) as {
    groups: { rules: { alert: string; expr: string; annotations: { summary: string } }[] }[];
  };
  const rules = groups.flatMap((group) => group.rules);
  expect(rules.length).toBeGreaterThan(5);
  expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length);
  for (const { expr, annotations } of rules) {
    expect(annotations.summary).toMatch(/\.$/);
    expectKnown(expr);
    if (!expr.startsWith("up{")) expect(namesIn(expr).length).toBeGreaterThan(0);
  }
});
