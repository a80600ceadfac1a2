/** Places of the ring are 16 bits; one is its head. */
const MOST = 2 ** 16 - 1;

/**
 * Numbers from 0 to `count` - 1, each once at most, in the order in which they were added. Every operation takes the same
 * time, however many there are and were, and the memory is that of the beginning: a Set in this role keeps the place of
 * what was taken from its front, and passes over all such places to find the next.
 */
export class NumberQueue {
  // A ring, linked both ways: number n has place n + 1, the head is place 0. A place that is not in it has two zeros.
  readonly #next: Uint16Array;
  readonly #previous: Uint16Array;

  /** @param count at most 65,535 */
  constructor(count: number) {
    if (count > MOST) throw new RangeError(`${count} numbers are more than ${MOST}`);
    this.#next = new Uint16Array(count + 1);
    this.#previous = new Uint16Array(count + 1);
  }

  /** The one that has been in it for longest; undefined: it is empty. */
  get first(): number | undefined {
    const place = this.#next[0] as number;
    return place === 0 ? undefined : place - 1;
  }

  has(number: number): boolean {
    const place = number + 1;
    // The only one has the head on both sides.
    return this.#next[place] !== 0 || this.#previous[place] !== 0 || this.#next[0] === place;
  }

  /** Adds a number that is not in it, behind all others. */
  add(number: number): void {
    const place = number + 1;
    const last = this.#previous[0] as number;
    this.#next[last] = place;
    this.#previous[place] = last;
    this.#next[place] = 0;
    this.#previous[0] = place;
  }

  /** Takes a number out that is in it. */
  delete(number: number): void {
    const place = number + 1;
    const next = this.#next[place] as number;
    const previous = this.#previous[place] as number;
    this.#next[previous] = next;
    this.#previous[next] = previous;
    this.#next[place] = 0;
    this.#previous[place] = 0;
  }

  clear(): void {
    this.#next.fill(0);
    this.#previous.fill(0);
  }

  /** In order. */
  *[Symbol.iterator](): IterableIterator<number> {
    for (let place = this.#next[0] as number; place !== 0; place = this.#next[place] as number)
      yield place - 1;
  }
}
