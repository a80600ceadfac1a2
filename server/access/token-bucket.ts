import type { Rate } from "../../schemas/index.ts";

/** A bound on how often something may happen: so many at once, and then so many a second. */
export class TokenBucket {
  readonly #perMillisecond: number;
  readonly #burst: number;
  readonly #now: () => number;
  #tokens: number;
  #at: number;

  /** @param now milliseconds of a clock that does not go back */
  constructor({ perSecond, burst }: Rate, now = () => performance.now()) {
    this.#perMillisecond = perSecond / 1000;
    this.#burst = burst;
    this.#now = now;
    this.#tokens = burst;
    this.#at = now();
  }

  /** Nothing happened for so long that it is as it was in the beginning. */
  get full(): boolean {
    this.#refill();
    return this.#tokens === this.#burst;
  }

  /** @returns 0 where it may happen, else the milliseconds after which it may; it does not count then */
  take(): number {
    this.#refill();
    if (this.#tokens < 1) return this.#wait(1);
    this.#tokens--;
    return 0;
  }

  /** It has happened already. @returns 0, or the milliseconds for which nothing more should happen */
  spend(): number {
    this.#refill();
    this.#tokens--;
    return this.#tokens >= 0 ? 0 : this.#wait(0);
  }

  /** Milliseconds until it may happen again after `spend`. */
  wait(): number {
    this.#refill();
    return this.#tokens >= 0 ? 0 : this.#wait(0);
  }

  #wait(tokens: number): number {
    return Math.ceil((tokens - this.#tokens) / this.#perMillisecond);
  }

  #refill(): void {
    const now = this.#now();
    this.#tokens = Math.min(this.#burst, this.#tokens + (now - this.#at) * this.#perMillisecond);
    this.#at = now;
  }
}
