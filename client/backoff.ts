/** When a connection that broke is made again. */
export interface ReconnectOptions {
  /** Keeps trying where the first connection fails, too. Default false: `connect` rejects. */
  initial?: boolean;
  /** Milliseconds before the first try; doubled with every failure. Default 250. */
  minDelay?: number;
  /** Milliseconds between tries at most. Default 10,000. */
  maxDelay?: number;
  /** Tries in a row before the channel gives up. Default: no end. */
  attempts?: number;
}

/** Growing waits, of which a random half is left out: clients that broke together come back one by one. */
export class Backoff {
  readonly #min: number;
  readonly #max: number;
  #ceiling = 0;

  constructor({ minDelay = 250, maxDelay = 10_000 }: ReconnectOptions = {}) {
    this.#min = minDelay;
    this.#max = maxDelay;
  }

  /** Milliseconds to wait now. */
  next(): number {
    this.#ceiling = Math.min(this.#max, Math.max(this.#min, this.#ceiling * 2));
    return this.#ceiling * (1 - Math.random() / 2);
  }

  /** A connection came about. Waits start anew only where it lasted longer than the wait before it. */
  lasted(milliseconds: number): void {
    if (milliseconds > this.#ceiling) this.#ceiling = 0;
  }
}
