import { GuestError } from "./errors.ts";
import type { RingTap } from "./ring-tap.ts";
import type { SendQueue, SendQueueDevice } from "./send-queue.ts";
import type { DeviceQueue } from "./virtqueue/device-queue.ts";
import { DEFAULT_MTU, HEADER_SIZE, MAX_PAYLOAD } from "./wire/header.ts";

/** Descriptors of the guest that are looked at before other work gets its turn: a guest may post buffers without end. */
const TURN_BUDGET = 1024;

/** What the response side tells its device. */
export interface ResponseEvents {
  /** The guest broke the queue. */
  onBroken(error: GuestError): void;
  /** The guest is shown what was sent in a turn. */
  onTurn(): void;
  /** Nothing waits to be sent any more. */
  onIdle(): void;
  /** A message that found no buffer, or no peer, is in the queue after so many milliseconds. */
  onWaited(milliseconds: number): void;
}

/** For a hand-over: plain data. */
export interface ResponseSnapshot {
  readonly mtu: number;
  readonly messages: number;
  readonly bytes: number;
  readonly broken: boolean;
  readonly listening: boolean;
  /** Deadlines stand still: the guest itself is paused. */
  readonly frozen: boolean;
}

/** Who is told of a message that the driver may not have read before a reset. */
export interface Sender {
  unconfirmed(ticket: unknown): void;
}

/** A message in a buffer that the driver has not posted anew, by the buffer's first descriptor. */
export interface Unread {
  readonly head: number;
  readonly ticket: unknown;
}

/**
 * The way to the guest: messages into the buffers of the response queue (queue 0), and the send queues of all senders,
 * which are served in turn while there are buffers.
 */
export class ResponseSide implements SendQueueDevice {
  /** Payload bytes that fit in the guest's buffers; taken from the ring, 496 until the first one was seen. */
  mtu = DEFAULT_MTU;
  messages = 0;
  bytes = 0;
  /** Sees every message that is sent. */
  tap: RingTap | undefined;

  readonly #events: ResponseEvents;
  /** Set while the queue runs and is not broken. */
  #queue: DeviceQueue | undefined;
  #call: () => void = () => {};
  #broken = false;
  /** The driver has kicked the queue: it has posted its buffers and listens. */
  #listening = false;
  /** Queues with messages for the guest, served in turn. */
  readonly #waiting: SendQueue[] = [];
  /** Queues whose first message waits for the peer's address. */
  readonly #peerless = new Set<SendQueue>();
  #publishScheduled = false;
  #serveScheduled = false;
  /** What the clock said when the first message of this `serve` went; 0 before. */
  #servedAt = 0;
  #clockOffset = 0;
  #frozenAt: number | undefined;
  readonly #header = new Uint32Array(HEADER_SIZE / 4);
  /**
   * By descriptor: whose message lies in its buffer, and the ticket of it. Posted anew, a buffer was read; at a reset
   * nobody knows of those that were not.
   */
  #senders: (Sender | undefined)[] = [];
  #tickets: unknown[] = [];

  constructor(events: ResponseEvents) {
    this.#events = events;
  }

  get listening(): boolean {
    return this.#listening;
  }

