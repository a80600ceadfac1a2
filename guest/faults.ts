/** What the bus of a guest does wrong on purpose; the counts are used up by it. */
export interface FaultState {
  neverRefill: boolean;
  delay: number;
  dropReceived: number;
  corruptLength: number;
}

/** A delay beyond this would not fit a timer. */
const LONGEST_DELAY = 2 ** 31 - 1;

/**
 * What an emulated guest does wrong, so that others can test what they do then. May be changed at any time and outlives
 * a reboot.
 */
export class Faults {
  readonly #state: FaultState;
  readonly #onChange: () => void;

  constructor(state: FaultState, onChange: () => void) {
    this.#state = state;
    this.#onChange = onChange;
  }

  /**
   * Receive buffers are not posted again once they were used: after as many messages as it has buffers the guest gets
   * no more. Switched off, it posts what it kept.
   */
  get neverRefill(): boolean {
    return this.#state.neverRefill;
  }

  set neverRefill(value: boolean) {
    this.#set("neverRefill", value);
  }

  /** Milliseconds from the arrival of a message until it is handled; until then it has its buffer. */
  get delay(): number {
    return this.#state.delay;
  }

  set delay(value: number) {
    if (!(value >= 0 && value <= LONGEST_DELAY)) {
      throw new RangeError(`delay: want 0 to ${LONGEST_DELAY} milliseconds, not ${value}`);
    }
    this.#set("delay", value);
  }

  /** So many of the next messages to services are thrown away unread; Infinity: all. Counts down. */
  get dropReceived(): number {
    return this.#state.dropReceived;
  }

  set dropReceived(value: number) {
    this.#set("dropReceived", count("dropReceived", value));
  }

  /** So many of the next messages of services say that they are longer than their buffers; Infinity: all. Counts down. */
  get corruptLength(): number {
    return this.#state.corruptLength;
  }

  set corruptLength(value: number) {
    this.#set("corruptLength", count("corruptLength", value));
  }

  /** Nothing goes wrong any more. */
  clear(): void {
    Object.assign(this.#state, noFaults());
    this.#onChange();
  }

  #set<Key extends keyof FaultState>(key: Key, value: FaultState[Key]): void {
    this.#state[key] = value;
    this.#onChange();
  }
}

export function noFaults(): FaultState {
  return { neverRefill: false, delay: 0, dropReceived: 0, corruptLength: 0 };
}

function count(name: string, value: number): number {
  if (value !== Number.POSITIVE_INFINITY && !(Number.isSafeInteger(value) && value >= 0)) {
    throw new RangeError(`${name}: want a number of messages, or Infinity, not ${value}`);
  }
  return value;
}
