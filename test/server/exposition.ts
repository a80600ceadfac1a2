/** A reader of Prometheus' text format, written from its description: it shares nothing with the bridge. */

export interface Series {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Exposed {
  readonly type: string;
  readonly help: string;
  readonly series: readonly Series[];
}

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*/;
const LABEL = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"/;
const VALUE = /^(?:[+-]?Inf|NaN|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)$/;

/** All metrics by name. @throws Error at what the format does not have */
export function readExposition(text: string): Map<string, Exposed> {
  if (!text.endsWith("\n")) throw new Error("the last line has no end");
  const metrics = new Map<string, { type: string; help: string; series: Series[] }>();
  const seen = new Set<string>();
  let help: [name: string, text: string] | undefined;
  let current = "";
  for (const line of text.slice(0, -1).split("\n")) {
    if (line === "") continue;
    const [, helped, words] = /^# HELP (\S+) (.*)$/.exec(line) ?? [];
    const [, typed, type] = /^# TYPE (\S+) (counter|gauge|histogram)$/.exec(line) ?? [];
    if (helped !== undefined) {
      help = [helped, words ?? ""];
    } else if (typed !== undefined) {
      if (metrics.has(typed)) throw new Error(`${typed} comes twice`);
      if (help?.[0] !== typed) throw new Error(`${typed} has no help`);
      if (typed.endsWith("_total") !== (type === "counter")) throw new Error(`${typed} is not named well`);
      metrics.set(typed, { type: type ?? "", help: help[1], series: [] });
      current = typed;
    } else {
      const series = readLine(line);
      const metric = metrics.get(current);
      const name =
        metric?.type === "histogram" ? series.name.replace(/_(?:bucket|sum|count)$/, "") : series.name;
      if (metric === undefined || name !== current) throw new Error(`in the wrong place: ${line}`);
      const pairs = Object.entries(series.labels).map((pair) => pair.join("="));
      const id = JSON.stringify([series.name, pairs.toSorted()]);
      if (seen.has(id)) throw new Error(`twice: ${line}`);
      seen.add(id);
      metric.series.push(series);
    }
  }
  return metrics;
}

function readLine(line: string): Series {
  const fail = (): never => {
    throw new Error(`not understood: ${JSON.stringify(line)}`);
  };
  const [name] = NAME.exec(line) ?? fail();
  let rest = line.slice(name.length);
  // No prototype: a label may have any name.
  const labels: Record<string, string> = Object.create(null);
  if (rest.startsWith("{")) {
    rest = rest.slice(1);
    while (!rest.startsWith("}")) {
      const [whole, label, escaped] = LABEL.exec(rest) ?? fail();
      if (label === undefined || escaped === undefined || label in labels) return fail();
      labels[label] = escaped.replaceAll(/\\(.)/g, (_, char) => (char === "n" ? "\n" : char));
      rest = rest.slice(whole.length);
      if (rest.startsWith(",")) rest = rest.slice(1);
      else if (!rest.startsWith("}")) fail();
    }
    rest = rest.slice(1);
  }
  if (!rest.startsWith(" ") || !VALUE.test(rest.slice(1))) fail();
  return { name, labels, value: Number(rest.slice(1).replace("Inf", "Infinity")) };
}
