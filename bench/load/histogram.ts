/** Counts of latencies, in tenths of a microsecond: exact below 256, then 128 steps for each doubling. */
export class Histogram {
  readonly #counts = new Uint32Array(128 * 26);
  #total = 0;

  add(ms: number): void {
    const value = Math.min(ms * 10_000, 0x7fff_ffff) | 0;
    const shift = value < 256 ? 0 : 24 - Math.clz32(value);
    const index = shift * 128 + (value >>> shift);
    this.#counts[index] = (this.#counts[index] as number) + 1;
    this.#total++;
  }

  clear(): void {
    this.#counts.fill(0);
    this.#total = 0;
  }

  /** Microseconds that a share of the latencies stays within; 0 when there are none. */
  quantile(share: number): number {
    let left = Math.max(1, Math.ceil(share * this.#total));
    for (let index = 0; index < this.#counts.length; index++) {
      left -= this.#counts[index] as number;
      if (left > 0) continue;
      const shift = Math.max(0, (index >>> 7) - 1);
      return ((index - shift * 128) * 2 ** shift) / 10;
    }
    return 0;
  }
}
