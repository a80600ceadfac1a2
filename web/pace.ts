/** A look may take this part of the time. */
const SHARE = 10;
/** Milliseconds between two looks at most, and those that one may take. */
export const LONGEST = 10_000;

/**
 * Milliseconds until the next look: where looks take long they come less often.
 * @param took milliseconds that the last one took
 * @param failed what that took tells nothing of what a look costs
 */
export function untilNext(period: number, took: number, failed: boolean): number {
  if (failed) return period;
  return Math.min(Math.max(period - took, took * SHARE), LONGEST);
}
