import { AddressTable } from "./address-table.ts";
import type { MessageHandler } from "./endpoint.ts";
import { Endpoint } from "./endpoint.ts";
import { GuestError, RpmsgError } from "./errors.ts";
import type { GuestAnnouncement, HostAnnouncement } from "./name-service.ts";
import { NameService } from "./name-service.ts";
import type { SendQueueDevice, SendQueueEvents, SendQueueOptions, Target } from "./send-queue.ts";
import { SendQueue } from "./send-queue.ts";
import type { DeviceQueue, QueuePosition, Segment } from "./virtqueue/device-queue.ts";
import { DEFAULT_MTU, HEADER_SIZE, NAME_SERVICE_ADDRESS } from "./wire/header.ts";

/** Queue 0, device to driver: the driver calls it rx. */
export const RESPONSE_QUEUE = 0;
/** Queue 1, driver to device: the driver calls it tx. */
export const REQUEST_QUEUE = 1;

/** Device feature bit: name service (virtio_rpmsg_bus.c: VIRTIO_RPMSG_F_NS). */
export const RPMSG_F_NS = 0;
/** Device feature bit of Linux from 2026 on: buffer sizes in the configuration space. */
export const RPMSG_F_BUFSZ = 1;

/** What a transport hands over when the driver's two queues run. */
export interface RunningRings {
  readonly response: DeviceQueue;
  readonly request: DeviceQueue;
  /** RPMSG_F_NS was negotiated. */
  readonly nameService: boolean;
  /** Calls the driver: one of its buffers in this queue was used. */
  call(queue: number): void;
  /** The guest broke this queue and it was stopped. */
  failed(queue: number, error: GuestError): void;
}

/** detached: no driver; suspended: a driver whose queues are stopped, perhaps for a pause; attached: it runs. */
export type DeviceState = "detached" | "suspended" | "attached";

export interface DeviceEvents {
  /** The state changed. A `reset` comes before the change that it belongs to. */
  onState?(state: DeviceState): void;
  /** The guest forgot all that was said: `generation` is the new one. Withdrawals of its services follow. */
  onReset?(generation: number): void;
  onAnnounced?(announcement: GuestAnnouncement): void;
  onWithdrawn?(announcement: GuestAnnouncement): void;
  /** `told` of a host announcement changed. */
  onTold?(announcement: HostAnnouncement): void;
  /** The address of an endpoint's peer is known, or is another one. */
  onPeer?(endpoint: Endpoint): void;
  /** Nothing waits to be sent any more. */
  onIdle?(): void;
  /** The guest broke a queue, which is stopped until a reset. */
  onError?(queue: number, error: GuestError): void;
}

export interface DeviceOptions {
  /** Most services of the guest that are kept. */
  maxGuestAnnouncements?: number;
  /** Bounds of the dynamic local addresses, both inclusive. */
  dynamicAddresses?: readonly [first: number, last: number];
}

/** Messages and bytes are payload; everything counts from the device's creation on. */
export interface DeviceCounters {
  messagesToGuest: number;
  bytesToGuest: number;
  messagesFromGuest: number;
  bytesFromGuest: number;
  /** Messages of the guest with a header that does not fit its buffer, or without one. */
  malformed: number;
  /** Messages of the guest to an address that nobody has. */
  unknownAddress: number;
  /** Name-service messages while the feature is not negotiated. */
  nameServiceOff: number;
  /** Name-service messages of a wrong length or address. */
  nameServiceMalformed: number;
  /** Creates beyond the limit. */
  nameServiceLimit: number;
  /** Creates of what exists, destroys of what does not. */
  nameServiceIgnored: number;
  /** Queues that the guest broke. */
  brokenQueues: number;
}

/** Messages that are taken from the guest before other work gets its turn. */
const TURN_BUDGET = 1024;

const MAX_PAYLOAD = 0xffff;

/**
 * The device side of virtio-rpmsg: one guest, two queues, any number of endpoints.
 *
 * A transport (vhost-user, or an emulated guest in this process) calls `start` when the driver's queues run, `kicked`
 * on kicks, `stop` when they stop and `reset` when the driver or the connection is gone.
 */
