import { Registry } from "prom-client";
import type { Histogram } from "../histogram.ts";

export interface Sample {
  readonly labels: Readonly<Record<string, string | number>>;
  readonly value: number;
  /** Of a histogram: the name of the series. */
  readonly metricName?: string;
}

/** All values of one metric. */
export interface Family {
  readonly name: string;
  readonly type: "counter" | "gauge" | "histogram";
  readonly help: string;
  readonly samples: readonly Sample[];
}

export function gauge(name: string, help: string, samples: readonly Sample[] | number): Family {
  return { name, type: "gauge", help, samples: samplesOf(samples) };
}

export function counter(name: string, help: string, samples: readonly Sample[] | number): Family {
  return { name, type: "counter", help, samples: samplesOf(samples) };
}

/** One histogram a set of labels. */
export function histogram(
  name: string,
  help: string,
  all: readonly { labels: Sample["labels"]; histogram: Histogram }[],
): Family {
  const samples = all.flatMap(({ labels, histogram: values }): Sample[] => {
    const counts = values.cumulative();
    const buckets = counts.map((value, i) => ({
      metricName: `${name}_bucket`,
      labels: { ...labels, le: values.bounds[i] ?? "+Inf" },
      value,
    }));
    return [
      ...buckets,
      { metricName: `${name}_sum`, labels, value: values.sum },
      { metricName: `${name}_count`, labels, value: counts.at(-1) ?? 0 },
    ];
  });
  return { name, type: "histogram", help, samples };
}

/** A family in the text format of Prometheus. A metric without values is there with its name, so that it can be found. */
export function render({ name, type, help, samples }: Family): Promise<string> {
  const registry = new Registry();
  // What a registry asks of a metric: nothing is kept from one scrape to the next.
  const metric = { name, get: async () => ({ name, type, help, values: samples, aggregator: "sum" }) };
  registry.registerMetric(metric as unknown as Parameters<Registry["registerMetric"]>[0]);
  return registry.metrics();
}

function samplesOf(samples: readonly Sample[] | number): readonly Sample[] {
  return typeof samples === "number" ? [{ labels: {}, value: samples }] : samples;
}
