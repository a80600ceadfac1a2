/** Numbers in columns, the time in seconds first, as many as fit; null where there is none. */
export type Columns = readonly (readonly (number | null)[])[];

/** The latest rows of a table of numbers over time. */
export class Series {
  readonly #most: number;
  readonly #columns: (number | null)[][];

  /** @param most rows that are kept */
  constructor(width: number, most: number) {
    this.#most = most;
    this.#columns = Array.from({ length: width + 1 }, () => []);
  }

  get columns(): Columns {
    return this.#columns;
  }

  get length(): number {
    return this.#columns[0]?.length ?? 0;
  }

  /** @param time in seconds; it only grows */
  push(time: number, values: readonly (number | null)[]): void {
    for (const [index, column] of this.#columns.entries()) {
      column.push(index === 0 ? time : (values[index - 1] ?? null));
      if (column.length > this.#most) column.shift();
    }
  }
}
