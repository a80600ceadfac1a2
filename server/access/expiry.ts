import { LONGEST_TIMER } from "../longest-timer.ts";
import type { Permit } from "./permit.ts";

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
    else timer = setTimeout(wait, Math.min(left, LONGEST_TIMER)).unref();
  };
  timer = setTimeout(wait, Math.min(Math.max(expires - Date.now(), 0), LONGEST_TIMER)).unref();
  return () => clearTimeout(timer);
}
