import type { Limits } from "../../schemas/index.ts";
import type { Holder, MemoryBudget } from "../memory-budget.ts";

interface Kept {
  readonly seq: number;
  readonly text: Buffer;
  readonly at: number;
}

/** Counted for each entry besides its text. */
const ENTRY_COST = 64;
/** Entries that are gone before the array is made shorter. */
const COMPACT = 1024;
/** In the place of an entry that is gone: what it held is free at once, and not only with a thousand others. */
const GONE: Kept = { seq: 0, text: Buffer.alloc(0), at: 0 };

/** To be handed over: plain data. */
export interface ReplaySnapshot {
  readonly forgotten: number;
  /** `age` in milliseconds. */
  readonly kept: readonly { readonly seq: number; readonly text: Uint8Array; readonly age: number }[];
}

/** Frames of a session that its client may not have got, for as long as it may resume. */
export class ReplayLog implements Holder {
  /** The latest `seq` that is not known any more; 0 for none. */
  forgotten = 0;
  readonly #limits: Limits;
  readonly #budget: MemoryBudget;
  /** Entries from `#first` on; what is before it is gone. */
  #kept: Kept[] = [];
  #first = 0;
  #bytes = 0;

  constructor(limits: Limits, budget: MemoryBudget) {
    this.#limits = limits;
    this.#budget = budget;
  }

  get heldBytes(): number {
    return this.#bytes;
  }

  /** A client that is there and reads loses nothing by it: what it may have missed is known for a shorter time. */
  shed(): void {
    const most = this.#bytes / 2;
    while (this.#bytes > most) this.#shift();
  }

  /** Nobody comes back. */
  clear(): void {
    this.#kept = [];
    this.#first = 0;
    this.#bytes = 0;
    this.#budget.forget(this);
  }

  push(seq: number, text: Buffer): void {
    this.#kept.push({ seq, text, at: performance.now() });
    this.#bytes += text.length + ENTRY_COST;
    while (this.#bytes > this.#limits.sessionBytes) this.#shift();
    this.#budget.grown(this, text.length + ENTRY_COST);
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
    return this.#kept.slice(this.#first).filter((each) => each.seq > seq);
  }

  snapshot(): ReplaySnapshot {
    const now = performance.now();
    const kept = this.#kept.slice(this.#first).map(({ seq, text, at }) => ({ seq, text, age: now - at }));
    return { forgotten: this.forgotten, kept };
  }

  restore({ forgotten, kept }: ReplaySnapshot): void {
    const now = performance.now();
    this.forgotten = forgotten;
    for (const { seq, text, age } of kept) {
      this.#kept.push({ seq, text: Buffer.from(text), at: now - age });
      this.#bytes += text.length + ENTRY_COST;
    }
    while (this.#bytes > this.#limits.sessionBytes) this.#shift();
    if (this.#bytes > 0) this.#budget.grown(this, this.#bytes);
  }

  #shift(): void {
    const { seq, text } = this.#kept[this.#first] as Kept;
    this.#kept[this.#first++] = GONE;
    this.forgotten = seq;
    this.#bytes -= text.length + ENTRY_COST;
    if (this.#first < COMPACT && this.#first < this.#kept.length) return;
    this.#kept = this.#kept.slice(this.#first);
    this.#first = 0;
  }
}
