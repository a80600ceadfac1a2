import type { DriverQueue, MemoryWindow } from "../rpmsg/index.ts";
import {
  ADDRESS_ANY,
  decodeNameService,
  encodeNameService,
  HEADER_SIZE,
  NAME_SERVICE_ADDRESS,
  NAME_SERVICE_SIZE,
} from "../rpmsg/index.ts";
import type { FaultState } from "./faults.ts";
import type { Profile } from "./profiles.ts";
import { ReceiveSide } from "./receive-side.ts";
import type { NamedService, Service, ServiceErrorCode, ServiceFactory } from "./service.ts";
import { ServiceError } from "./service.ts";
import { TransmitSide } from "./transmit-side.ts";

/** Queue numbers, as the device counts them. */
const RECEIVE = 0;
const TRANSMIT = 1;

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
  faults: FaultState;
  /** What runs at an endpoint that the host's announcement of this name makes; undefined: nobody wants it. */
  serviceFor(name: string): ServiceFactory | undefined;
  /** Told of what services do wrong. */
  report(error: ServiceError): void;
  kick(queue: number): void;
}

interface Endpoint {
  name: string;
  address: number;
  /** Where the channel goes; ANY for one that the guest announced, until it is bound. */
  dst: number;
  /** The guest announced it; otherwise the host's announcement made it, or its address is agreed on. */
  announced: boolean;
  service: Service;
}

/**
 * The driver side of RPMsg: buffers, endpoints and name service of an emulated guest, as virtio_rpmsg_bus.c, open-amp
 * or rpmsg-lite do it (see `profiles.ts`).
 */
export class GuestBus {
  /** Longest message, in bytes. */
  readonly mtu: number;
  readonly #options: BusOptions;
  readonly #profile: Profile;
  readonly #faults: FaultState;
  readonly #receive: ReceiveSide;
  readonly #transmit: TransmitSide;
  readonly #endpoints = new Map<number, Endpoint>();
  /** What the bus itself has to send, in order: it waits for buffers as everybody does. */
  readonly #unsent: (() => boolean)[] = [];
  #polling = false;
  #pollScheduled = false;
  #flushScheduled = false;
  #stopped = false;

