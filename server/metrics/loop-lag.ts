import { Histogram } from "../histogram.ts";

/** Milliseconds between two looks. */
const PERIOD = 20;
/** Milliseconds without a scrape after which nobody watches any more. */
const UNWATCHED = 300_000;
/** In seconds. */
const BOUNDS = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5];

/**
 * How late the event loop's timers are: what everybody waits for who waits for the process. It looks only while somebody
 * scrapes.
 */
export class LoopLag {
  /** Seconds. */
  readonly histogram = new Histogram(BOUNDS);
  #timer: NodeJS.Timeout | undefined;
  #expected = 0;
  #watchedUntil = 0;

  /** Somebody scrapes. */
  watch(): void {
    const now = performance.now();
    this.#watchedUntil = now + UNWATCHED;
    if (this.#timer !== undefined) return;
    this.#expected = now + PERIOD;
    this.#timer = setInterval(() => this.#look(), PERIOD).unref();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #look(): void {
    const now = performance.now();
    this.histogram.observe(Math.max(0, now - this.#expected) / 1000);
    this.#expected = now + PERIOD;
    if (now > this.#watchedUntil) this.stop();
  }
}
