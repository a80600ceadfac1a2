import { RpmsgError } from "./errors.ts";
import { NumberQueue } from "./number-queue.ts";
import { ADDRESS_ANY, FIRST_DYNAMIC_ADDRESS } from "./wire/header.ts";

/** Where the dynamic addresses stand, for a hand-over: plain data. */
export interface AddressCursor {
  readonly next: number;
  /** Least recently freed first. */
  readonly freed: readonly number[];
}

/** Addresses below this are looked up in an array. */
const FLAT = 65536;
/** With an address from here on the array gets all its room: dynamic ones go round, and would all come to need it. */
const FEW = 4096;

/**
 * The local addresses of a device. Dynamic addresses are allocated cyclically: none is used a second time before the
 * whole space was, and then the one that has been free for longest. A late message to a closed endpoint therefore
 * never reaches its successor.
 */
export class AddressTable<T> {
  readonly #flat: (T | undefined)[] = [];
  readonly #large = new Map<number, T>();
  readonly #first: number;
  readonly #last: number;
  #next: number;
  /** Dynamic addresses that were used and are free, least recently freed first, counted from the first one. */
  readonly #freed: NumberQueue;
  size = 0;

  /** @param first and @param last bound the dynamic addresses, both inclusive, at most 65,535 of them */
  constructor(first = FIRST_DYNAMIC_ADDRESS, last = FLAT - 1) {
    this.#first = first;
    this.#last = last;
    this.#next = first;
    this.#freed = new NumberQueue(last - first + 1);
  }

  get(address: number): T | undefined {
    return address < FLAT ? this.#flat[address] : this.#large.get(address);
  }

  /**
   * Gives `value` a dynamic address.
   * @throws RpmsgError address-space-full
   */
  allocate(value: T): number {
    while (this.#next <= this.#last) {
      const address = this.#next++;
      if (this.get(address) === undefined && !this.#freed.has(address - this.#first))
        return this.#put(address, value);
    }
    const { first } = this.#freed;
    if (first !== undefined) return this.#put(this.#first + first, value);
    throw new RpmsgError(
      "address-space-full",
      `all addresses from ${this.#first} to ${this.#last} are in use`,
    );
  }

  /**
   * Gives `value` this address.
   * @throws RpmsgError address-invalid, address-in-use
   */
  claim(address: number, value: T): number {
    if (!Number.isInteger(address) || address < 0 || address >= ADDRESS_ANY) {
      throw new RpmsgError("address-invalid", `${address} is not an RPMsg address`);
    }
    if (this.get(address) !== undefined)
      throw new RpmsgError("address-in-use", `address ${address} is in use`);
    return this.#put(address, value);
  }

  release(address: number): void {
    if (this.get(address) === undefined) return;
    if (address < FLAT) this.#flat[address] = undefined;
    else this.#large.delete(address);
    this.size--;
    if (this.#isDynamic(address)) this.#freed.add(address - this.#first);
  }

  *values(): IterableIterator<T> {
    for (const value of this.#flat) if (value !== undefined) yield value;
    yield* this.#large.values();
  }

  get cursor(): AddressCursor {
    return { next: this.#next, freed: Array.from(this.#freed, (number) => this.#first + number) };
  }

  /** Goes on as the table that the cursor is of; addresses in use are claimed besides. */
  restore({ next, freed }: AddressCursor): void {
    this.#next = next;
    this.#freed.clear();
    for (const address of freed) {
      if (this.get(address) === undefined && this.#isDynamic(address)) this.#freed.add(address - this.#first);
    }
  }

  #isDynamic(address: number): boolean {
    return address >= this.#first && address <= this.#last;
  }

  #put(address: number, value: T): number {
    const number = address - this.#first;
    if (this.#isDynamic(address) && this.#freed.has(number)) this.#freed.delete(number);
    if (address < FLAT) {
      // Filled, so that the array stays dense.
      const length = address < FEW ? address + 1 : FLAT;
      while (this.#flat.length < length) this.#flat.push(undefined);
      this.#flat[address] = value;
    } else {
      this.#large.set(address, value);
    }
    this.size++;
    return address;
  }
}
