import { expect, test } from "vitest";
import { slopeOf } from "./slope.ts";

const minute = 60_000;
const line = (perHour: number, count = 20) =>
  Array.from({ length: count }, (_, i) => ({ at: i * minute, value: 100 + (perHour * i) / 60 }));

test("a straight line has its slope, and no doubt", () => {
  for (const perHour of [0, 1, -2, 600]) {
    const slope = slopeOf(line(perHour));
    expect(slope.perHour).toBeCloseTo(perHour);
    expect(slope.low).toBeCloseTo(perHour);
    expect(slope.high).toBeCloseTo(perHour);
    expect(slope.points).toBe(20);
  }
});

test("single outliers do not move it", () => {
  const points = line(6).map((point, i) => (i % 7 === 3 ? { ...point, value: 1000 } : point));
  expect(slopeOf(points).perHour).toBeCloseTo(6);
});

test("noise without a trend has 0 in its interval, and noise on a trend has the trend", () => {
  const noise = [3, -1, 4, -1, 5, -9, 2, -6, 5, 3, -5, 8, -9, 7, -9, 3, 2, -3, 8, 4];
  for (const perHour of [0, 200]) {
    const slope = slopeOf(
      line(perHour).map((point, i) => ({ ...point, value: point.value + (noise[i] ?? 0) })),
    );
    expect(slope.low).toBeLessThan(perHour);
    expect(slope.high).toBeGreaterThan(perHour);
    expect(slope.low > 0).toBe(perHour > 0);
  }
});
