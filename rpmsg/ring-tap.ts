import { copyBytes } from "./memory/copy-bytes.ts";
import type { DeviceQueue } from "./virtqueue/device-queue.ts";
import { HEADER_SIZE, MAX_PAYLOAD, writeHeader } from "./wire/header.ts";

/**
 * What became of a message that went through a ring. `passed`: it was put in the response queue, or handed to the
 * endpoint of its destination. The others are the guest's: `malformed` as the counter says, and `unknown-address`.
 */
export type TapOutcome = "passed" | "malformed" | "unknown-address";

/** A message of a ring: it and `packet` are valid during the call only. */
export interface TappedMessage {
  toGuest: boolean;
  outcome: TapOutcome;
  /** Of a malformed message what its first bytes would say, or 0. */
  src: number;
  dst: number;
  /** Header and payload, `length` bytes from its start; of what is longer than any message only the beginning. */
  readonly packet: Uint8Array;
  length: number;
  /** Bytes of the message in the ring. */
  originalLength: number;
}

/** Sees every message of both rings. It must not throw, and it must not send. */
export type TapHandler = (message: TappedMessage) => void;

/**
 * Looks at what goes through the rings of a device: a copy for a capture. The device asks once a message whether there
 * is one.
 *
 * What the guest sent is shown with the source, the destination and the length that the device read: the guest may have
 * changed them since. The payload is read once more, as the endpoint reads it.
 */
export class RingTap {
  readonly #handler: TapHandler;
  readonly #message: TappedMessage = {
    ...{ toGuest: false, outcome: "passed", src: 0, dst: 0, length: 0, originalLength: 0 },
    packet: new Uint8Array(HEADER_SIZE + MAX_PAYLOAD),
  };
  readonly #view = new DataView(this.#message.packet.buffer);

  constructor(handler: TapHandler) {
    this.#handler = handler;
  }

  /** A message was put in the response queue. */
  sent(src: number, dst: number, bytes: Uint8Array, offset: number, length: number): void {
    const { packet } = this.#message;
    writeHeader(packet, 0, src, dst, length);
    copyBytes(bytes, offset, packet, HEADER_SIZE, length);
    this.#show(true, "passed", src, dst, HEADER_SIZE + length, HEADER_SIZE + length);
  }

  /**
   * The current chain of the request queue is a message with this header.
   * @param known an endpoint has the address
   */
  taken(queue: DeviceQueue, known: boolean, src: number, dst: number, payloadLength: number): void {
    const { packet } = this.#message;
    const length = HEADER_SIZE + payloadLength;
    queue.gather(packet, length);
    // The reserved word and the flags stay as the guest has them.
    this.#view.setUint32(0, src, true);
    this.#view.setUint32(4, dst, true);
    this.#view.setUint16(12, payloadLength, true);
    this.#show(false, known ? "passed" : "unknown-address", src, dst, length, length);
  }

  /** The current chain of the request queue is no message: it is shown as it is. */
  malformed(queue: DeviceQueue): void {
    const { packet } = this.#message;
    const { readableLength } = queue;
    const length = Math.min(readableLength, packet.length);
    queue.gather(packet, length);
    const isHeader = length >= HEADER_SIZE;
    const src = isHeader ? this.#view.getUint32(0, true) : 0;
    const dst = isHeader ? this.#view.getUint32(4, true) : 0;
    this.#show(false, "malformed", src, dst, length, readableLength);
  }

  #show(
    toGuest: boolean,
    outcome: TapOutcome,
    src: number,
    dst: number,
    length: number,
    originalLength: number,
  ): void {
    const message = this.#message;
    message.toGuest = toGuest;
    message.outcome = outcome;
    message.src = src;
    message.dst = dst;
    message.length = length;
    message.originalLength = originalLength;
    this.#handler(message);
  }
}