  constructor(options: BusOptions) {
    const { profile, faults, window } = options;
    this.mtu = profile.bufferSize - HEADER_SIZE;
    this.#options = options;
    this.#profile = profile;
    this.#faults = faults;
    this.#receive = new ReceiveSide({
      ...{ profile, faults, window, queue: options.receive, buffers: options.receiveBuffers },
      deliver: (src, dst, bytes, offset, length) => this.#deliver(src, dst, bytes, offset, length),
      again: () => this.#schedulePoll(),
    });
    this.#transmit = new TransmitSide({
      ...{ profile, faults, window, queue: options.transmit, buffers: options.transmitBuffers },
      kick: () => options.kick(TRANSMIT),
    });
  }

  /** The device runs: tells it of the posted buffers, then starts the services. */
  start(services: Iterable<NamedService>): void {
    this.#options.kick(RECEIVE);
    const wanted = [...services].filter(({ ns }) => ns !== "down");
    // Agreed addresses first, so that nobody else takes one.
    for (const each of [...wanted.filter(isFixed), ...wanted.filter((one) => !isFixed(one))]) {
      this.#guard(each.name, () => this.add(each));
    }
    this.#flush();
  }

  /**
   * Makes an endpoint, and announces it unless its address is agreed on.
   * @throws RangeError the address is taken, or all are; and what the service throws
   */
  add({ name, factory, ns, address = this.#lowestFree() }: NamedService): void {
    if (address === undefined) throw new RangeError("all addresses of the guest are in use");
    if (this.#endpoints.has(address)) throw new RangeError(`address ${address} is in use`);
    const endpoint = this.#create(name, address, ADDRESS_ANY, factory);
    if (ns === "none") return;
    endpoint.announced = true;
    this.#tell(endpoint, true);
  }

  /**
   * Ends all endpoints of that name, and withdraws those that were announced.
   * @returns whether there were any
   */
  withdraw(name: string): boolean {
    const same = [...this.#endpoints.values()].filter((endpoint) => endpoint.name === name);
    for (const endpoint of same) {
      if (endpoint.announced) this.#tell(endpoint, false);
      this.#remove(endpoint);
    }
    return same.length > 0;
  }

  /** The device called: a queue has used buffers. */
  poll(): void {
    if (this.#stopped || this.#polling) return;
    this.#polling = true;
    try {
      if (this.#transmit.wake()) this.#wake();
      this.#receive.take();
    } finally {
      this.#polling = false;
    }
    this.#flush();
  }

  /** The faults are others than before. */
  faultsChanged(): void {
    this.#receive.faultsChanged();
    // What waits may be due, and buffers are there to be shown.
    this.#schedulePoll();
  }

  /** Touches the rings no more. */
  stop(): void {
    this.#stopped = true;
    this.#receive.stop();
    for (const endpoint of [...this.#endpoints.values()]) this.#remove(endpoint);
  }

  /** Hands one received message to its endpoint. */
  #deliver(src: number, dst: number, bytes: Uint8Array, offset: number, length: number): boolean {
    if (dst === NAME_SERVICE_ADDRESS && this.#options.nameService) {
      this.#hostAnnounced(bytes, offset, length);
      return true;
    }
    const endpoint = this.#endpoints.get(dst);
    // Linux: "msg received with no recipient", and the buffer goes back.
    if (endpoint === undefined) return true;
    if (endpoint.dst === ADDRESS_ANY && this.#profile.hostAnnouncement === "bind-by-name") endpoint.dst = src;
    if (this.#faults.dropReceived > 0) {
      this.#faults.dropReceived--;
      return true;
    }
    try {
      return endpoint.service.onMessage(src, bytes, offset, length);
    } catch (error) {
      this.#failed(endpoint.name, error);
      return true;
    }
  }

  #send(src: number, dst: number, bytes: Uint8Array, offset: number, length: number): boolean {
    if (this.#stopped || src === ADDRESS_ANY || dst === ADDRESS_ANY) return true;
    if (!this.#transmit.send(src, dst, bytes, offset, length)) return false;
    this.#scheduleFlush();
    return true;
  }

  /** Lets those go on who found no transmit buffer. */
  #wake(): void {
    this.#sendUnsent();
    for (const { name, service } of [...this.#endpoints.values()]) {
      this.#guard(name, () => service.onWritable?.());
    }
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

  #create(name: string, address: number, dst: number, factory: ServiceFactory): Endpoint {
    let endpoint: Endpoint | undefined;
    const context = {
      name: displayed(name),
      address,
      get peer() {
        const peer = endpoint === undefined ? dst : endpoint.dst;
        return peer === ADDRESS_ANY ? undefined : peer;
      },
      mtu: this.mtu,
      guest: this.#profile.name,
      send: (to: number, bytes: Uint8Array, offset = 0, length = bytes.length) =>
        this.#send(address, to, bytes, offset, length),
      report: (code: ServiceErrorCode, reason: string, cause?: unknown) =>
        this.#options.report(new ServiceError(code, displayed(name), reason, cause)),
    };
    endpoint = { name, address, dst, announced: false, service: factory(context) };
    this.#endpoints.set(address, endpoint);
    return endpoint;
  }

  #remove(endpoint: Endpoint): void {
    this.#endpoints.delete(endpoint.address);
    this.#guard(endpoint.name, () => endpoint.service.close?.());
  }

  /** Calls a service; what it throws is reported and stays here. */
  #guard(name: string, action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#failed(name, error);
    }
  }

  #failed(name: string, error: unknown): void {
    const reason = error instanceof Error ? error.message : String(error);
    this.#options.report(new ServiceError("failed", displayed(name), reason, error));
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
    const factory = this.#options.serviceFor(name);
    // Without an address there is no endpoint, and the host hears nothing of us (open-amp: rpmsg_create_ept fails).
    if (address === undefined || factory === undefined) return;
    this.#guard(name, () => this.#speak(this.#create(name, address, dst, factory)));
  }

  /** The host learns our address from our first message: an empty one. */
  #speak(endpoint: Endpoint): void {
    this.#unsent.push(() => this.#send(endpoint.address, endpoint.dst, NOTHING, 0, 0));
    this.#sendUnsent();
  }
}

function isFixed({ address }: NamedService): boolean {
  return address !== undefined;
}

/** A name for people: of one character a byte, as it is on the wire, its text. */
function displayed(name: string): string {
  return Buffer.from(name, "latin1").toString();
}
