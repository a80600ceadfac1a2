/** Somebody for whom bytes wait. */
export interface Holder {
  /** Bytes that wait now. */
  readonly heldBytes: number;
  /**
   * Too much waits for all together, and most of it for this one: it is to be told, and to let go.
   * @param atOnce it has been told before, or there is no time left
   */
  shed(atOnce: boolean): void;
}

/** Of the limit: from there on the largest holders are told to let go, until so much is left. */
const SOFT = 3 / 4;
/** What has to come in addition before it is counted again. */
const STEP = 1 / 64;
/** From there on they have to at once; before it is seen, a step may have come. */
const HARD = 1 - STEP;

/**
 * Bounds the bytes that wait for many holders together. What comes is added up as it comes, which costs next to nothing;
 * what has left is not, so the sum is at most too large. Only when it reaches a mark the holders are asked for what they
 * hold. Past three quarters of the limit the largest ones are closed in good order; past the limit, at once. Whoever
 * keeps up holds next to nothing and is never the one.
 */
export class MemoryBudget {
  readonly #limit: number;
  readonly #onShed: () => void;
  readonly #holders = new Set<Holder>();
  /** Those that were told to let go and have not yet. */
  readonly #told = new WeakSet<Holder>();
  #estimate = 0;
  #mark: number;
  #checking = false;

  /** @param onShed a holder is told to let go */
  constructor(limit: number, onShed: () => void) {
    this.#limit = limit;
    this.#onShed = onShed;
    this.#mark = limit * SOFT;
  }

  /** So many bytes more wait for a holder. */
  grown(holder: Holder, bytes: number): void {
    this.#holders.add(holder);
    this.#estimate += bytes;
    if (this.#estimate > this.#mark && !this.#checking) this.#check();
  }

  /** Bytes that wait for all holders now. */
  get bytes(): number {
    let sum = 0;
    for (const holder of this.#holders) {
      const { heldBytes } = holder;
      sum += heldBytes;
      // It comes again when something waits for it.
      if (heldBytes === 0) this.#holders.delete(holder);
    }
    this.#estimate = sum;
    return sum;
  }

  /** Nothing can wait for it any more. */
  forget(holder: Holder): void {
    this.#holders.delete(holder);
  }

  #check(): void {
    // Whoever is told may write a last word.
    this.#checking = true;
    let sum = this.bytes;
    const soft = this.#limit * SOFT;
    if (sum > soft) {
      const largest = [...this.#holders]
        .map((holder) => ({ holder, bytes: holder.heldBytes }))
        .toSorted((a, b) => b.bytes - a.bytes);
      // What those hold who were told counts, but nobody else is told for it.
      let left = sum;
      for (const { holder, bytes } of largest) {
        const atOnce = sum > this.#limit * HARD;
        if (left <= soft && !atOnce) break;
        left -= bytes;
        if (atOnce || !this.#told.has(holder)) sum -= this.#shed(holder, atOnce);
      }
      this.#estimate = sum;
    }
    this.#mark = Math.max(soft, sum + this.#limit * STEP);
    this.#checking = false;
  }

  /** @returns bytes that it has let go */
  #shed(holder: Holder, atOnce: boolean): number {
    const before = holder.heldBytes;
    if (!this.#told.has(holder)) this.#onShed();
    this.#told.add(holder);
    holder.shed(atOnce);
    return before - holder.heldBytes;
  }
}
