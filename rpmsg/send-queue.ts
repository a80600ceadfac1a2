import type { Endpoint } from "./endpoint.ts";
import { HEADER_SIZE } from "./wire/header.ts";

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

/** Why a queued message was given up; `guest-gone`: a reset. */
export type UndeliveredCode = "no-peer" | "no-buffer" | "too-large" | "guest-gone" | "endpoint-gone";

/** `ticket` is what was given with the message. */
export interface SendQueueEvents<Ticket = unknown> {
  /** So much of what waited is gone that more may be sent: no more than `low` is left. */
  onWritable?(): void;
  /** A queued message of `length` bytes is in the response queue. */
  onSent?(length: number, ticket: Ticket | undefined): void;
  /** A queued message was given up. */
  onUndelivered?(code: UndeliveredCode, ticket: Ticket | undefined): void;
  /** The guest was reset before it gave the buffer of a sent message back: it may not have read it. */
  onUnconfirmed?(ticket: Ticket | undefined): void;
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
    sender: SendQueue,
    ticket: unknown,
  ): "sent" | "too-large" | "no-buffer";
  /** Other queues wait for buffers: nobody may pass them. */
  readonly contended: boolean;
  /** Asks for `serve` calls; the queue is not empty. */
  wait(queue: SendQueue): void;
  /** Takes the request back. */
  forget(queue: SendQueue): void;
  /** Messages were given up: the first one now may have a destination, though those before it waited for the peer. */
  advanced(queue: SendQueue): void;
  /** Milliseconds for which the guest was able to take messages: it stands still while the guest is suspended. */
  clock(): number;
  /** A message that had to wait is in the response queue; `since` is what the clock said when it came. */
  waited(since: number): void;
}

/** Messages that are gone before the array is made shorter: a shift for each would move all others. */
const COMPACT = 1024;

/** Counted for each message that waits beside its payload: without it empty messages would wait without a bound. */
const MESSAGE_COST = HEADER_SIZE;

/** Milliseconds by which a message may be given up late, so that many deadlines cost few looks. */
const TIMER_STEP = 10;

interface QueuedMessage<Ticket> {
  dst: number | undefined;
  bytes: Uint8Array;
  since: number;
  deadline: number;
  ticket: Ticket | undefined;
}

/** In the place of a message that is gone. */
const GONE: QueuedMessage<never> = {
  dst: 0,
  bytes: new Uint8Array(),
  since: 0,
  deadline: 0,
  ticket: undefined,
};

/** A waiting message, for a hand-over: plain data. */
export interface WaitingMessage<Ticket = unknown> {
  readonly dst: number | undefined;
  readonly bytes: Uint8Array;
  /** Milliseconds that it may still wait. */
  readonly left: number;
  readonly ticket: Ticket | undefined;
}

export interface SendQueueOptions {
  /** Most bytes that wait: payload, and the 16 of a header for each message. */
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
export class SendQueue<Ticket = unknown> {
  readonly #device: SendQueueDevice;
  readonly #endpoint: Endpoint;
  readonly #target: Target;
  readonly #events: SendQueueEvents<Ticket>;
  readonly #options: SendQueueOptions;
  /** Waiting messages from `#first` on; what is before it is gone. */
  #waiting: QueuedMessage<Ticket>[] = [];
  #first = 0;
  /** Bytes that wait, as `limit` counts them. */
  pendingBytes = 0;
  /** No waiting message has an earlier deadline. */
  #earliest = Number.POSITIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;
  #done: (() => void) | undefined;

