import type { DriverQueue, MemoryWindow } from "../rpmsg/index.ts";
import {
  ADDRESS_ANY,
  copyBytes,
  decodeNameService,
  encodeNameService,
  HEADER_SIZE,
  NAME_SERVICE_ADDRESS,
  NAME_SERVICE_SIZE,
} from "../rpmsg/index.ts";
import type { Profile } from "./profiles.ts";
import type { Service, ServiceFactory } from "./service.ts";

/** Queue numbers, as the device counts them. */
const RECEIVE = 0;
const TRANSMIT = 1;

/** Messages that are taken before other work gets its turn. */
const TURN_BUDGET = 1024;

const NOTHING = new Uint8Array();

export interface BusOptions {
  profile: Profile;
  /** The window that holds both rings and all buffers. */
  window: MemoryWindow;
  receive: DriverQueue;
  transmit: DriverQueue;
  /** Guest-physical addresses of the first buffer of each direction; the others follow. */
  receiveBuffers: number;
  transmitBuffers: number;
  /** Name service was negotiated. */
  nameService: boolean;
  /** What runs at an endpoint that the host's announcement of this name makes. */
  serviceFor(name: string): ServiceFactory;
  kick(queue: number): void;
}

interface Endpoint {
  name: string;
  address: number;
  /** Where the channel goes; ANY for one that the guest announced, until it is bound. */
  dst: number;
  /** The guest announced it; otherwise the host's announcement made it. */
  announced: boolean;
  service: Service;
}

/**
 * The driver side of RPMsg: buffers, endpoints and name service of an emulated guest, as virtio_rpmsg_bus.c, open-amp
 * or rpmsg-lite do it (see `profiles.ts`).
 */
export class GuestBus {
  readonly #options: BusOptions;
  readonly #profile: Profile;
  readonly #window: MemoryWindow;
  readonly #receive: DriverQueue;
  readonly #transmit: DriverQueue;
  /** Guest-physical address of the buffer at a descriptor that is out. */
  readonly #receiveAddress: Float64Array;
  readonly #transmitAddress: Float64Array;
  readonly #endpoints = new Map<number, Endpoint>();
  /** Transmit buffers that were never used. */
  #fresh: number;
  /** The received message that a service could not take yet. */
  #current: { head: number; written: number } | undefined;
  readonly #currentStore = { head: 0, written: 0 };
  /** What the bus itself has to send, in order: it waits for buffers as everybody does. */
  readonly #unsent: (() => boolean)[] = [];
  #sleeping = false;
  #polling = false;
  #pollScheduled = false;
  #flushScheduled = false;
  #stopped = false;

  constructor(options: BusOptions) {
    this.#options = options;
    this.#profile = options.profile;
    this.#window = options.window;
    this.#receive = options.receive;
    this.#transmit = options.transmit;
    this.#receiveAddress = new Float64Array(options.receive.size);
    this.#transmitAddress = new Float64Array(options.transmit.size);
    this.#fresh = options.profile.bufferCount;
    for (let i = 0; i < options.profile.bufferCount; i++) {
      this.#post(options.receiveBuffers + i * options.profile.bufferSize);
    }
    this.#receive.publish();
    // Linux: "suppress tx-complete interrupts", until a sender sleeps.
    this.#transmit.wantCalls(false);
  }

  get mtu(): number {
    return this.#profile.bufferSize - HEADER_SIZE;
  }

  /** The device runs: tells it of the posted buffers, then announces the services. */
  start(services: Iterable<readonly [name: string, factory: ServiceFactory]>): void {
    this.#options.kick(RECEIVE);
    for (const [name, factory] of services) this.announce(name, factory);
    this.#flush();
  }

  /** Makes an endpoint with a dynamic address and announces it. */
  announce(name: string, factory: ServiceFactory, address = this.#lowestFree()): void {
    if (address === undefined) throw new RangeError("all addresses of the guest are in use");
    const endpoint = this.#create(name, address, ADDRESS_ANY, factory);
    endpoint.announced = true;
    this.#tell(endpoint, true);
  }

