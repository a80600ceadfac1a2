import type { DriverQueue, MemoryWindow } from "../rpmsg/index.ts";
import { copyBytes, HEADER_SIZE, NAME_SERVICE_ADDRESS } from "../rpmsg/index.ts";
import type { FaultState } from "./faults.ts";
import type { Profile } from "./profiles.ts";
import { payloadLength } from "./profiles.ts";

/** A length that fits no buffer. */
const CORRUPT_LENGTH = 0xffff;

export interface TransmitOptions {
  profile: Profile;
  faults: FaultState;
  /** The window that holds the ring and the buffers. */
  window: MemoryWindow;
  queue: DriverQueue;
  /** Guest-physical address of the first buffer; the others follow. */
  buffers: number;
  /** The device is to look at the queue. */
  kick: () => void;
}

/** The way out of the guest: messages in transmit buffers, and senders that sleep until one is free. */
export class TransmitSide {
  readonly #options: TransmitOptions;
  readonly #profile: Profile;
  readonly #faults: FaultState;
  readonly #window: MemoryWindow;
  readonly #queue: DriverQueue;
  readonly #mtu: number;
  /** Guest-physical address of the buffer at a descriptor that is out. */
  readonly #address: Float64Array;
  /** Buffers that were never used. */
  #fresh: number;
  #sleeping = false;

  constructor(options: TransmitOptions) {
    this.#options = options;
    this.#profile = options.profile;
    this.#faults = options.faults;
    this.#window = options.window;
    this.#queue = options.queue;
    this.#mtu = options.profile.bufferSize - HEADER_SIZE;
    this.#address = new Float64Array(options.queue.size);
    this.#fresh = options.profile.bufferCount;
    // Linux: "suppress tx-complete interrupts", until a sender sleeps.
    options.queue.wantCalls(false);
  }

  /**
   * Puts a message in the queue; `publish` shows it to the device.
   * @returns false when no buffer is free: `wake` tells when one is
   * @throws RangeError where the profile refuses a message that is too long
   */
  send(src: number, dst: number, bytes: Uint8Array, offset: number, length: number): boolean {
    const payload = length > this.#mtu ? payloadLength(this.#profile, length) : length;
    const address = this.#buffer();
    if (address === -1) return false;
    const { u8, u32, guestAddress } = this.#window;
    const at = address - guestAddress;
    const word = at >> 2;
    u32[word] = src;
    u32[word + 1] = dst;
    u32[word + 2] =
      this.#profile.reserved === "zero" ? 0 : (address - this.#options.buffers) / this.#profile.bufferSize;
    u32[word + 3] = payload;
    if (this.#faults.corruptLength > 0 && dst !== NAME_SERVICE_ADDRESS) {
      this.#faults.corruptLength--;
      u32[word + 3] = CORRUPT_LENGTH;
    }
    copyBytes(bytes, offset, u8, at + HEADER_SIZE, payload);
    const head = this.#queue.add(address, HEADER_SIZE + payload, false);
    this.#address[head] = address;
    return true;
  }

  /** The device called. @returns whether there are senders that slept: they may go on */
  wake(): boolean {
    if (!this.#sleeping) return false;
    this.#awake();
    return true;
  }

  /** Shows the messages to the device. @returns whether it is to be kicked */
  publish(): boolean {
    return this.#queue.publish();
  }

  /** A free buffer's address, -1 when all are out; then the device's call wakes us. */
  #buffer(): number {
    if (this.#profile.transmitOrder === "fresh-first" && this.#fresh > 0) return this.#nextFresh();
    let head = this.#queue.popUsed();
    if (head === -1 && this.#fresh > 0) return this.#nextFresh();
    if (head === -1) {
      const slept = this.#sleeping;
      this.#sleeping = true;
      this.#queue.publish();
      this.#queue.wantCalls(true);
      head = this.#queue.popUsed();
      if (head === -1) {
        // All are with the device: it must know.
        this.#options.kick();
        return -1;
      }
      // Who slept before still waits for the call.
      if (!slept) this.#awake();
    }
    return this.#address[head] as number;
  }

  #nextFresh(): number {
    const index = this.#profile.bufferCount - this.#fresh--;
    return this.#options.buffers + index * this.#profile.bufferSize;
  }

  #awake(): void {
    this.#sleeping = false;
    this.#queue.wantCalls(false);
  }
}
