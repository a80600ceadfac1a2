import type { AddressCursor } from "./address-table.ts";
import { AddressTable } from "./address-table.ts";
import { BusyPoll } from "./busy-poll.ts";
import type { MessageHandler } from "./endpoint.ts";
import { Endpoint } from "./endpoint.ts";
import type { GuestError } from "./errors.ts";
import { RpmsgError } from "./errors.ts";
import type { GuestAnnouncement, HostAnnouncement, NameServiceSnapshot } from "./name-service.ts";
import { NameService } from "./name-service.ts";
import type { RequestSnapshot } from "./request-side.ts";
import { RequestSide } from "./request-side.ts";
import type { ResponseSnapshot, Sender, Unread } from "./response-side.ts";
import { ResponseSide } from "./response-side.ts";
import type { TapHandler } from "./ring-tap.ts";
import { RingTap } from "./ring-tap.ts";
import type { SendQueueEvents, SendQueueOptions, Target } from "./send-queue.ts";
import { SendQueue } from "./send-queue.ts";
import type { DeviceQueue, QueuePosition } from "./virtqueue/device-queue.ts";
import { NAME_SERVICE_ADDRESS } from "./wire/header.ts";

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

/** The part of a device that a transport uses. */
export type TransportDevice = Pick<RpmsgDevice, "start" | "kicked" | "stop" | "reset" | "rescan">;

/** Where both queues stood at a stop. */
export type StoppedAt = readonly [response: QueuePosition, request: QueuePosition];

/** detached: no driver; suspended: a driver whose queues are stopped, perhaps for a pause; attached: it runs. */
export type DeviceState = "detached" | "suspended" | "attached";

export interface DeviceEvents {
  /** The state changed. A `reset` comes before the change that it belongs to. */
  onState?(state: DeviceState): void;
  /** The guest forgot all that was said: `generation` is the new one. Withdrawals of its services follow. */
  onReset?(generation: number): void;
  /** The guest has announced or withdrawn a service. It may be held for that. */
  onNameService?(): void;
  onAnnounced?(announcement: GuestAnnouncement): void;
  onWithdrawn?(announcement: GuestAnnouncement): void;
  /** `told` of a host announcement changed. */
  onTold?(announcement: HostAnnouncement): void;
  /** The address of an endpoint's peer is known, for the first time in this generation, or is another one. */
  onPeer?(endpoint: Endpoint, first: boolean): void;
  /** Nothing waits to be sent any more. */
  onIdle?(): void;
  /** A message that found no buffer, or no peer, is in the response queue after so many milliseconds. */
  onWaited?(milliseconds: number): void;
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

/** A device that stands still, for a hand-over to another process: plain data. */
export interface DeviceSnapshot {
  readonly generation: number;
  readonly state: DeviceState;
  readonly used: boolean;
  readonly stoppedAt: StoppedAt | undefined;
  readonly brokenQueues: number;
  readonly nameServiceCounters: Readonly<Record<"off" | "malformed" | "limit" | "ignored", number>>;
  readonly addresses: AddressCursor;
  /** Local addresses whose peer is known. */
  readonly peers: readonly (readonly [address: number, peer: number])[];
  readonly nameService: NameServiceSnapshot;
  readonly request: RequestSnapshot;
  readonly response: ResponseSnapshot;
}

/**
 * The device side of virtio-rpmsg: one guest, two queues, any number of endpoints.
 *
 * A transport (vhost-user, or an emulated guest in this process) calls `start` when the driver's queues run, `kicked`
 * on kicks, `stop` when they stop and `reset` when the driver or the connection is gone.
 */
export class RpmsgDevice {
  /** Number of the attachment: it grows with every reset of a guest that had been attached. */
  generation = 1;