  /** Withdraws all announced endpoints of that name. */
  withdraw(name: string): void {
    for (const endpoint of [...this.#endpoints.values()]) {
      if (endpoint.name !== name) continue;
      this.#tell(endpoint, false);
      this.#remove(endpoint);
    }
  }

  /** The device called: a queue has used buffers. */
  poll(): void {
    if (this.#stopped || this.#polling) return;
    this.#polling = true;
    try {
      this.#wake();
      this.#takeAll();
    } finally {
      this.#polling = false;
    }
    this.#flush();
  }

  /** Touches the rings no more. */
  stop(): void {
    this.#stopped = true;
    for (const endpoint of [...this.#endpoints.values()]) this.#remove(endpoint);
  }

  // ---- receive ----

  #takeAll(): void {
    const queue = this.#receive;
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
        current.head = head;
        current.written = queue.usedLength;
      }
      const result = this.#dispatch(this.#receiveAddress[current.head] as number, current.written);
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
      this.#post(this.#receiveAddress[current.head] as number);
    }
    this.#schedulePoll();
  }

  /** Hands one received message to its endpoint. */
  #dispatch(address: number, written: number): "taken" | "later" | "lost" {
    const { u8, u32, guestAddress } = this.#window;
    const offset = address - guestAddress;
    const word = offset >> 2;
    const src = u32[word] as number;
    const dst = u32[word + 1] as number;
    const length = (u32[word + 3] as number) & 0xffff;
    if (length > written - HEADER_SIZE) return this.#profile.badLength === "lose-buffer" ? "lost" : "taken";
    if (dst === NAME_SERVICE_ADDRESS && this.#options.nameService) {
      this.#hostAnnounced(u8, offset + HEADER_SIZE, length);
      return "taken";
    }
    const endpoint = this.#endpoints.get(dst);
    // Linux: "msg received with no recipient", and the buffer goes back.
    if (endpoint === undefined) return "taken";
    if (endpoint.dst === ADDRESS_ANY && this.#profile.hostAnnouncement === "bind-by-name") endpoint.dst = src;
    return endpoint.service.onMessage(src, u8, offset + HEADER_SIZE, length) ? "taken" : "later";
  }

  #post(address: number): void {
    const head = this.#receive.add(address, this.#profile.bufferSize, true);
    this.#receiveAddress[head] = address;
  }

  // ---- transmit ----