export class RpmsgDevice implements SendQueueDevice {
  /** Number of the attachment: it grows with every reset of a guest that had been attached. */
  generation = 1;
  /** Payload bytes that fit in the guest's buffers; taken from the ring, 496 until the first one was seen. */
  mtu = DEFAULT_MTU;
  readonly counters: DeviceCounters = {
    messagesToGuest: 0,
    bytesToGuest: 0,
    messagesFromGuest: 0,
    bytesFromGuest: 0,
    malformed: 0,
    unknownAddress: 0,
    nameServiceOff: 0,
    nameServiceMalformed: 0,
    nameServiceLimit: 0,
    nameServiceIgnored: 0,
    brokenQueues: 0,
  };

  readonly #events: DeviceEvents;
  readonly #endpoints: AddressTable<Endpoint>;
  readonly #nameService: NameService;
  readonly #nameServiceQueue: SendQueue;

  #state: DeviceState = "detached";
  /** Set while the queues run. */
  #rings: RunningRings | undefined;
  /** A driver was attached in this generation: its end is a reset. */
  #used = false;
  /** Where the queues stood at the last stop. */
  #stoppedAt: readonly [response: QueuePosition, request: QueuePosition] | undefined;
  /** The driver has kicked queue 0: it has posted its buffers and listens. */
  #listening = false;
  #responseBroken = false;
  #requestBroken = false;

  /** Queues with messages for the guest, served in turn. */
  #waiting: SendQueue[] = [];
  /** Queues whose first message waits for the peer's address. */
  readonly #peerless = new Set<SendQueue>();
  #holds = 0;
  #publishScheduled = false;
  #serveScheduled = false;
  #drainScheduled = false;
  /** The request queue is being drained: what is published meanwhile is published at its end. */
  #draining = false;
  #clockOffset = 0;
  #frozenAt: number | undefined;
  #closed = false;

  readonly #headerBytes = new Uint8Array(HEADER_SIZE);
  readonly #header = new Uint32Array(this.#headerBytes.buffer);
  /** For messages in several pieces; made when the first one comes. */
  #scratch: Uint8Array | undefined;

