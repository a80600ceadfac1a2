import type { Limits, SlowPolicy } from "../../schemas/index.ts";
import { MUX_MESSAGE_COST } from "../../schemas/index.ts";
import type { ClientCounts } from "../client-counts.ts";
import type { DropCause } from "../endpoint-port.ts";
import type { Holder, MemoryBudget } from "../memory-budget.ts";
import { TOO_MUCH } from "./connection.ts";
import type { LatencyProbe } from "./latency-probe.ts";

/** Most bytes in a socket up to which messages go straight to it where the oldest are to be dropped. */
const SOCKET_BYTES = 64 * 1024;

/** Messages that are gone before the array is made shorter: a shift for each would move all others. */
const COMPACT = 1024;
/** In the place of a message that is gone: its bytes, which count no more, are free at once. */
const GONE: Waiting = { since: 0, seq: 0, src: 0, bytes: new Uint8Array() };

/** What a message costs of the credit. */
interface Price {
  readonly message: number;
  readonly byte: number;
}
const IN_BYTES: Price = { message: MUX_MESSAGE_COST, byte: 1 };
export const IN_MESSAGES: Price = { message: 1, byte: 0 };

/** Where the messages of one channel go. */
export interface OutflowSink {
  /** Bytes that the client has not taken. */
  readonly pendingBytes: number;
  /** Measures what was written late; undefined while nothing goes to a socket. */
  readonly probe: LatencyProbe | undefined;
  /** Of the bytes that wait for all clients. */
  readonly budget: MemoryBudget;
  readonly counts: ClientCounts;
  write(seq: number, src: number, bytes: Uint8Array, offset: number, length: number, serial: number): void;
  /** So many messages were dropped since the last one that was written. */
  writeDropped(count: number): void;
  /** Calls `drained` when the client has taken what was written. */
  notifyDrained(): void;
  /** Leaves the guest's messages with the guest. */
  hold(): void;
  release(): void;
  /** Messages were dropped. */
  dropped(count: number, cause: DropCause): void;
  /** The client is too slow. */
  slow(reason: string): void;
}

interface Waiting {
  /** When it came, where it is measured; else 0. */
  since: number;
  seq: number;
  src: number;
  bytes: Uint8Array;
}

/**
 * The way of the guest's messages to one client, and what happens where it is too slow: past `slowReaderBytes` that
 * wait it is closed, holds the guest up, or loses its oldest or its newest messages. With credit, no more is written
 * than was granted; the rest waits here.
 */
export class Outflow implements Holder {
  /** Messages so far, dropped ones too. */
  seq = 0;
  readonly #sink: OutflowSink;
  readonly #policy: SlowPolicy;
  readonly #limits: Limits;
  readonly #socketBytes: number;
  /** What may be written, by the price; undefined without a bound. */
  #credit: number | undefined;
  readonly #price: Price;
  /** Waiting messages from `#first` on; what is before it is gone. */
  #waiting: Waiting[] = [];
  #first = 0;
  #waitingBytes = 0;
  /** The last message that was written, or told of as dropped: what is missing behind it was dropped. */
  #told = 0;
  #held: NodeJS.Timeout | undefined;
  #ended = false;

  constructor(sink: OutflowSink, policy: SlowPolicy, limits: Limits, credit?: number, price = IN_BYTES) {
    this.#sink = sink;
    this.#policy = policy;
    this.#limits = limits;
    this.#socketBytes = Math.min(SOCKET_BYTES, limits.slowReaderBytes);
    this.#credit = credit;
    this.#price = price;
  }

  get heldBytes(): number {
    return this.#waitingBytes;
  }

