/** How many values were at most each bound, rising; the last bound is Infinity. */
export type Buckets = readonly (readonly [bound: number, count: number])[];

/**
 * A histogram of Prometheus' text format. Of one that has labels beside `le` the series are not told apart.
 * @returns undefined where the text has none of that name
 */
export function bucketsOf(text: string, name: string): Buckets | undefined {
  const buckets: [number, number][] = [];
  for (const line of text.split("\n")) {
    if (!line.startsWith(`${name}_bucket{`)) continue;
    const [, bound = "", count = ""] = /le="([^"]+)"\} (\d+)/.exec(line) ?? [];
    buckets.push([bound === "+Inf" ? Number.POSITIVE_INFINITY : Number(bound), Number(count)]);
  }
  return buckets.length === 0 ? undefined : buckets;
}

/** What came between two looks. */
export function since(before: Buckets, after: Buckets): Buckets {
  return after.map(([bound, count], i) => [bound, count - (before[i]?.[1] ?? 0)] as const);
}

/**
 * A quantile, as Prometheus makes it: values are taken to lie evenly between bounds.
 * @returns null where there are no values; beyond the last bound, that
 */
export function quantile(buckets: Buckets, q: number): number | null {
  const total = buckets.at(-1)?.[1] ?? 0;
  if (!(total > 0)) return null;
  const rank = q * total;
  let [low, below] = [0, 0];
  for (const [bound, count] of buckets) {
    if (count >= rank && count > below) {
      if (bound === Number.POSITIVE_INFINITY) return low;
      return low + ((bound - low) * (rank - below)) / (count - below);
    }
    [low, below] = [bound, count];
  }
  return low;
}