  readonly #events: DeviceEvents;
  readonly #endpoints: AddressTable<Endpoint>;
  readonly #nameService: NameService;
  readonly #nameServiceQueue: SendQueue<() => void>;
  readonly #response: ResponseSide;
  readonly #request: RequestSide;
  readonly #nameServiceCounters = { off: 0, malformed: 0, limit: 0, ignored: 0 };
  #brokenQueues = 0;
  #state: DeviceState = "detached";
  /** Set while the queues run. */
  #rings: RunningRings | undefined;
  /** A driver was attached in this generation: its end is a reset. */
  #used = false;
  /** Where the queues stood at the last stop. */
  #stoppedAt: StoppedAt | undefined;
  /** Set from `pause` to `resume`, and the kicks that came meanwhile. */
  #paused: RunningRings | undefined;
  readonly #missedKicks = new Set<number>();
  /** The queues that come with the next `start` are those that ran when the snapshot was taken. */
  #goesOn = false;
  #closed = false;
  #poll: BusyPoll | undefined;

  constructor(events: DeviceEvents = {}, options: DeviceOptions = {}) {
    this.#events = events;
    this.#endpoints = new AddressTable(...(options.dynamicAddresses ?? []));
    this.#response = new ResponseSide({
      onBroken: (error) => this.#broken(RESPONSE_QUEUE, error),
      onTurn: () => this.#poll?.active(),
      onIdle: () => events.onIdle?.(),
      onWaited: (milliseconds) => events.onWaited?.(milliseconds),
    });
    this.#request = new RequestSide(this.#endpoints, {
      onBroken: (error) => this.#broken(REQUEST_QUEUE, error),
      onTurn: (any) => {
        this.#response.publish();
        if (any) this.#poll?.active();
      },
    });
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
    this.#nameServiceQueue = this.createSendQueue(
      endpoint,
      { peer: NAME_SERVICE_ADDRESS },
      { onSent: (_length, published) => published?.() },
      unbounded,
    );
  }

  get state(): DeviceState {
    return this.#state;
  }

  /** Payload bytes that fit in the guest's buffers; taken from the ring, 496 until the first one was seen. */
  get mtu(): number {
    return this.#response.mtu;
  }

  /** Whether nothing waits to be sent. */
  get idle(): boolean {
    return this.#response.idle;
  }

  /** Messages that wait to be sent. */
  get pending(): number {
    return this.#response.pending;
  }

  /** Bytes that wait to be sent, 16 for each message included. */
  get pendingBytes(): number {
    return this.#response.pendingBytes;
  }

  get counters(): DeviceCounters {
    const { off, malformed, limit, ignored } = this.#nameServiceCounters;
    return {
      messagesToGuest: this.#response.messages,
      bytesToGuest: this.#response.bytes,
      messagesFromGuest: this.#request.messages,
      bytesFromGuest: this.#request.bytes,
      malformed: this.#request.malformed,
      unknownAddress: this.#request.unknownAddress,
      nameServiceOff: off,
      nameServiceMalformed: malformed,
      nameServiceLimit: limit,
      nameServiceIgnored: ignored,
      brokenQueues: this.#brokenQueues,
    };
  }

  /** Whether name service is negotiated; undefined while no driver is attached. */
  get nameService(): boolean | undefined {
    return (this.#rings ?? this.#paused)?.nameService;
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
    return new Endpoint(this.#endpoints, address, onMessage, (endpoint, first) =>
      this.#learned(endpoint, first),
    );
  }

  /**
   * Makes a way to the guest for one sender. Senders share the response queue fairly.
   * @param endpoint the source of the messages
   * @param target where messages without a destination go
   */
  createSendQueue<Ticket>(
    endpoint: Endpoint,
    target: Target,
    events: SendQueueEvents<Ticket>,
    options: SendQueueOptions,
  ): SendQueue<Ticket> {
    return new SendQueue(this.#response, endpoint, target, events, options);
  }

  /** The address that a target of a send queue stands for is known now. */
  targetLearned(): void {
    this.#response.peerLearned();
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
    if (!this.#goesOn && !isResume(this.#stoppedAt, rings)) this.reset();
    this.#goesOn = false;
    this.#rings = rings;
    this.#used = true;
    this.#stoppedAt = undefined;
    this.#setState("attached");
    this.#run(rings);
  }

  /**
   * Chains of both queues that the driver has made available and that were not taken yet: free buffers for messages to
   * it, and messages of it. Undefined while the queues do not run.
   */
  get waiting(): { response: number; request: number } | undefined {
    const rings = this.#rings;
    return rings && { response: rings.response.waiting, request: rings.request.waiting };
  }

  /** The driver kicked a queue. */
  kicked(queue: number): void {
    if (this.#paused !== undefined) this.#missedKicks.add(queue);
    if (this.#rings === undefined) return;
    if (queue === REQUEST_QUEUE) {
      this.#poll?.kicked();
      this.#request.drain();
      return;
    }
    if (!this.#response.listening) {
      this.#response.listen();
      if (this.#rings.nameService) this.#nameService.open();
    }
    this.#response.serve();
    this.#response.publish();
  }

  /**
   * The driver's queues stop: takes what is queued, publishes, and touches guest memory no more.
   * @returns where the queues stand, undefined when they did not run
   */
  stop(): StoppedAt | undefined {
    const rings = this.#halt();
    if (rings === undefined) return undefined;
    this.#stoppedAt = [rings.response.position, rings.request.position];
    this.#response.freeze();
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
    this.#goesOn = false;
    if (this.#used) {
      this.#used = false;
      this.generation++;
      this.#nameService.close();
      this.#response.reset();
      this.#request.reset();
      for (const endpoint of this.#endpoints.values()) endpoint.peer = undefined;
      this.#events.onReset?.(this.generation);
      this.#nameService.reset();
    }
    this.#setState("detached");
  }

  /**
   * Stands still where it is, unnoticed: guest memory is touched no more, what the guest has sent stays in its ring,
   * and messages to it wait without their time running out. Until `resume`, or for good where another process goes on.
   */
  pause(): void {
    const rings = this.#rings;
    if (rings === undefined) return;
    this.#request.pause();
    this.#response.halt();
    this.#response.freeze();
    this.#rings = undefined;
    this.#paused = rings;
  }

  /** Goes on after `pause`. */
  resume(): void {
    const rings = this.#paused;
    if (rings === undefined) return;
    this.#paused = undefined;
    this.#rings = rings;
    this.#run(rings);
    for (const queue of this.#missedKicks) this.kicked(queue);
    this.#missedKicks.clear();
  }

  /** What there is to know of a device that stands still. */
  snapshot(): DeviceSnapshot {
    const response = this.#response.snapshot();
    return {
      generation: this.generation,
      state: this.#state,
      used: this.#used,
      stoppedAt: this.#stoppedAt,
      brokenQueues: this.#brokenQueues,
      nameServiceCounters: this.#nameServiceCounters,
      addresses: this.#endpoints.cursor,
      peers: [...this.#endpoints.values()].flatMap(({ address, peer }) =>
        peer === undefined ? [] : [[address, peer] as const],
      ),
      nameService: this.#nameService.snapshot(),
      request: this.#request.snapshot(),
      // A device that was attached stands still for the hand-over only.
      response: { ...response, frozen: this.#state === "suspended" },
    };
  }

  /**
   * Goes on as the device that the snapshot is of: called on a new one, on which the endpoints and the services of the
   * host are there again already. One that was attached runs with the next `start`.
   */
  restore(snapshot: DeviceSnapshot): void {
    this.generation = snapshot.generation;
    this.#state = snapshot.state;
    this.#used = snapshot.used;
    this.#stoppedAt = snapshot.stoppedAt;
    this.#goesOn = snapshot.state === "attached";
    this.#brokenQueues = snapshot.brokenQueues;
    Object.assign(this.#nameServiceCounters, snapshot.nameServiceCounters);
    this.#endpoints.restore(snapshot.addresses);
    for (const [address, peer] of snapshot.peers) {
      const endpoint = this.#endpoints.get(address);
      if (endpoint !== undefined) endpoint.peer = peer;
    }
    this.#request.restore(snapshot.request);
    this.#response.restore(snapshot.response);
    this.#nameService.restore(snapshot.nameService);
  }

  /** What the guest may not have read yet, by sender; for a device that stands still. */
  unread(): Map<Sender, Unread[]> {
    return this.#response.unread();
  }

  restoreUnread(sender: Sender, unread: readonly Unread[]): void {
    this.#response.restoreUnread(sender, unread);
  }

  /**
   * Shows every message that goes through the queues, name service and what is dropped included, until it is set to
   * undefined: so many as the counters say.
   */
  set tap(handler: TapHandler | undefined) {
    const tap = handler && new RingTap(handler);
    this.#request.tap = tap;
    this.#response.tap = tap;
  }

  /**
   * Looks for messages of the guest instead of waiting for its kicks, while they come one after another.
   * @param clock milliseconds
   */
  pollAdaptively(clock?: () => number): void {
    this.#poll ??= new BusyPoll(this.#request, clock);
  }

  /** Looks at both queues, for kicks that may have been lost. */
  rescan(): void {
    this.#request.drain();
    this.#response.serve();
    this.#response.publish();
  }

  /** Ends the device: nothing is sent or received any more. */
  close(): void {
    this.#closed = true;
    this.#rings = undefined;
    this.#paused = undefined;
    this.#nameServiceQueue.close();
    this.#response.close();
    this.#request.reset();
  }

  /**
   * Leaves the guest's messages in its ring until `release`: back-pressure on the whole guest. Calls nest. The message
   * during whose delivery this is called is delivered.
   */
  hold(): void {
    this.#request.hold();
  }

  release(): void {
    this.#request.release();
  }

  #run(rings: RunningRings): void {
    this.#response.start(rings.response, () => rings.call(RESPONSE_QUEUE));
    this.#request.start(rings.request, () => rings.call(REQUEST_QUEUE));
  }

  #halt(): RunningRings | undefined {
    // The driver of a guest in this process may stop its queues meanwhile.
    this.resume();
    const rings = this.#rings;
    if (rings === undefined) return undefined;
    this.#request.halt();
    this.#response.halt();
    this.#rings = undefined;
    return rings;
  }

  #learned(endpoint: Endpoint, first: boolean): void {
    this.#events.onPeer?.(endpoint, first);
    this.#response.peerLearned();
  }

  #sendNameService(message: Uint8Array, published: () => void): void {
    if (this.#nameServiceQueue.send(undefined, message, 0, message.length, published) === "sent") published();
  }

  #receiveNameService(bytes: Uint8Array, offset: number, length: number): void {
    const counters = this.#nameServiceCounters;
    if (this.#rings?.nameService !== true) {
      counters.off++;
      return;
    }
    const result = this.#nameService.receive(bytes, offset, length);
    if (result === "accepted") this.#events.onNameService?.();
    else if (result === "malformed") counters.malformed++;
    else if (result === "limit") counters.limit++;
    else counters.ignored++;
  }

  #broken(queue: number, error: GuestError): void {
    this.#brokenQueues++;
    this.#rings?.failed(queue, error);
    this.#events.onError?.(queue, error);
  }

  #setState(state: DeviceState): void {
    if (this.#state === state) return;
    this.#state = state;
    this.#events.onState?.(state);
  }
}

/** Whether queues that start go on where they stopped: the driver had only been paused. */
export function isResume(stoppedAt: StoppedAt | undefined, rings: RunningRings): boolean {
  if (stoppedAt === undefined) return false;
  const [response, request] = stoppedAt;
  return (
    samePosition(response, rings.response.position) &&
    samePosition(request, rings.request.position) &&
    (response.base !== 0 || request.base !== 0)
  );
}

function samePosition(a: QueuePosition, b: QueuePosition): boolean {
  return a.base === b.base && a.used === b.used;
}
