/** Pieces begin at multiples of this, so that headers are aligned. */
const ALIGNMENT = 16;

/** Memory that is taken in pieces and given back in the same order. */
export class ByteRing {
  readonly capacity: number;
  /** Bytes that are taken, without what lies unused behind the last piece before the ring's end. */
  used = 0;
  /** Where the next piece begins, and where the oldest one does. */
  #head = 0;
  #tail = 0;

  /** @param capacity bytes, a multiple of 16 */
  constructor(capacity: number) {
    this.capacity = capacity;
  }

  /**
   * Takes a piece in one part.
   * @param bytes 0 too
   * @returns its offset, -1 when there is no room
   */
  take(bytes: number): number {
    const size = pieceSize(bytes);
    if (this.used === 0) {
      // What was in use last is used again: it is in the processor's cache.
      this.#head = 0;
      this.#tail = 0;
    }
    const wrapped = this.used > 0 && this.#head <= this.#tail;
    if (wrapped) {
      if (this.#tail - this.#head < size) return -1;
    } else if (this.capacity - this.#head < size) {
      // Equal, they would mean "full" and "empty" alike.
      if (this.#tail < size) return -1;
      this.#head = 0;
    }
    const offset = this.#head;
    this.#head += size;
    this.used += size;
    return offset;
  }

  /** Gives the oldest piece back. */
  give(offset: number, bytes: number): void {
    const size = pieceSize(bytes);
    this.#tail = offset + size;
    this.used -= size;
  }
}

function pieceSize(bytes: number): number {
  return Math.max(ALIGNMENT, Math.ceil(bytes / ALIGNMENT) * ALIGNMENT);
}