  /** The queue runs. Messages go out from the first kick on. */
  start(queue: DeviceQueue, call: () => void): void {
    this.#thaw();
    if (this.#broken) return;
    this.#queue = queue;
    this.#call = call;
    // Filled to the queue's size, so that the arrays stay dense.
    while (this.#senders.length < queue.size) {
      this.#senders.push(undefined);
      this.#tickets.push(undefined);
    }
    queue.wantKicks(!this.#listening);
    this.serve();
  }

  /** The queue stops: what was sent is published. */
  halt(): void {
    this.publish();
    this.#leave();
  }

  /** Deadlines stand still, as the guest does. */
  freeze(): void {
    this.#frozenAt ??= this.clock();
    for (const queue of this.#queues()) queue.disarm();
  }

  /** The driver is gone: what waits is dropped, and what it has not read may be lost. */
  reset(): void {
    this.#queue = undefined;
    this.#broken = false;
    this.#listening = false;
    this.#thaw();
    const senders = this.#senders;
    const tickets = this.#tickets;
    this.#senders = [];
    this.#tickets = [];
    for (const [head, sender] of senders.entries()) sender?.unconfirmed(tickets[head]);
    for (const queue of this.#queues()) queue.drop("guest-gone");
  }

  snapshot(): ResponseSnapshot {
    const { mtu, messages, bytes } = this;
    const frozen = this.#frozenAt !== undefined;
    return { mtu, messages, bytes, broken: this.#broken, listening: this.#listening, frozen };
  }

  restore({ mtu, messages, bytes, broken, listening, frozen }: ResponseSnapshot): void {
    Object.assign(this, { mtu, messages, bytes });
    this.#broken = broken;
    this.#listening = listening;
    if (frozen) this.freeze();
  }

  /** What the guest may not have read yet, by sender. To be asked while the queue stands still. */
  unread(): Map<Sender, Unread[]> {
    const bySender = new Map<Sender, Unread[]>();
    for (const [head, sender] of this.#senders.entries()) {
      if (sender === undefined) continue;
      const own = bySender.get(sender) ?? [];
      own.push({ head, ticket: this.#tickets[head] });
      bySender.set(sender, own);
    }
    return bySender;
  }

  /** These buffers hold messages of this sender. */
  restoreUnread(sender: Sender, unread: readonly Unread[]): void {
    for (const { head, ticket } of unread) {
      while (this.#senders.length <= head) {
        this.#senders.push(undefined);
        this.#tickets.push(undefined);
      }
      this.#senders[head] = sender;
      this.#tickets[head] = ticket;
    }
  }

  close(): void {
    this.#queue = undefined;
    for (const queue of this.#queues()) queue.close();
  }

  /** The driver kicked for the first time: it has posted its buffers. */
  listen(): void {
    this.#listening = true;
    // The first look tells the size of the guest's buffers.
    this.#hasBuffer();
  }

  transmit(
    src: number,
    dst: number,
    bytes: Uint8Array,
    offset: number,
    length: number,
    sender: SendQueue,
    ticket: unknown,
  ): "sent" | "too-large" | "no-buffer" {
    // The chain is left in the ring where the message does not fit it.
    if (!this.#listening || !this.#hasBuffer()) return "no-buffer";
    const queue = this.#queue as DeviceQueue;
    if (length > this.mtu) return "too-large";
    const header = this.#header;
    header[0] = src;
    header[1] = dst;
    header[2] = 0;
    header[3] = length;
    queue.writeMessage(header, bytes, offset, length);
    // Exactly what was written: Linux takes the length from here too (virtio_rpmsg_bus.c: rpmsg_recv_single).
    queue.complete(HEADER_SIZE + length);
    this.#senders[queue.head] = sender;
    this.#tickets[queue.head] = ticket;
    this.messages++;
    this.bytes += length;
    if (this.tap !== undefined) this.tap.sent(src, dst, bytes, offset, length);
    this.#schedulePublish();
    return "sent";
  }

  /** Whether nothing waits to be sent. */
  get idle(): boolean {
    return this.#waiting.length === 0 && this.#peerless.size === 0;
  }

  /** Bytes that wait to be sent, 16 for each message included. */
  get pendingBytes(): number {
    return this.#queues().reduce((sum, queue) => sum + queue.pendingBytes, 0);
  }

  /** Messages that wait to be sent. */
  get pending(): number {
    return this.#queues().reduce((sum, queue) => sum + queue.pending, 0);
  }

  get contended(): boolean {
    return this.#waiting.length > 0;
  }

  wait(queue: SendQueue): void {
    this.#waiting.push(queue);
    this.#wantBuffers();
  }

  forget(queue: SendQueue): void {
    this.#peerless.delete(queue);
    const index = this.#waiting.indexOf(queue);
    if (index !== -1) this.#waiting.splice(index, 1);
    if (this.idle) this.#events.onIdle();
  }

  advanced(queue: SendQueue): void {
    if (this.#peerless.delete(queue)) this.wait(queue);
  }

  waited(since: number): void {
    if (this.#servedAt === 0) this.#servedAt = this.clock();
    this.#events.onWaited(this.#servedAt - since);
  }

  clock(): number {
    return this.#frozenAt ?? performance.now() - this.#clockOffset;
  }

  /** A peer's address is known now: somebody may have waited for it. */
  peerLearned(): void {
    if (this.#peerless.size === 0) return;
    this.#waiting.push(...this.#peerless);
    this.#peerless.clear();
    this.serve();
  }

  /** One message of each waiting queue in turn, as long as there are buffers, up to a bound; the rest in a later turn. */
  serve(): void {
    if (this.#queue === undefined || !this.#listening) return;
    this.#servedAt = 0;
    let budget = TURN_BUDGET;
    for (let queue = this.#waiting[0]; queue !== undefined && budget > 0; queue = this.#waiting[0]) {
      const result = queue.serve();
      if (result === "no-buffer") break;
      budget -= this.#queue?.descriptorCount ?? 1;
      // A queue that is empty took itself out; one that is not goes to the end.
      if (this.#waiting[0] !== queue) continue;
      this.#waiting.shift();
      if (result === "no-peer") this.#peerless.add(queue);
      else if (queue.pending > 0) this.#waiting.push(queue);
    }
    this.#wantBuffers();
  }

  /** Shows the guest what was sent. */
  publish(): void {
    if (this.#queue?.publish()) this.#call();
  }

  /** One publish, and at most one call, for all that is sent in this turn of the event loop. */
  #schedulePublish(): void {
    if (this.#publishScheduled) return;
    this.#publishScheduled = true;
    setImmediate(() => {
      this.#publishScheduled = false;
      this.publish();
      this.#events.onTurn();
    });
  }

  /** Asks for kicks while something waits for buffers, and looks once more. */
  #wantBuffers(): void {
    if (this.#queue === undefined || !this.#listening) return;
    const wanted = this.#waiting.length > 0;
    this.#queue.wantKicks(wanted);
    // A buffer posted just before the flag was set comes without a kick.
    if (!wanted || this.#serveScheduled || !this.#hasBuffer()) return;
    this.#serveScheduled = true;
    setImmediate(() => {
      this.#serveScheduled = false;
      this.serve();
      this.publish();
    });
  }

  /** Whether the driver has posted a buffer; takes its size for the MTU. */
  #hasBuffer(): boolean {
    const queue = this.#queue;
    if (queue === undefined) return false;
    try {
      if (!queue.peek()) return false;
      const room = queue.writableLength - HEADER_SIZE;
      if (room < 0) {
        throw new GuestError("buffer-too-small", `a receive buffer of ${queue.writableLength} bytes`);
      }
      this.mtu = Math.min(room, MAX_PAYLOAD);
      return true;
    } catch (error) {
      // Anything else is a fault of ours.
      if (!(error instanceof GuestError)) throw error;
      // What was sent before has been reported as sent.
      this.publish();
      this.#leave();
      this.#broken = true;
      this.#events.onBroken(error);
      return false;
    }
  }

  /** Touches the queue no more. Buffers that are posted anew at this moment were read. */
  #leave(): void {
    for (const head of this.#queue?.posted() ?? []) {
      this.#senders[head] = undefined;
      this.#tickets[head] = undefined;
    }
    this.#queue = undefined;
  }

  #thaw(): void {
    if (this.#frozenAt === undefined) return;
    this.#clockOffset = performance.now() - this.#frozenAt;
    this.#frozenAt = undefined;
    for (const queue of this.#queues()) queue.arm();
  }

  #queues(): SendQueue[] {
    return [...this.#waiting, ...this.#peerless];
  }
}
