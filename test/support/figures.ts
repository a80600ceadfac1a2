/** The value that a share of them stays within: `quantile(values, 0.99)`; NaN of none. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
}

/** `p50 1.2 ms, p99 9.0 ms` */
export function latencies(values: readonly number[]): string {
  return `p50 ${quantile(values, 0.5).toFixed(1)} ms, p99 ${quantile(values, 0.99).toFixed(1)} ms`;
}

/** 1,000 */
export function count(value: number): string {
  return value.toLocaleString("en-US");
}

/** Waits until `probe` gives something, asked again every few milliseconds. @throws Error after so many milliseconds */
export async function until<T>(
  what: string,
  probe: () => T | undefined | Promise<T | undefined>,
  patience = 15_000,
): Promise<T> {
  const deadline = performance.now() + patience;
  for (;;) {
    const value = await probe();
    if (value !== undefined) return value;
    if (performance.now() > deadline) throw new Error(`did not happen: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
