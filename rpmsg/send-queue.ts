import type { Endpoint } from "./endpoint.ts";

/**
 * What became of a message to the guest.
 *  - `sent`: it is in the response queue
 *  - `queued`: it waits, for a buffer or for the peer's address; `onUndelivered` tells if it has waited too long
 *  - `too-large`: longer than the guest's buffers
 *  - `queue-full`: the bound of the waiting messages is reached; nothing was taken
 *  - `address-invalid`: ANY as destination
 *  - `endpoint-gone`: the endpoint or the sender is closed
 */
export type SendCode = "sent" | "queued" | "too-large" | "queue-full" | "address-invalid" | "endpoint-gone";

/** Why a queued message was given up. */
export type UndeliveredCode = "no-peer" | "no-buffer" | "too-large";

export interface SendQueueEvents {
  /** So much of what waited is gone that more may be sent: no more than `low` is left. */
  onWritable?(): void;
  onUndelivered?(code: UndeliveredCode): void;
}

/** Whoever has, or will have, the address that messages go to. */
export interface Target {
  readonly peer: number | undefined;
}

/** What a send queue needs of its device. */
export interface SendQueueDevice {
  /** Puts a message in the response queue; `no-buffer` where the driver has posted none or is not running. */
  transmit(
    src: number,
    dst: number,
    bytes: Uint8Array,
    offset: number,
    length: number,
  ): "sent" | "too-large" | "no-buffer";
  /** Other queues wait for buffers: nobody may pass them. */
  readonly contended: boolean;
  /** Asks for `serve` calls; the queue is not empty. */
  wait(queue: SendQueue): void;
  /** Takes the request back. */
  forget(queue: SendQueue): void;
  /** Milliseconds for which the guest was able to take messages: it stands still while the guest is suspended. */
  clock(): number;
}

/** Messages that are gone before the array is made shorter: a shift for each would move all others. */
const COMPACT = 1024;

/** Counted for each message that waits beside its payload: without it empty messages would wait without a bound. */
const MESSAGE_COST = 4;

interface QueuedMessage {
  dst: number | undefined;
  bytes: Uint8Array;
  deadline: number;
  published: (() => void) | undefined;
}

export interface SendQueueOptions {
  /** Most bytes that wait: payload, and 4 for each message. */
  limit: number;
  /** Bytes at which `onWritable` is called when less is left again; a quarter of the limit if not given. */
  low?: number;
  /** Milliseconds that a message may wait, Infinity for no bound (Linux: 15 s, virtio_rpmsg_bus.c: rpmsg_send_offchannel_raw). */
  timeout: number;
}

/**
 * The way of one sender to the guest. Messages go straight to the response queue while it has buffers; else they wait
 * here, in order and bounded, and the device serves all waiting queues in turn.
 */
export class SendQueue {
  readonly #device: SendQueueDevice;
  readonly #endpoint: Endpoint;
  readonly #target: Target;
  readonly #events: SendQueueEvents;
  readonly #options: SendQueueOptions;
  /** Waiting messages from `#first` on; what is before it is gone. */
  #waiting: QueuedMessage[] = [];
  #first = 0;
  /** Bytes that wait, as `limit` counts them. */
  pendingBytes = 0;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;
  #done: (() => void) | undefined;

  constructor(
    device: SendQueueDevice,
    endpoint: Endpoint,
    target: Target,
    events: SendQueueEvents,
    options: SendQueueOptions,
  ) {
    this.#device = device;
    this.#endpoint = endpoint;
    this.#target = target;
    this.#events = events;
    this.#options = options;
  }

  get pending(): number {
    return this.#waiting.length - this.#first;
  }

