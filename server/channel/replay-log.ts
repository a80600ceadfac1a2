import type { Limits } from "../../schemas/index.ts";

interface Kept {
  /** Of the message, or of the last one before the result. */
  readonly seq: number;
  /** The end of a message's frame, or the whole frame of a result. */
  readonly text: Buffer;
  readonly isResult: boolean;
  readonly at: number;
}

/** Counted for each entry besides its text. */
const ENTRY_COST = 64;
/** Messages that are gone before the array is made shorter. */
const COMPACT = 1024;

/** The messages and results of a session that its client may not have got, for as long as it may resume. */
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

  /** @param tail the end of the message's frame */
  message(seq: number, tail: Buffer): void {
    this.#push({ seq, text: tail, isResult: false, at: performance.now() });
  }

  /**
   * @param seq the last message before it
   * @param frame all of it
   */
  result(seq: number, frame: Buffer): void {
    this.#push({ seq, text: frame, isResult: true, at: performance.now() });
  }

  #push(entry: Kept): void {
    this.#kept.push(entry);
    this.#bytes += entry.text.length + ENTRY_COST;
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

  /** What came after a message, in order, as far as it is known. */
  after(seq: number): readonly Kept[] {
    return this.#kept
      .slice(this.#first)
      .filter((each) => each.seq > seq || (each.isResult && each.seq === seq));
  }

  #shift(): void {
    const { seq, text, isResult } = this.#kept[this.#first++] as Kept;
    if (!isResult) this.forgotten = seq;
    this.#bytes -= text.length + ENTRY_COST;
    if (this.#first < COMPACT && this.#first < this.#kept.length) return;
    this.#kept = this.#kept.slice(this.#first);
    this.#first = 0;
  }
}