  shed(): void {
    if (!this.#ended) this.#sink.slow(TOO_MUCH);
  }

  /** Takes a message of the guest; `bytes` is valid during the call only. */
  offer(src: number, bytes: Uint8Array, offset: number, length: number, serial: number): void {
    if (this.#ended) return;
    const seq = ++this.seq;
    const sink = this.#sink;
    if (this.#count > 0 || !this.#mayWrite(length)) {
      this.#wait({
        since: this.#count === 0 ? performance.now() : 0,
        seq,
        src,
        bytes: new Uint8Array(bytes.subarray(offset, offset + length)),
      });
      return;
    }
    // One message always fits: a client that has taken everything is not slow, however long it is.
    const { pendingBytes } = sink;
    const fits = pendingBytes === 0 || pendingBytes + length <= this.#limits.slowReaderBytes;
    if (!fits && this.#policy === "drop-newest") {
      this.#drop(this.#policy);
      return;
    }
    this.#write(seq, src, bytes, offset, length, serial);
    if (pendingBytes > 0 && sink.pendingBytes > this.#limits.slowReaderBytes) this.#tooMuch();
  }

  /** The client has granted so much more. */
  grant(more: number): void {
    if (this.#credit !== undefined) this.#credit += more;
    this.drained();
  }

  /** Begins anew with so much credit, less than none where some is owed; undefined without a bound. */
  allow(credit: number | undefined): void {
    this.#credit = credit;
    this.drained();
  }

  /** The client has taken something. */
  drained(): void {
    if (this.#ended) return;
    for (let next = this.#waiting[this.#first]; next !== undefined; next = this.#waiting[this.#first]) {
      const { since, seq, src, bytes } = next;
      if (!this.#mayWrite(bytes.length)) break;
      this.#shift();
      this.#write(seq, src, bytes, 0, bytes.length, 0);
      if (since !== 0) this.#sink.probe?.late(since);
    }
    const { pendingBytes } = this.#sink;
    if (this.#held !== undefined && this.#waitingBytes + pendingBytes <= this.#limits.slowReaderBytes / 2) {
      this.#release();
    }
    if (this.#count === 0 && pendingBytes < this.#socketBytes) this.#tellDropped(this.seq);
    if (this.#count > 0 || this.#held !== undefined || this.#told < this.seq) this.#awaitDrain();
  }

  /** Goes on after so many messages, all of them written or told of as dropped. */
  goOn(seq: number): void {
    this.seq = seq;
    this.#told = seq;
  }

  /** Nothing is written any more. */
  end(): void {
    this.#ended = true;
    this.#sink.budget.forget(this);
    if (this.#count > 0) this.#sink.dropped(this.#count, "closed");
    this.#waiting = [];
    this.#first = 0;
    this.#waitingBytes = 0;
    this.#release();
  }

  #mayWrite(length: number): boolean {
    if (this.#credit !== undefined && this.#credit < this.#priceOf(length)) return false;
    return this.#policy !== "drop-oldest" || this.#sink.pendingBytes < this.#socketBytes;
  }

  #write(seq: number, src: number, bytes: Uint8Array, offset: number, length: number, serial: number): void {
    this.#tellDropped(seq - 1);
    this.#told = seq;
    if (this.#credit !== undefined) this.#credit -= this.#priceOf(length);
    this.#sink.write(seq, src, bytes, offset, length, serial);
  }

  #priceOf(length: number): number {
    return this.#price.message + this.#price.byte * length;
  }

  #wait(message: Waiting): void {
    this.#waiting.push(message);
    this.#waitingBytes += costOf(message.bytes);
    this.#sink.budget.grown(this, costOf(message.bytes));
    if (this.#ended) return;
    const most = this.#limits.slowReaderBytes;
    while (this.#policy === "drop-oldest" && this.#waitingBytes > most && this.#count > 1) {
      this.#shift();
      this.#drop(this.#policy);
    }
    if (this.#policy === "drop-newest" && this.#waitingBytes > most && this.#count > 1) {
      this.#waiting.pop();
      this.#waitingBytes -= costOf(message.bytes);
      this.#drop(this.#policy);
    }
    if (this.#waitingBytes + this.#sink.pendingBytes > most) this.#tooMuch();
    this.#awaitDrain();
  }

  get #count(): number {
    return this.#waiting.length - this.#first;
  }

  /** Takes the oldest message out. */
  #shift(): void {
    const { bytes } = this.#waiting[this.#first] as Waiting;
    this.#waiting[this.#first++] = GONE;
    this.#waitingBytes -= costOf(bytes);
    if (this.#first < COMPACT && this.#count > 0) return;
    this.#waiting = this.#waiting.slice(this.#first);
    this.#first = 0;
  }

  #drop(cause: DropCause): void {
    this.#sink.dropped(1, cause);
    this.#awaitDrain();
  }

  /** Credit comes from the client; everything else waits for the socket. */
  #awaitDrain(): void {
    if (this.#credit === undefined || this.#sink.pendingBytes > 0) this.#sink.notifyDrained();
  }

  #tooMuch(): void {
    if (this.#policy === "close") {
      this.#sink.slow(`slow reader: more than ${this.#limits.slowReaderBytes} bytes wait`);
    } else if (this.#policy === "pause" && this.#held === undefined) {
      const { pauseTimeout } = this.#limits;
      this.#sink.hold();
      this.#held = setTimeout(() => {
        this.#sink.counts.limits.add("pauseTimeout");
        this.#sink.slow(`slow reader: held the guest up for ${pauseTimeout} ms`);
      }, pauseTimeout).unref();
      this.#awaitDrain();
    }
  }

  #release(): void {
    if (this.#held === undefined) return;
    clearTimeout(this.#held);
    this.#held = undefined;
    this.#sink.release();
  }

  /** Tells of the messages up to this one that were dropped, in their place. */
  #tellDropped(seq: number): void {
    const count = seq - this.#told;
    if (count === 0) return;
    this.#told = seq;
    this.#sink.writeDropped(count);
  }
}

function costOf(bytes: Uint8Array): number {
  return MUX_MESSAGE_COST + bytes.length;
}
