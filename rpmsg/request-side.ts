import type { AddressTable } from "./address-table.ts";
import type { Endpoint } from "./endpoint.ts";
import { GuestError } from "./errors.ts";
import type { RingTap } from "./ring-tap.ts";
import type { DeviceQueue } from "./virtqueue/device-queue.ts";
import { HEADER_SIZE, MAX_PAYLOAD } from "./wire/header.ts";

/** Descriptors that are taken from the guest before other work gets its turn. */
const TURN_BUDGET = 1024;

/** What the request side tells its device. */
export interface RequestEvents {
  /** The guest broke the queue. */
  onBroken(error: GuestError): void;
  /** A turn's messages are delivered, if there were any. */
  onTurn(any: boolean): void;
}

/** For a hand-over: plain data. */
export interface RequestSnapshot {
  readonly messages: number;
  readonly bytes: number;
  readonly malformed: number;
  readonly unknownAddress: number;
  readonly broken: boolean;
}

/** The way from the guest: messages from the request queue (queue 1) to the endpoints that they name. */
export class RequestSide {
  messages = 0;
  bytes = 0;
  malformed = 0;
  unknownAddress = 0;
  /** Sees every message that is taken. */
  tap: RingTap | undefined;

  readonly #endpoints: AddressTable<Endpoint>;
  readonly #events: RequestEvents;
  /** Set while the queue runs and is not broken. */
  #queue: DeviceQueue | undefined;
  #call: () => void = () => {};
  #broken = false;
  #holds = 0;
  #draining = false;
  /** The queue is about to stop: what is in it now or never, whoever holds it. */
  #halting = false;
  #drainScheduled = false;
  /** It is looked at again and again: kicks are not needed. */
  #polled = false;
  /** Something was taken in this turn. */
  #took = false;
  readonly #headerBytes = new Uint8Array(HEADER_SIZE);
  readonly #header = new Uint32Array(this.#headerBytes.buffer);
  /** For messages in several pieces; made when the first one comes. */
  #scratch: Uint8Array | undefined;

  constructor(endpoints: AddressTable<Endpoint>, events: RequestEvents) {
    this.#endpoints = endpoints;
    this.#events = events;
  }