  constructor(
    device: SendQueueDevice,
    endpoint: Endpoint,
    target: Target,
    events: SendQueueEvents<Ticket>,
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
   * @param ticket comes with what is told of the message later
   * @param timeout milliseconds that it may wait, if not as long as the others
   */
  send(
    dst: number | undefined,
    bytes: Uint8Array,
    offset: number,
    length: number,
    ticket?: Ticket,
    timeout = this.#options.timeout,
  ): SendCode {
    if (this.#closed || this.#endpoint.closed) return "endpoint-gone";
    const to = dst ?? this.#target.peer;
    if (to === 0xffff_ffff) return "address-invalid";
    if (to !== undefined && this.pending === 0 && !this.#device.contended) {
      const code = this.#device.transmit(this.#endpoint.address, to, bytes, offset, length, this, ticket);
      if (code !== "no-buffer") return code;
    }
    // One message always fits, so that a bound below the largest message cannot block a sender for ever.
    const cost = MESSAGE_COST + length;
    if (this.pendingBytes + cost > this.#options.limit && this.pending > 0) return "queue-full";
    const since = this.#device.clock();
    const deadline = since + timeout;
    // Not slice(): that of a Buffer does not copy.
    this.#waiting.push({
      dst,
      bytes: new Uint8Array(bytes.subarray(offset, offset + length)),
      since,
      deadline,
      ticket,
    });
    this.pendingBytes += cost;
    if (this.pending === 1) this.#device.wait(this);
    if (deadline < this.#earliest) {
      this.#earliest = deadline;
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
    const { bytes, since, ticket } = message;
    const code = this.#device.transmit(this.#endpoint.address, to, bytes, 0, bytes.length, this, ticket);
    if (code === "no-buffer") return code;
    this.#shift();
    const before = this.pendingBytes;
    this.pendingBytes -= MESSAGE_COST + bytes.length;
    if (code === "sent") {
      this.#device.waited(since);
      this.#events.onSent?.(bytes.length, ticket);
    } else this.#events.onUndelivered?.(code, ticket);
    this.#relieved(before);
    return "sent";
  }

  /** Starts, or starts again after a pause, the clock of the earliest deadline. */
  arm(): void {
    this.disarm();
    if (this.#earliest === Number.POSITIVE_INFINITY) return;
    const delay = Math.max(TIMER_STEP, Math.ceil(this.#earliest - this.#device.clock()));
    this.#timer = setTimeout(() => this.#expire(), delay).unref();
  }

  disarm(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** What waits, in order. */
  snapshot(): WaitingMessage<Ticket>[] {
    const now = this.#device.clock();
    return this.#waiting
      .slice(this.#first)
      .map(({ dst, bytes, deadline, ticket }) => ({ dst, bytes, left: deadline - now, ticket }));
  }

  /** Goes on with what waited in the queue that the snapshot is of. */
  restore(messages: readonly WaitingMessage<Ticket>[]): void {
    const now = this.#device.clock();
    for (const { dst, bytes, left, ticket } of messages) {
      const deadline = now + left;
      this.#waiting.push({ dst, bytes, since: now, deadline, ticket });
      this.pendingBytes += MESSAGE_COST + bytes.length;
      this.#earliest = Math.min(this.#earliest, deadline);
    }
    if (messages.length === 0) return;
    this.#device.wait(this);
    this.arm();
  }

  /** A message that was sent lies in a buffer that the guest did not give back before a reset. */
  unconfirmed(ticket: Ticket | undefined): void {
    this.#events.onUnconfirmed?.(ticket);
  }

  /** Gives up all that waits. */
  drop(code: UndeliveredCode): void {
    const dropped = this.#waiting.slice(this.#first);
    const before = this.pendingBytes;
    this.pendingBytes = 0;
    this.#emptied();
    for (const { ticket } of dropped) this.#events.onUndelivered?.(code, ticket);
    this.#relieved(before);
  }

  /** Takes nothing more and gives up what waits. */
  close(): void {
    this.#closed = true;
    this.drop("endpoint-gone");
  }

  /**
   * Takes nothing more, but sends what waits; nothing waits longer than is usual.
   * @param done called when nothing is left: all is sent, or given up
   */
  finish(done: () => void): void {
    this.#closed = true;
    this.#done = done;
    const latest = this.#device.clock() + this.#options.timeout;
    for (const message of this.#waiting) message.deadline = Math.min(message.deadline, latest);
    if (this.pending === 0) {
      this.#emptied();
    } else if (this.#earliest > latest) {
      this.#earliest = latest;
      this.arm();
    }
  }

  /** Gives up what has waited too long. */
  #expire(): void {
    this.#timer = undefined;
    const now = this.#device.clock();
    const expired: QueuedMessage<Ticket>[] = [];
    const left: QueuedMessage<Ticket>[] = [];
    this.#earliest = Number.POSITIVE_INFINITY;
    for (const message of this.#waiting.slice(this.#first)) {
      if (message.deadline <= now) {
        expired.push(message);
      } else {
        left.push(message);
        this.#earliest = Math.min(this.#earliest, message.deadline);
      }
    }
    const before = this.pendingBytes;
    for (const { bytes } of expired) this.pendingBytes -= MESSAGE_COST + bytes.length;
    this.#waiting = left;
    this.#first = 0;
    if (left.length === 0) {
      this.#emptied();
    } else {
      this.arm();
      this.#device.advanced(this);
    }
    for (const { dst, ticket } of expired) {
      this.#events.onUndelivered?.(
        (dst ?? this.#target.peer) === undefined ? "no-peer" : "no-buffer",
        ticket,
      );
    }
    this.#relieved(before);
  }

  /** Takes the first message out. */
  #shift(): void {
    // Its bytes, which count no more, are free at once, and not only with a thousand others.
    this.#waiting[this.#first++] = GONE;
    if (this.#first === this.#waiting.length) {
      this.#emptied();
    } else if (this.#first === COMPACT) {
      this.#waiting.splice(0, COMPACT);
      this.#first = 0;
    }
  }

  #relieved(before: number): void {
    const low = this.#options.low ?? this.#options.limit / 4;
    if (before > low && this.pendingBytes <= low) this.#events.onWritable?.();
  }

  #emptied(): void {
    this.#waiting = [];
    this.#first = 0;
    this.#earliest = Number.POSITIVE_INFINITY;
    this.disarm();
    this.#device.forget(this);
    const done = this.#done;
    this.#done = undefined;
    done?.();
  }
}