  constructor(events: DeviceEvents = {}, options: DeviceOptions = {}) {
    this.#events = events;
    this.#endpoints = new AddressTable(...(options.dynamicAddresses ?? []));
    this.#nameService = new NameService(
      {
        announced: (announcement) => events.onAnnounced?.(announcement),
        withdrawn: (announcement) => events.onWithdrawn?.(announcement),
        told: (announcement) => events.onTold?.(announcement),
      },
      (message, published) => this.#sendNameService(message, published),
      options.maxGuestAnnouncements ?? 1024,
    );
    // Bound from the start, so that no endpoint can take the address.
    const endpoint = new Endpoint(
      this.#endpoints,
      NAME_SERVICE_ADDRESS,
      (_src, bytes, offset, length) => this.#receiveNameService(bytes, offset, length),
      () => {},
    );
    const unbounded = { limit: Number.POSITIVE_INFINITY, timeout: Number.POSITIVE_INFINITY };
    this.#nameServiceQueue = new SendQueue(this, endpoint, { peer: NAME_SERVICE_ADDRESS }, {}, unbounded);
  }

  get state(): DeviceState {
    return this.#state;
  }

  /** Whether name service is negotiated; undefined while no driver is attached. */
  get nameService(): boolean | undefined {
    return this.#rings?.nameService;
  }

  get guestAnnouncements(): Iterable<GuestAnnouncement> {
    return this.#nameService.guestAnnouncements;
  }

  /**
   * Binds a local address.
   * @param address undefined for a dynamic one
   * @throws RpmsgError address-invalid, address-in-use, address-space-full, device-closed
   */
  createEndpoint(onMessage: MessageHandler, address?: number): Endpoint {
    if (this.#closed) throw new RpmsgError("device-closed", "the device is closed");
    return new Endpoint(this.#endpoints, address, onMessage, (endpoint) => this.#learned(endpoint));
  }

  /**
   * Makes a way to the guest for one sender. Senders share the response queue fairly.
   * @param endpoint the source of the messages
   * @param target where messages without a destination go
   */
  createSendQueue(
    endpoint: Endpoint,
    target: Target,
    events: SendQueueEvents,
    options: SendQueueOptions,
  ): SendQueue {
    return new SendQueue(this, endpoint, target, events, options);
  }

  /**
   * Announces a service at the address of an endpoint, now and after every reset, as soon as the guest listens.
   * @param name 1 to 31 bytes, one character a byte
   * @throws RpmsgError name-invalid, already-announced
   */
  announce(name: string, address: number): HostAnnouncement {
    return this.#nameService.announce(name, address);
  }

  withdraw(announcement: HostAnnouncement): void {
    this.#nameService.withdraw(announcement);
  }

  /**
   * The driver's queues run. Where they stand as they stood at the last stop, the guest had only been paused;
   * otherwise its driver is a new one and what is left of the old one is reset first.
   *
   * Messages go out after the first kick of the response queue: the driver posts its buffers before it listens.
   */
  start(rings: RunningRings): void {
    const resumed = this.#stoppedAt !== undefined && this.#isResume(rings);
    if (!resumed) this.reset();
    this.#rings = rings;
    this.#used = true;
    this.#stoppedAt = undefined;
    this.#thaw();
    this.#setState("attached");
    if (!this.#responseBroken) rings.response.wantKicks(!this.#listening);
    if (this.#listening) this.#serve();
    this.#scheduleDrain();
  }

  /** The driver kicked a queue. */
  kicked(queue: number): void {
    if (this.#rings === undefined) return;
    if (queue === REQUEST_QUEUE) {
      this.#drain();
      return;
    }
    if (!this.#listening) {
      this.#listening = true;
      // The first look tells the size of the guest's buffers.
      if (!this.#responseBroken) this.#hasBuffer(this.#rings.response);
      if (this.#rings?.nameService) this.#nameService.open();
    }
    this.#serve();
    this.#publish();
  }

  /**
   * The driver's queues stop: takes what is queued, publishes, and touches guest memory no more.
   * @returns where the queues stand, undefined when they did not run
   */
  stop(): readonly [response: QueuePosition, request: QueuePosition] | undefined {
    const rings = this.#halt();
    if (rings === undefined) return undefined;
    this.#stoppedAt = [rings.response.position, rings.request.position];
    this.#freeze();
    this.#setState("suspended");
    return this.#stoppedAt;
  }

  /**
   * The driver is gone, with all that it knew. Where one had been attached, a new generation begins: its services are
   * withdrawn, what waits to be sent is dropped, and host services will be announced again.
   */
  reset(): void {
    this.#halt();
    this.#stoppedAt = undefined;
    this.#listening = false;
    this.#responseBroken = false;
    this.#requestBroken = false;
    this.#thaw();
    if (this.#used) {
      this.#used = false;
      this.generation++;
      for (const queue of [...this.#waiting, ...this.#peerless]) queue.clear();
      for (const endpoint of this.#endpoints.values()) endpoint.peer = undefined;
      this.#events.onReset?.(this.generation);
      this.#nameService.reset();
    }
    this.#setState("detached");
  }

  /** As `reset`, for a driver whose memory is gone: its queues are not looked at any more. */
  abandon(): void {
    this.#rings = undefined;
    this.reset();
  }

  /** Looks at both queues, for kicks that may have been lost. */
  rescan(): void {
    this.#drain();
    this.#serve();
    this.#publish();
  }

  /** Ends the device: nothing is sent or received any more. */
  close(): void {
    this.#closed = true;
    this.#rings = undefined;
    this.#nameServiceQueue.close();
    for (const queue of [...this.#waiting, ...this.#peerless]) queue.close();
  }

  /**
   * Leaves the guest's messages in its ring until `release`: back-pressure on the whole guest. Calls nest. The message
   * during whose delivery this is called is delivered.
   */
  hold(): void {
    this.#holds++;
  }

  release(): void {
    if (--this.#holds === 0) this.#scheduleDrain();
  }

  // ---- device to driver ----

  transmit(
    src: number,
    dst: number,
    bytes: Uint8Array,
    offset: number,
    length: number,
  ): "sent" | "too-large" | "no-buffer" {
    const rings = this.#rings;
    if (rings === undefined || !this.#listening || this.#responseBroken) return "no-buffer";
    const queue = rings.response;
    // The chain is left in the ring where the message does not fit it.
    if (!this.#hasBuffer(queue)) return "no-buffer";
    if (length > this.mtu) return "too-large";
    const header = this.#header;
    header[0] = src;
    header[1] = dst;
    header[2] = 0;
    header[3] = length;
    queue.writeMessage(header, bytes, offset, length);
    // Exactly what was written: Linux takes the length from here too (virtio_rpmsg_bus.c: rpmsg_recv_single).
    queue.complete(HEADER_SIZE + length);
    this.counters.messagesToGuest++;
    this.counters.bytesToGuest += length;
    this.#schedulePublish();
    return "sent";
  }

  /** Whether nothing waits to be sent. */
  get idle(): boolean {
    return this.#waiting.length === 0 && this.#peerless.size === 0;
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
    if (this.idle) this.#events.onIdle?.();
  }

  clock(): number {
    return this.#frozenAt ?? performance.now() - this.#clockOffset;
  }

  /** One message of each waiting queue in turn, as long as there are buffers. */
  #serve(): void {
    if (this.#rings === undefined || !this.#listening || this.#responseBroken) return;
    for (let queue = this.#waiting[0]; queue !== undefined; queue = this.#waiting[0]) {
      const result = queue.serve();
      if (result === "no-buffer") break;
      // A queue that is empty took itself out; one that is not goes to the end.
      if (this.#waiting[0] !== queue) continue;
      this.#waiting.shift();
      if (result === "no-peer") this.#peerless.add(queue);
      else if (queue.pending > 0) this.#waiting.push(queue);
    }
    this.#wantBuffers();
  }

  /** Asks for kicks of the response queue while something waits for its buffers, and looks once more. */
  #wantBuffers(): void {
    const rings = this.#rings;
    if (rings === undefined || !this.#listening || this.#responseBroken) return;
    const wanted = this.#waiting.length > 0;
    rings.response.wantKicks(wanted);
    // A buffer posted just before the flag was set comes without a kick.
    if (!wanted || this.#serveScheduled || !this.#hasBuffer(rings.response)) return;
    this.#serveScheduled = true;
    setImmediate(() => {
      this.#serveScheduled = false;
      this.#serve();
      this.#publish();
    });
  }

  /** Whether the driver has posted a buffer; takes its size for the MTU. */
  #hasBuffer(queue: DeviceQueue): boolean {
    try {
      if (!queue.peek()) return false;
      const room = queue.writableLength - HEADER_SIZE;
      if (room < 0)
        throw new GuestError("buffer-too-small", `a receive buffer of ${queue.writableLength} bytes`);
      this.mtu = Math.min(room, MAX_PAYLOAD);
      return true;
    } catch (error) {
      this.#broken(RESPONSE_QUEUE, error);
      return false;
    }
  }

  #learned(endpoint: Endpoint): void {
    this.#events.onPeer?.(endpoint);
    if (this.#peerless.size === 0) return;
    this.#waiting.push(...this.#peerless);
    this.#peerless.clear();
    this.#serve();
  }

  /** One publish, and at most one call, for all that is sent in this turn of the event loop. */
  #schedulePublish(): void {
    if (this.#publishScheduled || this.#draining) return;
    this.#publishScheduled = true;
    setImmediate(() => {
      this.#publishScheduled = false;
      this.#publish();
    });
  }

  #publish(): void {
    const rings = this.#rings;
    if (rings === undefined || this.#responseBroken) return;
    if (rings.response.publish()) rings.call(RESPONSE_QUEUE);
  }

  // ---- driver to device ----

  #scheduleDrain(): void {
    if (this.#drainScheduled) return;
    this.#drainScheduled = true;
    setImmediate(() => {
      this.#drainScheduled = false;
      this.#drain();
    });
  }

  /**
   * Takes the guest's messages, up to a bound, then lets others have their turn.
   * @returns whether the ring is empty, or may not be touched
   */
  #drain(): boolean {
    const rings = this.#rings;
    if (rings === undefined || this.#requestBroken || this.#draining) return true;
    const queue = rings.request;
    this.#draining = true;
    let budget = TURN_BUDGET;
    let empty = false;
    try {
      queue.wantKicks(false);
      while (budget > 0 && this.#holds === 0) {
        if (!queue.peek()) {
          queue.wantKicks(true);
          // Kicks were off: what came meanwhile is seen only by looking again.
          if (!queue.peek()) {
            empty = true;
            break;
          }
          queue.wantKicks(false);
        }
        budget -= queue.descriptorCount;
        // Nothing is written to what the driver sends: the length is 0. Not visible before `publish`, and done first:
        // whatever the handler does, no message comes twice.
        queue.complete(0);
        this.#receive(queue);
        // Its handler may have ended the attachment.
        if (this.#rings !== rings) break;
      }
    } catch (error) {
      this.#draining = false;
      // A fault of a handler goes on up; the messages behind it are taken in a turn of their own.
      if (!(error instanceof GuestError)) this.#scheduleDrain();
      this.#broken(REQUEST_QUEUE, error);
      empty = true;
    }
    this.#draining = false;
    if (this.#rings !== rings) return true;
    if (queue.publish()) rings.call(REQUEST_QUEUE);
    this.#publish();
    if (!empty && this.#holds === 0) this.#scheduleDrain();
    return empty;
  }

  /** Reads the header of the current chain once, checks the copy, and hands the payload to its endpoint. */
  #receive(queue: DeviceQueue): void {
    const available = queue.readableLength - HEADER_SIZE;
    if (available < 0) {
      this.counters.malformed++;
      return;
    }
    const first = queue.segments[0] as Segment;
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
      this.counters.malformed++;
      return;
    }
    const endpoint = this.#endpoints.get(dst);
    if (endpoint === undefined) {
      this.counters.unknownAddress++;
      return;
    }
    this.counters.messagesFromGuest++;
    this.counters.bytesFromGuest += length;
    if (queue.readableCount === 1) {
      endpoint.receive(src, first.window.u8, first.offset + HEADER_SIZE, length);
      return;
    }
    this.#scratch ??= new Uint8Array(HEADER_SIZE + MAX_PAYLOAD);
    queue.gather(this.#scratch, HEADER_SIZE + length);
    endpoint.receive(src, this.#scratch, HEADER_SIZE, length);
  }

  // ---- the rest ----

  /** Takes what the guest has sent, publishes, and lets go of the queues. */
  #halt(): RunningRings | undefined {
    const rings = this.#rings;
    if (rings === undefined) return undefined;
    // A driver can have made at most one full ring available; a guest that goes on adding does not hold us up.
    for (let turns = rings.request.size / TURN_BUDGET; turns >= 0 && !this.#drain(); turns--);
    // Where a handler of the drain itself stops the device.
    if (rings.request.publish()) rings.call(REQUEST_QUEUE);
    this.#publish();
    this.#rings = undefined;
    return rings;
  }

  #sendNameService(message: Uint8Array, published: () => void): void {
    if (this.#nameServiceQueue.send(undefined, message, 0, message.length, published) === "sent") published();
  }

  #receiveNameService(bytes: Uint8Array, offset: number, length: number): void {
    if (this.#rings?.nameService !== true) {
      this.counters.nameServiceOff++;
      return;
    }
    const result = this.#nameService.receive(bytes, offset, length);
    if (result === "malformed") this.counters.nameServiceMalformed++;
    else if (result === "limit") this.counters.nameServiceLimit++;
    else if (result !== "accepted") this.counters.nameServiceIgnored++;
  }

  /** Stops a queue that the guest broke. Anything but a GuestError is a fault of ours and goes on up. */
  #broken(queue: number, error: unknown): void {
    if (!(error instanceof GuestError)) throw error;
    if (queue === RESPONSE_QUEUE) {
      // What was sent before it broke has been reported as sent.
      this.#publish();
      this.#responseBroken = true;
    } else {
      this.#requestBroken = true;
    }
    this.counters.brokenQueues++;
    this.#rings?.failed(queue, error);
    this.#events.onError?.(queue, error);
  }

  #isResume(rings: RunningRings): boolean {
    if (this.#stoppedAt === undefined) return false;
    const [response, request] = this.#stoppedAt;
    return (
      samePosition(response, rings.response.position) &&
      samePosition(request, rings.request.position) &&
      (response.base !== 0 || request.base !== 0)
    );
  }

  #freeze(): void {
    this.#frozenAt ??= this.clock();
    for (const queue of [...this.#waiting, ...this.#peerless]) queue.disarm();
  }

  #thaw(): void {
    if (this.#frozenAt === undefined) return;
    this.#clockOffset = performance.now() - this.#frozenAt;
    this.#frozenAt = undefined;
    for (const queue of [...this.#waiting, ...this.#peerless]) queue.arm();
  }

  #setState(state: DeviceState): void {
    if (this.#state === state) return;
    this.#state = state;
    this.#events.onState?.(state);
  }
}

function samePosition(a: QueuePosition, b: QueuePosition): boolean {
  return a.base === b.base && a.used === b.used;
}
