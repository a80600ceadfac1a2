/**
 * How often each of a closed set of things happened. Cheap enough for a hostile peer that makes it count all the time.
 */
export class Tally<Key extends string> {
  readonly #counts: Map<Key, number>;

  /** @param keys those that are listed before they happen: a series that begins at 0 shows its first increase */
  constructor(keys: readonly Key[] = []) {
    this.#counts = new Map(keys.map((key) => [key, 0]));
  }

  add(key: Key, count = 1): void {
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + count);
  }

  entries(): IterableIterator<[Key, number]> {
    return this.#counts.entries();
  }
}
