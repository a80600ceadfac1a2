import fc from "fast-check";
import { expect, test } from "vitest";
import { Backoff } from "../../client/backoff.ts";

test("waits double from the least to the most, a random half left out", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 1000 }),
      fc.integer({ min: 1000, max: 60_000 }),
      (minDelay, maxDelay) => {
        const backoff = new Backoff({ minDelay, maxDelay });
        for (let ceiling = minDelay, i = 0; i < 20; ceiling = Math.min(maxDelay, ceiling * 2), i++) {
          const wait = backoff.next();
          expect(wait).toBeGreaterThan(ceiling / 2 - 0.001);
          expect(wait).toBeLessThanOrEqual(ceiling);
        }
      },
    ),
  );
  const waits = new Set(Array.from({ length: 20 }, () => new Backoff().next()));
  expect(waits.size).toBeGreaterThan(1);
});

test("waits start anew after a connection that lasted longer than the last one, and only then", () => {
  const backoff = new Backoff({ minDelay: 100, maxDelay: 10_000 });
  for (let i = 0; i < 4; i++) backoff.next();
  backoff.lasted(800);
  expect(backoff.next()).toBeGreaterThanOrEqual(800);
  backoff.lasted(1601);
  expect(backoff.next()).toBeLessThanOrEqual(100);
});
