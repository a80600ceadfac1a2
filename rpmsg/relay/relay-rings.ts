import { SystemError } from "../errors.ts";
import type { MemoryWindow } from "../memory/guest-memory.ts";
import { GuestMemory } from "../memory/guest-memory.ts";
import { mappedRegion } from "../memory/mapped-memory.ts";
import { errnoName } from "../posix/errno.ts";
import { createMemory } from "../posix/shared-memory.ts";
import type { FrontendSetup } from "../vhost-user/frontend.ts";
import { feature, hasBit } from "../vhost-user/messages.ts";
import { DriverQueue } from "../virtqueue/driver-queue.ts";
import type { RingAddresses } from "../virtqueue/layout.ts";
import { ringSizes } from "../virtqueue/layout.ts";
import { HEADER_SIZE, MAX_PAYLOAD } from "../wire/header.ts";
import { ByteRing } from "./byte-ring.ts";

/** The largest queue (virtio 1.3, 2.7). */
const MAX_QUEUE_SIZE = 32_768;
/** A message with its header is never longer. */
const MAX_MESSAGE = HEADER_SIZE + MAX_PAYLOAD;
/** Bytes of the buffers of one direction that are out at a time: enough for a usual ring of the longest messages. */
const MAX_OUT = 2 ** 24;
const PAGE = 4096;
/** Address of the memory, for both sides. */
const BASE = 2 ** 20;

/**
 * The rings between a relay and the bridge, in a sealed memory file of their own: the relay is the driver, the bridge
 * the device. In the response queue there is a buffer for each one that the guest has posted, at the descriptor of the
 * same number; in the request queue are copies of the guest's messages.
 *
 * The request queue has twice the guest's size: half of it is kept for what is in the guest's ring when that stops.
 */
export class RelayRings {
  /** What the bridge is told of them. */
  readonly setup: FrontendSetup;
  readonly response: DriverQueue;
  readonly request: DriverQueue;
  readonly window: MemoryWindow;
  readonly #memory = new GuestMemory();
  readonly #responseBytes: ByteRing;
  readonly #requestBytes: ByteRing;
  /** Where the buffers begin in the window. */
  readonly #responseBase: number;
  readonly #requestBase: number;
  /** Messages that may be out while the guest's queue runs. */
  readonly #requestLimit: number;
  /** By descriptor: offset in its ring of bytes, and length. */
  readonly #responseOffsets: Int32Array;
  readonly #responseLengths: Int32Array;
  readonly #requestOffsets: Int32Array;
  readonly #requestLengths: Int32Array;

  /**
   * @param sizes of the guest's queues
   * @param features that the guest negotiated
   * @throws SystemError no memory or no descriptor is left
   */
  constructor(sizes: { response: number; request: number }, features: bigint) {
    const requestSize = Math.min(2 * sizes.request, MAX_QUEUE_SIZE);
    this.#responseBytes = new ByteRing(capacity(sizes.response, MAX_OUT));
    this.#requestBytes = new ByteRing(capacity(requestSize, 2 * MAX_OUT));
    let next = 0;
    const take = (bytes: number): number => {
      const offset = next;
      next += align(bytes);
      return offset;
    };
    const ring = (size: number): RingAddresses => {
      const bytes = ringSizes(size);
      const descriptors = BASE + take(bytes.descriptors);
      return { descriptors, available: BASE + take(bytes.available), used: BASE + take(bytes.used) };
    };
    const responseRing = ring(sizes.response);
    const requestRing = ring(requestSize);
    this.#responseBase = take(this.#responseBytes.capacity);
    this.#requestBase = take(this.#requestBytes.capacity);

    const fd = createMemory("rpmsg-relay", next);
    if (fd < 0) throw new SystemError("socket", `cannot make memory for the relay: ${errnoName(fd)}`);
    const region = mappedRegion(fd, 0, BASE, BASE, next);
    this.#memory.add(region);
    [this.window] = region.windows as [MemoryWindow];
    const queue = (size: number, addresses: RingAddresses) =>
      new DriverQueue({
        memory: this.#memory,
        size,
        addresses,
        indirect: false,
        eventIndex: hasBit(features, feature.EVENT_IDX),
      });
    this.response = queue(sizes.response, responseRing);
    this.request = queue(requestSize, requestRing);
    this.#requestLimit = sizes.request;
    this.#responseOffsets = new Int32Array(sizes.response);
    this.#responseLengths = new Int32Array(sizes.response);
    this.#requestOffsets = new Int32Array(requestSize);
    this.#requestLengths = new Int32Array(requestSize);
    this.setup = {
      features,
      memory: [{ guestAddress: BASE, userAddress: BASE, size: next, fileOffset: 0, fd: region.fd }],
      vrings: [
        { size: sizes.response, addresses: responseRing },
        { size: requestSize, addresses: requestRing },
      ],
    };
  }

  /**
   * Posts a buffer to the bridge, at this descriptor.
   * @param bytes that the guest's buffer holds; more than a message has is of no use
   * @returns "full": its turn comes when others are back; "out": the descriptor is out
   */
  post(head: number, bytes: number): "posted" | "full" | "out" {
    const length = Math.min(bytes, MAX_MESSAGE);
    const offset = this.#responseBytes.take(length);
    if (offset === -1) return "full";
    if (!this.response.addAt(head, BASE + this.#responseBase + offset, length, true)) return "out";
    this.#responseOffsets[head] = offset;
    this.#responseLengths[head] = length;
    return "posted";
  }

  /** Where a buffer is in the window that the bridge has used. */
  responseAt(head: number): number {
    return this.#responseBase + (this.#responseOffsets[head] as number);
  }

  /** Its message is with the guest. In the order in which they were posted, as the bridge uses them. */
  giveResponse(head: number): void {
    this.#responseBytes.give(this.#responseOffsets[head] as number, this.#responseLengths[head] as number);
  }

  /**
   * Makes room for a message to the bridge.
   * @param all what is kept for the guest's last messages too
   * @returns where to write it in the window, -1 when there is no room; then `offer`
   */
  room(bytes: number, all: boolean): number {
    const { request } = this;
    if (request.free === 0) return -1;
    const ring = this.#requestBytes;
    if (!all) {
      if (request.size - request.free >= this.#requestLimit) return -1;
      if (ring.used > 0 && ring.used + bytes > ring.capacity / 2) return -1;
    }
    const offset = ring.take(bytes);
    return offset === -1 ? -1 : this.#requestBase + offset;
  }

  /** Puts what was written there in the queue; `request.publish` shows it to the bridge. */
  offer(at: number, bytes: number): void {
    const head = this.request.add(BASE + at, bytes, false);
    this.#requestOffsets[head] = at - this.#requestBase;
    this.#requestLengths[head] = bytes;
  }

  /** Takes back what the bridge has read. */
  reclaim(): void {
    for (let head = this.request.popUsed(); head !== -1; head = this.request.popUsed()) {
      this.#requestBytes.give(this.#requestOffsets[head] as number, this.#requestLengths[head] as number);
    }
  }

  close(): void {
    this.#memory.close();
  }
}

/** Bytes for so many messages; one may have to leave room at the end free. */
function capacity(count: number, most: number): number {
  return align(Math.min(count * MAX_MESSAGE, most) + MAX_MESSAGE);
}

function align(bytes: number): number {
  return Math.ceil(bytes / PAGE) * PAGE;
}
