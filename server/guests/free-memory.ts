import { trimMalloc } from "../../rpmsg/index.ts";

/** Milliseconds between two looks. */
const PERIOD = 60_000;
/** Resident bytes more than after the last time from which on it is done again: everybody waits for it for some 10 ms. */
const WORTH = 8 * 2 ** 20;

/** What it needs of the process. */
export interface Allocator {
  /** Bytes. */
  resident(): number;
  /** Gives what is free back to the system, where that is possible. */
  trim(): void;
}

const malloc: Allocator = { resident: () => process.memoryUsage.rss(), trim: trimMalloc };

/**
 * Gives the memory back that bursts leave with malloc, from time to time. Buffers live and die in bursts, between blocks
 * that stay: glibc keeps what is free there, and the process would seem to grow with each greatest burst
 * (docs/adr/0013-trim.md).
 */
export class FreeMemory {
  readonly #allocator: Allocator;
  #timer: NodeJS.Timeout | undefined;
  /** Resident bytes after the last time; 0 where it is to be done again. */
  #before = 0;

  constructor(allocator = malloc) {
    this.#allocator = allocator;
  }

  start(): void {
    this.#timer = setInterval(() => this.look(), PERIOD).unref();
  }

  close(): void {
    clearInterval(this.#timer);
  }

  /** Trims where the process has grown, or where the last time gave back little. */
  look(): void {
    const allocator = this.#allocator;
    const resident = allocator.resident();
    if (resident < this.#before + WORTH) return;
    allocator.trim();
    const left = allocator.resident();
    // At a peak there is nothing to give back. It is free later, and the process grows no more.
    this.#before = resident - left >= WORTH ? left : 0;
  }
}