  /** The queue runs: what is in it is taken soon. */
  start(queue: DeviceQueue, call: () => void): void {
    if (this.#broken) return;
    this.#queue = queue;
    this.#call = call;
    this.#scheduleDrain();
  }

  /** The queue stops: what the guest has sent is taken, and what was taken published. */
  halt(): void {
    const queue = this.#queue;
    if (queue === undefined) return;
    // A driver can have made at most one full ring available; a guest that goes on adding does not hold us up.
    this.#halting = true;
    for (let turns = queue.size / TURN_BUDGET; turns >= 0 && !this.drain(); turns--);
    this.#halting = false;
    // Where a handler of the drain itself stops the queue.
    if (queue.publish()) this.#call();
    this.#queue = undefined;
  }

  /** Stands still until `start`: what the guest has sent stays in the ring, what was taken is published. */
  pause(): void {
    if (this.#queue?.publish()) this.#call();
    this.#queue = undefined;
  }

  snapshot(): RequestSnapshot {
    const { messages, bytes, malformed, unknownAddress } = this;
    return { messages, bytes, malformed, unknownAddress, broken: this.#broken };
  }

  restore({ broken, ...counters }: RequestSnapshot): void {
    Object.assign(this, counters);
    this.#broken = broken;
  }

  /** The driver is gone. */
  reset(): void {
    this.#queue = undefined;
    this.#broken = false;
  }

  /** Leaves the guest's messages in the ring until `release`. Calls nest. */
  hold(): void {
    this.#holds++;
  }

  release(): void {
    if (--this.#holds === 0) this.#scheduleDrain();
  }

  /**
   * Takes the guest's messages, up to a bound, then lets others have their turn.
   * @returns whether the ring is empty, or may not be touched
   */
  drain(): boolean {
    const queue = this.#queue;
    if (queue === undefined || this.#draining) return true;
    this.#draining = true;
    this.#took = false;
    let empty = false;
    try {
      empty = this.#take(queue);
    } catch (error) {
      if (!(error instanceof GuestError)) {
        // A fault of a handler of ours goes on up; the messages behind it are taken in a turn of their own.
        this.#scheduleDrain();
        throw error;
      }
      if (queue.publish()) this.#call();
      this.#queue = undefined;
      this.#broken = true;
      this.#events.onBroken(error);
    } finally {
      this.#draining = false;
    }
    // A handler may have ended the attachment, or the guest the queue.
    if (this.#queue !== queue) return true;
    if (queue.publish()) this.#call();
    this.#events.onTurn(this.#took);
    if (!empty && this.#holds === 0) this.#scheduleDrain();
    return empty;
  }

  /** Goes without kicks from now on, for it is looked at; or, looked at once more, waits for them again. */
  setPolled(polled: boolean): void {
    this.#polled = polled;
    if (polled) this.#queue?.wantKicks(false);
    else this.drain();
  }

  /** Takes what is there. @returns false where the queue does not run */
  look(): boolean {
    this.drain();
    return this.#queue !== undefined;
  }

  /** @returns whether the ring is empty; kicks are wanted then, unless it is polled, and else not */
  #take(queue: DeviceQueue): boolean {
    let budget = TURN_BUDGET;
    queue.wantKicks(false);
    while (budget > 0 && (this.#holds === 0 || this.#halting)) {
      if (!queue.peek()) {
        if (this.#polled) return true;
        queue.wantKicks(true);
        // Kicks were off: what came meanwhile is seen only by looking again.
        if (!queue.peek()) return true;
        queue.wantKicks(false);
      }
      budget -= queue.descriptorCount;
      // Nothing is written to what the driver sends: the length is 0. Not visible before `publish`, and done first:
      // whatever the handler does, no message comes twice.
      queue.complete(0);
      this.#took = true;
      this.#receive(queue);
      if (this.#queue !== queue) return true;
    }
    return false;
  }

  /** Reads the header of the current chain once, checks the copy, and hands the payload to its endpoint. */
  #receive(queue: DeviceQueue): void {
    const available = queue.readableLength - HEADER_SIZE;
    if (available < 0) {
      this.#refuse(queue);
      return;
    }
    const { first } = queue;
    const whole = queue.readableCount === 1 && (first.offset & 3) === 0;
    let src: number;
    let dst: number;
    let length: number;
    if (whole) {
      const words = first.window.u32;
      const word = first.offset >> 2;
      src = words[word] as number;
      dst = words[word + 1] as number;
      length = (words[word + 3] as number) & 0xffff;
    } else {
      queue.gather(this.#headerBytes, HEADER_SIZE);
      src = this.#header[0] as number;
      dst = this.#header[1] as number;
      length = (this.#header[3] as number) & 0xffff;
    }
    if (length > available) {
      this.#refuse(queue);
      return;
    }
    const endpoint = this.#endpoints.get(dst);
    if (this.tap !== undefined) this.tap.taken(queue, endpoint !== undefined, src, dst, length);
    if (endpoint === undefined) {
      this.unknownAddress++;
      return;
    }
    this.messages++;
    this.bytes += length;
    if (queue.readableCount === 1) {
      endpoint.receive(src, first.window.u8, first.offset + HEADER_SIZE, length);
      return;
    }
    this.#scratch ??= new Uint8Array(HEADER_SIZE + MAX_PAYLOAD);
    queue.gather(this.#scratch, HEADER_SIZE + length);
    endpoint.receive(src, this.#scratch, HEADER_SIZE, length);
  }

  /** The current chain is no message. */
  #refuse(queue: DeviceQueue): void {
    this.malformed++;
    this.tap?.malformed(queue);
  }

  #scheduleDrain(): void {
    if (this.#drainScheduled) return;
    this.#drainScheduled = true;
    setImmediate(() => {
      this.#drainScheduled = false;
      this.drain();
    });
  }
}
