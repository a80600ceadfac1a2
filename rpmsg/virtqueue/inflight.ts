/**
 * Which chains a device has taken and not given back, in memory that outlives its process (QEMU,
 * docs/interop/vhost-user.rst, "Inflight I/O tracking"). The region of a split queue:
 *
 *      0  u64 features          0
 *      8  u16 version           1; 0: not used yet
 *     10  u16 desc_num          entries of desc
 *     12  u16 last_batch_head   list of the chains that were given back last, linked by `next`
 *     14  u16 used_idx          the used ring's idx to which the marks belong
 *     16  desc: 16 bytes a descriptor, of which only those of heads count:
 *          0  u8  inflight      1: taken and not given back
 *          6  u16 next
 *          8  u64 counter       order of taking
 */
const HEADER = 16;
const ENTRY = 16;
/** Regions of several queues follow one another at this alignment (libvhost-user, DPDK). */
const ALIGNMENT = 64;

const VERSION = 1;
const FIELD_VERSION = 4;
const FIELD_COUNT = 5;
const FIELD_BATCH = 6;
const FIELD_USED = 7;

const TWO_32 = 2 ** 32;

/** Bytes of a region for a queue of so many entries. */
export function inflightSize(entries: number): number {
  return Math.ceil((HEADER + ENTRY * entries) / ALIGNMENT) * ALIGNMENT;
}

/**
 * The region of one queue. The process may be killed between any two of its stores: each order below is that of the
 * specification, and stores that order others are atomic.
 */
export class InflightRegion {
  /** Most entries that its queue may have. */
  readonly entries: number;
  readonly #u8: Uint8Array;
  readonly #u16: Uint16Array;
  readonly #u32: Uint32Array;
  #counter = 0;
  /** Chains that were given back since the last `settle`. Our own list: the one in memory may be changed by others. */
  readonly #batch: number[] = [];
  #batched = 0;

  /** @param offset bytes into `buffer`, a multiple of 8; `inflightSize(entries)` bytes from there on */
  constructor(buffer: ArrayBufferLike, offset: number, entries: number) {
    const size = inflightSize(entries);
    this.entries = entries;
    this.#u8 = new Uint8Array(buffer, offset, size);
    this.#u16 = new Uint16Array(buffer, offset, size >> 1);
    this.#u32 = new Uint32Array(buffer, offset, size >> 2);
  }

  /**
   * Begins to track a queue whose used ring stands at `used`.
   * @returns heads that were taken and not given back by whoever tracked the queue before, in the order of taking;
   *   undefined where nobody did
   */
  recover(used: number): number[] | undefined {
    const u16 = this.#u16;
    const known = u16[FIELD_VERSION] === VERSION;
    const batch = (used - (u16[FIELD_USED] as number)) & 0xffff;
    u16[FIELD_COUNT] = this.entries;
    // A used ring that is elsewhere than one batch on is another one: the driver has begun anew.
    if (!known || batch > this.entries) {
      for (let head = 0; head < this.entries; head++) this.#mark(head, 0);
      u16[FIELD_USED] = used;
      Atomics.store(u16, FIELD_VERSION, VERSION);
      return undefined;
    }
    // Killed between showing a batch and unmarking it.
    let head = u16[FIELD_BATCH] as number;
    for (let i = 0; i < batch && head < this.entries; i++) {
      this.#mark(head, 0);
      head = u16[(HEADER + ENTRY * head + 6) >> 1] as number;
    }
    Atomics.store(u16, FIELD_USED, used);
    return this.#taken();
  }

  /** A chain is taken from the available ring. */
  take(head: number): void {
    const at = (HEADER + ENTRY * head + 8) >> 2;
    this.#u32[at] = this.#counter;
    this.#u32[at + 1] = this.#counter / TWO_32;
    this.#counter++;
    this.#mark(head, 1);
  }

  /** A chain is put in the used ring; `settle` follows when that is shown. */
  giveBack(head: number): void {
    const u16 = this.#u16;
    u16[(HEADER + ENTRY * head + 6) >> 1] = u16[FIELD_BATCH] as number;
    u16[FIELD_BATCH] = head;
    this.#batch[this.#batched++] = head;
  }

  /** The used ring's idx was stored: all chains that were given back are the driver's again. */
  settle(used: number): void {
    for (let i = 0; i < this.#batched; i++) this.#mark(this.#batch[i] as number, 0);
    this.#batched = 0;
    Atomics.store(this.#u16, FIELD_USED, used);
  }

  #mark(head: number, inflight: 0 | 1): void {
    Atomics.store(this.#u8, HEADER + ENTRY * head, inflight);
  }

  /** Heads in flight, in the order of their counters. */
  #taken(): number[] {
    const found: { head: number; counter: number }[] = [];
    for (let head = 0; head < this.entries; head++) {
      if (this.#u8[HEADER + ENTRY * head] !== 1) continue;
      const at = (HEADER + ENTRY * head + 8) >> 2;
      const counter = (this.#u32[at + 1] as number) * TWO_32 + (this.#u32[at] as number);
      found.push({ head, counter });
      this.#counter = Math.max(this.#counter, counter + 1);
    }
    return found.toSorted((a, b) => a.counter - b.counter).map(({ head }) => head);
  }
}
