/** How fast something grows, in its unit an hour, and the interval that holds the slope with 95 %. */
export interface Slope {
  readonly perHour: number;
  readonly low: number;
  readonly high: number;
  /** Points that it rests on. */
  readonly points: number;
}

export interface Point {
  /** Milliseconds. */
  readonly at: number;
  readonly value: number;
}

const HOUR = 3_600_000;

/**
 * The median of the slopes between all pairs of points, which single outliers do not move (Theil 1950), with the
 * interval of Sen 1968. It takes the points for independent, which memory is not quite: it is rather too narrow.
 */
export function slopeOf(points: readonly Point[]): Slope {
  const slopes: number[] = [];
  for (const [i, a] of points.entries()) {
    for (const b of points.slice(i + 1)) slopes.push(((b.value - a.value) / (b.at - a.at)) * HOUR);
  }
  slopes.sort((a, b) => a - b);
  const n = points.length;
  const at = (index: number) =>
    slopes[Math.min(slopes.length - 1, Math.max(0, Math.round(index)))] ?? Number.NaN;
  const middle = (slopes.length - 1) / 2;
  const spread = (1.96 * Math.sqrt((n * (n - 1) * (2 * n + 5)) / 18)) / 2;
  const perHour = (at(Math.floor(middle)) + at(Math.ceil(middle))) / 2;
  return { perHour, low: at(middle - spread), high: at(middle + spread), points: n };
}
