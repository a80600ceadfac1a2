import type { Permit } from "./permit.ts";

/** Longest time that a timer takes. */
const LONGEST = 2 ** 31 - 1;

/**
 * Calls back when a permit ends, by the clock.
 * @returns cancels it
 */
export function atExpiry({ expires }: Permit, callback: () => void): () => void {
  if (expires === Number.POSITIVE_INFINITY) return () => {};
  let timer: NodeJS.Timeout;
  const wait = (): void => {
    const left = expires - Date.now();
    // A timer may fire a little early by the other clock.
    if (left <= 0) callback();
    else timer = setTimeout(wait, Math.min(left, LONGEST)).unref();
  };
  timer = setTimeout(wait, Math.min(Math.max(expires - Date.now(), 0), LONGEST)).unref();
  return () => clearTimeout(timer);
}
