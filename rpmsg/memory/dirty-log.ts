/** Bytes that one bit of a log stands for (vhost-user.rst: VHOST_LOG_PAGE). */
export const LOG_PAGE = 4096;

/** Pages that one byte of a log stands for. */
export const PAGES_PER_BYTE = 8;

/**
 * Which pages of guest memory were written, one bit a page from guest address 0 on, for a migration. Others clear bits
 * of it at the same time. A page is marked after it was written: whoever sees the bit then copies what was written.
 */
export class DirtyLog {
  readonly #bits: Uint8Array;
  readonly #onMarked: () => void;

  /** @param onMarked called whenever something was marked */
  constructor(bits: Uint8Array, onMarked: () => void) {
    this.#bits = bits;
    this.#onMarked = onMarked;
  }

  /** Guest addresses below this one have a bit. */
  get end(): number {
    return this.#bits.length * PAGES_PER_BYTE * LOG_PAGE;
  }

  /** Marks the pages of `length` bytes, more than none. Nothing is written outside the log, whatever the address. */
  mark(address: number, length: number): void {
    const last = Math.floor((Math.min(address + length, this.end) - 1) / LOG_PAGE);
    for (let page = Math.floor(address / LOG_PAGE); page <= last; page++) {
      Atomics.or(this.#bits, Math.floor(page / PAGES_PER_BYTE), 1 << (page % PAGES_PER_BYTE));
    }
    this.#onMarked();
  }
}

/** How writes to a queue and its buffers are logged. */
export interface QueueLog {
  readonly pages: DirtyLog;
  /** What the used ring's first byte is logged as; undefined: writes to the used ring are not logged. */
  readonly used: number | undefined;
}
