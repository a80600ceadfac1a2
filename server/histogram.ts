/** How often values fell in which range, and their sum. Observing allocates nothing. */
export class Histogram {
  /** Upper bounds of the ranges but the last, which has none; rising. */
  readonly bounds: readonly number[];
  sum = 0;
  readonly #counts: number[];

  constructor(bounds: readonly number[]) {
    this.bounds = bounds;
    this.#counts = [...bounds.map(() => 0), 0];
  }

  observe(value: number): void {
    const { bounds } = this;
    let range = 0;
    while (range < bounds.length && value > (bounds[range] as number)) range++;
    this.#counts[range] = (this.#counts[range] as number) + 1;
    this.sum += value;
  }

  /** For each bound how many values were at most that; the last one is for all values. */
  cumulative(): number[] {
    let count = 0;
    return this.#counts.map((each) => {
      count += each;
      return count;
    });
  }
}