  #send(src: number, dst: number, bytes: Uint8Array, offset: number, length: number): boolean {
    if (this.#stopped || src === ADDRESS_ANY || dst === ADDRESS_ANY) return true;
    let payload = length;
    if (payload > this.mtu) {
      // Linux: -EMSGSIZE; open-amp's copying send cuts the message without a word.
      if (this.#profile.tooLong === "refuse")
        throw new RangeError(`a message of ${length} bytes is too long`);
      payload = this.mtu;
    }
    const address = this.#transmitBuffer();
    if (address === -1) return false;
    const { u8, u32, guestAddress } = this.#window;
    const at = address - guestAddress;
    const word = at >> 2;
    u32[word] = src;
    u32[word + 1] = dst;
    u32[word + 2] =
      this.#profile.reserved === "zero"
        ? 0
        : (address - this.#options.transmitBuffers) / this.#profile.bufferSize;
    u32[word + 3] = payload;
    copyBytes(bytes, offset, u8, at + HEADER_SIZE, payload);
    const head = this.#transmit.add(address, HEADER_SIZE + payload, false);
    this.#transmitAddress[head] = address;
    this.#scheduleFlush();
    return true;
  }

  /** A free transmit buffer's address, -1 when all are out; then the device's call wakes us. */
  #transmitBuffer(): number {
    if (this.#profile.transmitOrder === "fresh-first" && this.#fresh > 0) return this.#nextFresh();
    let head = this.#transmit.popUsed();
    if (head === -1 && this.#fresh > 0) return this.#nextFresh();
    if (head === -1) {
      const slept = this.#sleeping;
      this.#sleeping = true;
      this.#transmit.publish();
      this.#transmit.wantCalls(true);
      head = this.#transmit.popUsed();
      if (head === -1) {
        // All are with the device: it must know.
        this.#options.kick(TRANSMIT);
        return -1;
      }
      // Who slept before still waits for the call.
      if (!slept) this.#awake();
    }
    return this.#transmitAddress[head] as number;
  }

  #nextFresh(): number {
    const index = this.#profile.bufferCount - this.#fresh--;
    return this.#options.transmitBuffers + index * this.#profile.bufferSize;
  }

  #awake(): void {
    this.#sleeping = false;
    this.#transmit.wantCalls(false);
  }

  /** Lets those go on who found no transmit buffer. */
  #wake(): void {
    if (!this.#sleeping) return;
    this.#awake();
    this.#sendUnsent();
    for (const endpoint of [...this.#endpoints.values()]) endpoint.service.onWritable?.();
  }

  #scheduleFlush(): void {
    if (this.#polling || this.#flushScheduled) return;
    this.#flushScheduled = true;
    setImmediate(() => {
      this.#flushScheduled = false;
      this.#flush();
    });
  }

  #flush(): void {
    if (this.#stopped) return;
    if (this.#transmit.publish()) this.#options.kick(TRANSMIT);
    if (this.#receive.publish()) this.#options.kick(RECEIVE);
  }

  #schedulePoll(): void {
    if (this.#pollScheduled) return;
    this.#pollScheduled = true;
    setImmediate(() => {
      this.#pollScheduled = false;
      this.poll();
    });
  }

  // ---- endpoints and name service ----

  #create(name: string, address: number, dst: number, factory: ServiceFactory): Endpoint {
    const context = {
      address,
      mtu: this.mtu,
      guest: this.#profile.name,
      send: (to: number, bytes: Uint8Array, offset = 0, length = bytes.length) =>
        this.#send(address, to, bytes, offset, length),
    };
    const endpoint = { name, address, dst, announced: false, service: factory(context) };
    this.#endpoints.set(address, endpoint);
    return endpoint;
  }

  #remove(endpoint: Endpoint): void {
    this.#endpoints.delete(endpoint.address);
    endpoint.service.close?.();
  }

  #lowestFree(): number | undefined {
    const [first, last] = this.#profile.addresses;
    for (let address = first; address <= last; address++) if (!this.#endpoints.has(address)) return address;
    return undefined;
  }

  #tell(endpoint: Endpoint, created: boolean): void {
    if (!this.#options.nameService) return;
    const message = encodeNameService({ name: endpoint.name, address: endpoint.address, created });
    this.#unsent.push(() =>
      this.#send(endpoint.address, NAME_SERVICE_ADDRESS, message, 0, NAME_SERVICE_SIZE),
    );
    this.#sendUnsent();
  }

  #sendUnsent(): void {
    while (this.#unsent[0]?.() === true) this.#unsent.shift();
  }

  #hostAnnounced(bytes: Uint8Array, offset: number, length: number): void {
    const message = decodeNameService(bytes, offset, length);
    if (message === undefined) return;
    const { name, address: dst, created } = message;
    const same = [...this.#endpoints.values()].filter((each) => each.name === name);
    const bound = same.find((each) => each.dst === dst);
    if (!created) {
      if (bound === undefined) return;
      // The endpoint of a channel that the host made goes with it; one that was bound goes back to what it was.
      if (bound.announced) bound.dst = ADDRESS_ANY;
      else this.#remove(bound);
      return;
    }
    if (bound !== undefined) return;
    const unbound = same.find((each) => each.dst === ADDRESS_ANY);
    if (this.#profile.hostAnnouncement === "bind-by-name" && unbound !== undefined) {
      unbound.dst = dst;
      this.#speak(unbound);
      return;
    }
    const address = this.#lowestFree();
    // Without an address there is no endpoint, and the host hears nothing of us (open-amp: rpmsg_create_ept fails).
    if (address === undefined) return;
    this.#speak(this.#create(name, address, dst, this.#options.serviceFor(name)));
  }

  /** The host learns our address from our first message: an empty one. */
  #speak(endpoint: Endpoint): void {
    this.#unsent.push(() => this.#send(endpoint.address, endpoint.dst, NOTHING, 0, 0));
    this.#sendUnsent();
  }
}
