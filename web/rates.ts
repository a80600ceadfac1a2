/** Counters by name; they only grow, until what counts is started again. */
export type Counters = Readonly<Record<string, number>>;

/** Makes rates of counters that are looked at now and then. */
export class Meter {
  #time = Number.NaN;
  #counters: Counters = {};

  /**
   * @param time in seconds
   * @returns how much each counter grew in a second since the last look; undefined at the first one, and where a counter
   * is smaller than it was: it was started again
   */
  look(time: number, counters: Counters): Record<string, number> | undefined {
    const elapsed = time - this.#time;
    const before = this.#counters;
    this.#time = time;
    this.#counters = counters;
    if (!(elapsed > 0)) return undefined;
    const rates: Record<string, number> = {};
    for (const [name, value] of Object.entries(counters)) {
      const grown = value - (before[name] ?? 0);
      if (grown < 0) return undefined;
      rates[name] = grown / elapsed;
    }
    return rates;
  }
}
