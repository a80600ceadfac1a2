import { Histogram } from "../histogram.ts";

/** In seconds. A message that does not wait takes tens of microseconds. */
const BOUNDS = [
  0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
  1, 2.5, 5, 10,
];

/**
 * Measures how long messages take from the guest to their client's socket. Of each turn of the event loop it measures
 * the first frame, which waits longest for the write at the turn's end: two looks at the clock a turn, however many
 * messages there are. Of those that wait for a slow reader it measures the first of each queue.
 */
export class LatencyProbe {
  /** Seconds. */
  readonly histogram = new Histogram(BOUNDS);
  /** A message of the guest is among what this turn writes. */
  carries = false;
  #begun = 0;
  readonly #late: number[] = [];

  /** The first frame of a turn is there. */
  begin(): void {
    this.#begun = performance.now();
  }

  /** A message that waited from that time on is among what this turn writes. */
  late(since: number): void {
    this.#late.push(since);
  }

  /** What the turn brought is with the sockets. */
  end(): void {
    if (!this.carries) return;
    this.carries = false;
    const now = performance.now();
    this.histogram.observe((now - this.#begun) / 1000);
    for (const since of this.#late) this.histogram.observe((now - since) / 1000);
    this.#late.length = 0;
  }
}
