/** Milliseconds: the longest look-out, and the first one that is worth its while. */
const MOST = 0.2;
const LEAST = 0.025;

/** What is looked at instead of being waited for. */
export interface PolledQueue {
  /** Kicks are not wanted from now on, or wanted again. */
  setPolled(polled: boolean): void;
  /** Takes what is there. @returns false where it does not run */
  look(): boolean;
}

/**
 * Looks at a queue in every turn of the event loop for a while after something went through, instead of waiting for the
 * guest's kick: a wake-up costs more than the answer that it tells of. It takes a core for as long as messages come.
 *
 * The while adapts, as in KVM (virt/kvm/kvm_main.c: grow_halt_poll_ns, shrink_halt_poll_ns): it grows when a kick comes
 * that a longer one would have made needless, and shrinks when none of any length would.
 */
export class BusyPoll {
  readonly #queue: PolledQueue;
  readonly #clock: () => number;
  /** Milliseconds to look out after something went through; 0: not at all. */
  #window = 0;
  #active = Number.NEGATIVE_INFINITY;
  #looking = false;

  /** @param clock milliseconds */
  constructor(queue: PolledQueue, clock = (): number => performance.now()) {
    this.#queue = queue;
    this.#clock = clock;
  }

  /** Something went through, either way. */
  active(): void {
    this.#active = this.#clock();
    if (this.#looking || this.#window === 0) return;
    this.#looking = true;
    this.#queue.setPolled(true);
    this.#schedule();
  }

  /** The guest kicked. */
  kicked(): void {
    // One from before its kicks were off.
    if (this.#looking) return;
    const near = this.#clock() - this.#active <= MOST;
    if (near) this.#window = Math.min(MOST, Math.max(LEAST, this.#window * 2));
    else this.#window = this.#window / 2 < LEAST ? 0 : this.#window / 2;
  }

  #schedule(): void {
    setImmediate(() => {
      let more = false;
      try {
        more = this.#queue.look() && this.#clock() - this.#active < this.#window;
      } finally {
        this.#looking = more;
        if (more) this.#schedule();
        else this.#queue.setPolled(false);
      }
    });
  }
}