  /**
   * Sends `length` bytes to `dst`, or to the target's peer. The bytes are copied before the call returns.
   * @param published called when a message that was queued is in the response queue
   */
  send(
    dst: number | undefined,
    bytes: Uint8Array,
    offset: number,
    length: number,
    published?: () => void,
  ): SendCode {
    if (this.#closed || this.#endpoint.closed) return "endpoint-gone";
    const to = dst ?? this.#target.peer;
    if (to === 0xffff_ffff) return "address-invalid";
    if (to !== undefined && this.pending === 0 && !this.#device.contended) {
      const code = this.#device.transmit(this.#endpoint.address, to, bytes, offset, length);
      if (code !== "no-buffer") return code;
    }
    // One message always fits, so that a bound below the largest message cannot block a sender for ever.
    const cost = MESSAGE_COST + length;
    if (this.pendingBytes + cost > this.#options.limit && this.pending > 0) return "queue-full";
    this.#waiting.push({
      dst,
      // Not slice(): that of a Buffer does not copy.
      bytes: new Uint8Array(bytes.subarray(offset, offset + length)),
      deadline: this.#device.clock() + this.#options.timeout,
      published,
    });
    this.pendingBytes += cost;
    if (this.pending === 1) {
      this.#device.wait(this);
      this.arm();
    }
    return "queued";
  }

  /**
   * Sends the first waiting message.
   * @returns `sent` when it went (or was given up), `no-buffer`, `no-peer`, or `empty` when none is left
   */
  serve(): "sent" | "no-buffer" | "no-peer" | "empty" {
    const message = this.#waiting[this.#first];
    if (message === undefined) return "empty";
    const to = message.dst ?? this.#target.peer;
    if (to === undefined) return "no-peer";
    const code = this.#device.transmit(this.#endpoint.address, to, message.bytes, 0, message.bytes.length);
    if (code === "no-buffer") return code;
    this.#shift(message);
    if (code === "sent") message.published?.();
    else this.#events.onUndelivered?.(code);
    return "sent";
  }

  /** Starts, or starts again after a pause, the clock of the first message's deadline. */
  arm(): void {
    this.disarm();
    const first = this.#waiting[this.#first];
    if (first === undefined || first.deadline === Number.POSITIVE_INFINITY) return;
    const timer = setTimeout(
      () => this.#expire(),
      Math.max(1, Math.ceil(first.deadline - this.#device.clock())),
    );
    timer.unref();
    this.#timer = timer;
  }

  disarm(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** Drops what waits, without a word: the caller knows why. */
  clear(): void {
    this.pendingBytes = 0;
    this.#emptied();
  }

  /** Takes nothing more and drops what waits. */
  close(): void {
    this.#closed = true;
    this.clear();
  }

  /**
   * Takes nothing more, but sends what waits.
   * @param done called when nothing is left: all is sent, given up or dropped by a reset
   */
  finish(done: () => void): void {
    this.#closed = true;
    this.#done = done;
    if (this.pending === 0) this.#emptied();
  }

  #expire(): void {
    this.#timer = undefined;
    const now = this.#device.clock();
    for (
      let first = this.#waiting[this.#first];
      first !== undefined && first.deadline <= now;
      first = this.#waiting[this.#first]
    ) {
      this.#shift(first);
      const known = (first.dst ?? this.#target.peer) !== undefined;
      this.#events.onUndelivered?.(known ? "no-buffer" : "no-peer");
    }
    this.arm();
  }

  /** Takes the first message out. */
  #shift(message: QueuedMessage): void {
    this.#first++;
    if (this.#first === this.#waiting.length) {
      this.#emptied();
    } else if (this.#first === COMPACT) {
      this.#waiting.splice(0, COMPACT);
      this.#first = 0;
    }
    const low = this.#options.low ?? this.#options.limit / 4;
    const before = this.pendingBytes;
    this.pendingBytes -= MESSAGE_COST + message.bytes.length;
    if (before > low && this.pendingBytes <= low) this.#events.onWritable?.();
  }

  #emptied(): void {
    this.#waiting = [];
    this.#first = 0;
    this.disarm();
    this.#device.forget(this);
    const done = this.#done;
    this.#done = undefined;
    done?.();
  }
}
