import type { Limits } from "../../schemas/index.ts";

interface Kept {
  readonly seq: number;
  readonly tail: Buffer;
  readonly at: number;
}

/** Counted for each message besides its text. */
const MESSAGE_COST = 64;
/** Messages that are gone before the array is made shorter. */
const COMPACT = 1024;

/** The messages of a session that its client may not have got, for as long as it may resume. */
export class ReplayLog {
  /** The latest message that is not known any more; 0 for none. */
  forgotten = 0;
  readonly #limits: Limits;
  /** Messages from `#first` on; what is before it is gone. */
  #kept: Kept[] = [];
  #first = 0;
  #bytes = 0;

  constructor(limits: Limits) {
    this.#limits = limits;
  }

  push(seq: number, tail: Buffer): void {
    this.#kept.push({ seq, tail, at: performance.now() });
    this.#bytes += tail.length + MESSAGE_COST;
    while (this.#bytes > this.#limits.sessionBytes) this.#shift();
  }

  /** Forgets what is too old for a session that can still be resumed. */
  prune(): void {
    const oldest = performance.now() - this.#limits.sessionTimeout;
    for (
      let next = this.#kept[this.#first];
      next !== undefined && next.at < oldest;
      next = this.#kept[this.#first]
    ) {
      this.#shift();
    }
  }

  /** Messages after one, in order, as far as they are known. */
  after(seq: number): readonly Kept[] {
    return this.#kept.slice(this.#first).filter((each) => each.seq > seq);
  }

  #shift(): void {
    const { seq, tail } = this.#kept[this.#first++] as Kept;
    this.forgotten = seq;
    this.#bytes -= tail.length + MESSAGE_COST;
    if (this.#first < COMPACT && this.#first < this.#kept.length) return;
    this.#kept = this.#kept.slice(this.#first);
    this.#first = 0;
  }
}
