import type { DriverQueue, MemoryWindow } from "../rpmsg/index.ts";
import { HEADER_SIZE } from "../rpmsg/index.ts";
import type { FaultState } from "./faults.ts";
import type { Profile } from "./profiles.ts";

/** Messages that are taken before other work gets its turn. */
const TURN_BUDGET = 1024;

export interface ReceiveOptions {
  profile: Profile;
  faults: FaultState;
  /** The window that holds the ring and the buffers. */
  window: MemoryWindow;
  queue: DriverQueue;
  /** Guest-physical address of the first buffer; the others follow. */
  buffers: number;
  /** Hands over a message. @returns false when it cannot be taken now: it comes again with the next `take` */
  deliver: (src: number, dst: number, bytes: Uint8Array, offset: number, length: number) => boolean;
  /** Asks for a `take` in a turn of its own. */
  again: () => void;
}

/** A received message in its buffer. */
interface Received {
  /** Guest-physical address of the buffer: descriptors are used again meanwhile. */
  address: number;
  /** Bytes that the device wrote. */
  written: number;
}

/** One that waits for its time. */
interface LateMessage extends Received {
  /** When it arrived. */
  at: number;
}

/** The way into the guest: buffers posted, messages taken from them, buffers posted again. */
export class ReceiveSide {
  readonly #options: ReceiveOptions;
  readonly #deliver: ReceiveOptions["deliver"];
  readonly #faults: FaultState;
  readonly #window: MemoryWindow;
  readonly #queue: DriverQueue;
  /** Guest-physical address of the buffer at a descriptor that is out. */
  readonly #address: Float64Array;
  /** The message that could not be delivered yet. */
  #current: Received | undefined;
  readonly #currentStore: Received = { address: 0, written: 0 };
  /** With a delay: messages whose time has not come, oldest first. */
  readonly #late: LateMessage[] = [];
  #timer: NodeJS.Timeout | undefined;
  /** Used buffers that are not posted again. */
  readonly #kept: number[] = [];
  #stopped = false;

  constructor(options: ReceiveOptions) {
    const { profile, queue, buffers } = options;
    this.#options = options;
    this.#deliver = options.deliver;
    this.#faults = options.faults;
    this.#window = options.window;
    this.#queue = queue;
    this.#address = new Float64Array(queue.size);
    for (let i = 0; i < profile.bufferCount; i++) this.#post(buffers + i * profile.bufferSize);
    queue.publish();
  }

  /** Takes what the device has sent. */
  take(): void {
    if (this.#faults.delay > 0 || this.#late.length > 0) {
      this.#takeLate();
      return;
    }
    const queue = this.#queue;
    queue.wantCalls(false);
    for (let budget = TURN_BUDGET; budget > 0; budget--) {
      let current = this.#current;
      if (current === undefined) {
        let head = queue.popUsed();
        if (head === -1) {
          queue.wantCalls(true);
          head = queue.popUsed();
          if (head === -1) return;
          queue.wantCalls(false);
        }
        current = this.#currentStore;
        current.address = this.#address[head] as number;
        current.written = queue.usedLength;
      }
      const result = this.#read(current.address, current.written);
      if (this.#stopped) return;
      if (result === "later") {
        // As a reader that sleeps in its answer: nothing more is taken until a transmit buffer is back.
        this.#current = current;
        return;
      }
      this.#current = undefined;
      if (result === "lost") {
        // Linux leaves its loop here and waits for the next call (virtio_rpmsg_bus.c: rpmsg_recv_done).
        queue.wantCalls(true);
        return;
      }
      this.#refill(current.address);
    }
    this.#options.again();
  }

  /** Shows posted buffers to the device. @returns whether it is to be kicked */
  publish(): boolean {
    return this.#queue.publish();
  }

  /** The faults are others than before: buffers that were kept are posted where they may be. */
  faultsChanged(): void {
    if (!this.#faults.neverRefill) for (const address of this.#kept.splice(0)) this.#post(address);
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  /** As `take`, each message so much later; until then it has its buffer. */
  #takeLate(): void {
    const queue = this.#queue;
    const late = this.#late;
    const now = performance.now();
    if (this.#current !== undefined) {
      late.push({ ...this.#current, at: Number.NEGATIVE_INFINITY });
      this.#current = undefined;
    }
    for (;;) {
      let head = queue.popUsed();
      if (head === -1) {
        queue.wantCalls(true);
        head = queue.popUsed();
        if (head === -1) break;
      }
      late.push({ address: this.#address[head] as number, written: queue.usedLength, at: now });
    }
    clearTimeout(this.#timer);
    for (let first = late[0]; first !== undefined; first = late[0]) {
      const rest = first.at + this.#faults.delay - now;
      if (rest > 0) {
        this.#timer = setTimeout(() => this.#options.again(), Math.ceil(rest)).unref();
        return;
      }
      const result = this.#read(first.address, first.written);
      if (this.#stopped || result === "later") return;
      late.shift();
      if (result === "taken") this.#refill(first.address);
    }
  }

  /** Hands over one received message. */
  #read(address: number, written: number): "taken" | "later" | "lost" {
    const { u8, u32, guestAddress } = this.#window;
    const offset = address - guestAddress;
    const word = offset >> 2;
    const src = u32[word] as number;
    const dst = u32[word + 1] as number;
    const length = (u32[word + 3] as number) & 0xffff;
    if (length > written - HEADER_SIZE) {
      return this.#options.profile.badLength === "lose-buffer" ? "lost" : "taken";
    }
    return this.#deliver(src, dst, u8, offset + HEADER_SIZE, length) ? "taken" : "later";
  }

  /** The message is done with: its buffer is for the next one. */
  #refill(address: number): void {
    if (this.#faults.neverRefill) this.#kept.push(address);
    else this.#post(address);
  }

  #post(address: number): void {
    const head = this.#queue.add(address, this.#options.profile.bufferSize, true);
    this.#address[head] = address;
  }
}
