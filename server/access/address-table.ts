import type { Limits } from "../../schemas/index.ts";
import { TokenBucket } from "./token-bucket.ts";

/** What is known of one address. */
export interface AddressEntry {
  connections: number;
  readonly connects: TokenBucket;
  readonly requests: TokenBucket;
}

/** Addresses that are known apart; beyond them the others share one entry. Whoever has a /32 has 4 billion networks. */
const MOST_ADDRESSES = 65_536;
/** Addresses before the first look for some that need not be known any more, and milliseconds between two looks. */
const FIRST_SWEEP = 1024;
const SWEEP_PERIOD = 1000;

/** The addresses that count: those with connections, or whose rates are not yet as if they had never come. */
export class AddressTable {
  readonly #limits: Pick<Limits, "connectRate" | "requestRate">;
  readonly #entries = new Map<string, AddressEntry>();
  readonly #others: AddressEntry;
  readonly #now: () => number;
  #sweptAt = Number.NEGATIVE_INFINITY;

  constructor(limits: Pick<Limits, "connectRate" | "requestRate">, now = () => performance.now()) {
    this.#limits = limits;
    this.#now = now;
    this.#others = this.#entry();
  }

  get size(): number {
    return this.#entries.size;
  }

  /** The entry of an address. Whoever counts a connection in it takes it out of the same entry. */
  get(key: string): AddressEntry {
    const known = this.#entries.get(key);
    if (known !== undefined) return known;
    if (this.#entries.size >= FIRST_SWEEP) this.#sweep();
    if (this.#entries.size >= MOST_ADDRESSES) return this.#others;
    const entry = this.#entry();
    this.#entries.set(key, entry);
    return entry;
  }

  #entry(): AddressEntry {
    const { connectRate, requestRate } = this.#limits;
    return {
      connections: 0,
      connects: new TokenBucket(connectRate, this.#now),
      requests: new TokenBucket(requestRate, this.#now),
    };
  }

  #sweep(): void {
    const now = this.#now();
    if (now < this.#sweptAt + SWEEP_PERIOD) return;
    this.#sweptAt = now;
    for (const [key, { connections, connects, requests }] of this.#entries) {
      if (connections === 0 && connects.full && requests.full) this.#entries.delete(key);
    }
  }
}
