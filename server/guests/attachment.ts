import type {
  CodedError,
  DeviceState,
  Endpoint,
  GuestAnnouncement,
  GuestError,
  HostAnnouncement,
} from "../../rpmsg/index.ts";
import { NAME_SERVICE_ADDRESS, RESPONSE_QUEUE, RpmsgDevice, RpmsgError } from "../../rpmsg/index.ts";
import type { EndpointDeclaration, Guest, GuestState, Limits } from "../../schemas/index.ts";
import type { BurstLog } from "../burst-log.ts";
import type { EndpointPort } from "../endpoint-port.ts";
import { AttachedEndpoint } from "./attached-endpoint.ts";
import { GuestCounts } from "./guest-counts.ts";
import { LocalAddress } from "./local-address.ts";

/** What the outside is told of a guest's endpoints. */
export interface GuestEvents {
  onAdded(endpoint: EndpointPort): void;
  /** Anything but the counters. */
  onChanged(endpoint: EndpointPort): void;
  onRemoved(endpoint: EndpointPort): void;
  /** The state or the generation of the guest. */
  onGuest(guest: Attachment): void;
}

/** What a kind of guest adds to the attachment: how the driver's rings come to the device. */
export interface GuestLink {
  readonly kind: string;
  /** A frontend is connected; false is the state `waiting`. */
  readonly connected: boolean;
  /** Names of the negotiated features, and queue sizes; null where there are none. */
  readonly features: string[] | null;
  readonly queues: { response: number; request: number } | null;
  /** Ends the link; the device is stopped and reset. */
  close(): void;
}

/**
 * One guest: its device, the endpoints that it announced and those that the host declared, and the channels to them. A
 * reset ends every channel; what the host declared stays and is announced again.
 */
export class Attachment {
  readonly name: string;
  readonly device: RpmsgDevice;
  readonly log: BurstLog;
  readonly counts = new GuestCounts();
  /** Requests and connections of the frontend that were refused. */
  frontendErrors = 0;
  /** Queues that an isolated guest broke: the device sees only the relay's. */
  #brokenElsewhere = 0;
  readonly #events: GuestEvents;
  readonly #limits: Limits;
  /** What the guest announced, and the endpoints that it is, or is the other half of. */
  readonly #up = new Map<GuestAnnouncement, AttachedEndpoint>();
  /** Endpoints that the host declared, whatever the guest does. */
  readonly #declared = new Map<AttachedEndpoint, Declared>();
  /** Those of them that the guest is told of. */
  readonly #down = new Map<HostAnnouncement, AttachedEndpoint>();
  /** Local addresses that channels or services have. */
  readonly #locals = new Map<number, LocalAddress>();
  #link: GuestLink | undefined;
  #serial = 0;
  #onIdle: (() => void) | undefined;

  constructor(name: string, limits: Limits, log: BurstLog, events: GuestEvents) {
    this.name = name;
    this.log = log;
    this.#events = events;
    this.#limits = limits;
    this.device = new RpmsgDevice(
      {
        onState: (state) => this.#deviceState(state),
        onReset: () => this.#reset(),
        onAnnounced: (announcement) => this.#announced(announcement),
        onWithdrawn: (announcement) => this.#withdrawn(announcement),
        onTold: (announcement) => this.#told(announcement),
        onPeer: (endpoint, first) => this.#peerLearned(endpoint, first),
        onIdle: () => this.#onIdle?.(),
        onWaited: (milliseconds) => this.counts.waits.observe(milliseconds / 1000),
        onError: (queue, error) => this.#broken(queue, error),
      },
      { maxGuestAnnouncements: limits.guestAnnouncements },
    );
  }

  /** Starts the guest. The device may be in use from within `open` on. */
  start(open: (attachment: Attachment) => GuestLink): void {
    this.#link = open(this);
    this.stateChanged();
  }

  get state(): GuestState {
    if (this.#link?.connected !== true) return "waiting";
    return this.device.state;
  }

  describe(): Guest {
    const { counters } = this.device;
    return {
      name: this.name,
      kind: this.#link?.kind ?? "unknown",
      state: this.state,
      generation: this.device.generation,
      features: this.#link?.features ?? null,
      queues: this.#link?.queues ?? null,
      mtu: this.device.mtu,
      counters: {
        ...counters,
        brokenQueues: counters.brokenQueues + this.#brokenElsewhere,
        frontendErrors: this.frontendErrors,
      },
    };
  }

  /**
   * Adds an endpoint that the host declares. It stays through all generations until it is withdrawn.
   * @throws RpmsgError address-in-use, address-invalid, address-space-full, name-invalid, already-announced,
   *   name-service-off, too-many-endpoints
   */
  declare(declaration: EndpointDeclaration): EndpointPort {
    const { name, ns, address, peer, local } = declaration;
    if (this.#declared.size >= this.#limits.declaredEndpoints) {
      throw new RpmsgError(
        "too-many-endpoints",
        `guest "${this.name}" has ${this.#declared.size} declared endpoints, the most there may be`,
      );
    }
    if (ns !== "none" && this.device.nameService === false) {
      throw new RpmsgError("name-service-off", `guest "${this.name}" has not negotiated name service`);
    }
    // Clients have no business with the guest's name service.
    if ((ns === "up" ? address : peer) === NAME_SERVICE_ADDRESS) {
      throw new RpmsgError("address-invalid", `${NAME_SERVICE_ADDRESS} is the address of name service`);
    }
    const raw = Buffer.from(name).toString("latin1");
    const endpoint =
      ns === "up" ? this.#declareUp(raw, address, local) : this.#declareDown(raw, ns, address, peer);
    for (const [announcement, other] of this.#up) {
      // The guest was faster: what it announced is this endpoint, or its other half, unless clients know it as another
      // one already.
      if (other.clients > 0 || this.#declared.has(other) || !matches(endpoint, address, announcement))
        continue;
      this.#events.onRemoved(other);
      this.#bind(endpoint, announcement);
      break;
    }
    this.#events.onAdded(endpoint);
    return endpoint;
  }

  /**
   * Withdraws an endpoint that the host declared.
   * @returns false where it is not one
   */
  withdraw(endpoint: EndpointPort): boolean {
    const own = endpoint as AttachedEndpoint;
    const declared = this.#declared.get(own);
    if (declared === undefined) return false;
    this.#declared.delete(own);
    if (declared.announcement !== undefined) {
      this.#down.delete(declared.announcement);
      this.device.withdraw(declared.announcement);
    }
    // Gone before its clients hear of it: one that is the service withdraws it too, and none is to find it again.
    this.#events.onRemoved(own);
    own.end("withdrawn");
    own.service?.release();
    // What the guest had announced for it is an endpoint in its own right now.
    for (const [announcement, half] of [...this.#up]) if (half === own) this.#announced(announcement);
    return true;
  }

  /**
   * The local address of a channel to one of the endpoints.
   * @returns undefined when it is taken
   * @throws RpmsgError address-space-full, address-invalid
   */
  localAddress(
    owner: AttachedEndpoint,
    address: number | undefined,
    shared: boolean,
  ): LocalAddress | undefined {
    const known = address === undefined ? undefined : this.#locals.get(address);
    if (known !== undefined) {
      // Who is the only client of an endpoint shares its address with nobody.
      const joinable = shared && known.shared && (known.owner === owner || known.owner?.isExclusive !== true);
      return joinable ? known : undefined;
    }
    try {
      const local = this.#makeLocal(address, shared);
      local.owner = owner;
      return local;
    } catch (error) {
      if (error instanceof RpmsgError && error.code === "address-in-use") return undefined;
      throw error;
    }
  }

  /** The local address with this number, where somebody has it. */
  localAt(address: number): LocalAddress | undefined {
    return this.#locals.get(address);
  }

  /**
   * Waits until what clients have sent is with the guest, at most `timeout` milliseconds. The guest's own messages are
   * still taken, although nobody is there for them: a guest whose answers find no way out takes no messages in either.
   */
  async drained(timeout: number): Promise<void> {
    if (this.device.idle) return;
    if (this.device.state === "attached" && timeout > 0) {
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        this.#onIdle = resolve;
        timer = setTimeout(resolve, timeout);
      });
      this.#onIdle = undefined;
      clearTimeout(timer);
    }
    const { pending } = this.device;
    if (pending > 0) this.log.warn("undelivered-at-stop", { messages: pending });
  }

  close(): void {
    this.#link?.close();
    this.#link = undefined;
    for (const endpoint of this.#declared.keys()) endpoint.end("withdrawn");
    this.device.close();
  }

  /** The link is connected, or not any more. */
  stateChanged(): void {
    this.#events.onGuest(this);
    for (const endpoint of this.#endpoints()) endpoint.changed();
  }

  /** The guest broke a queue in the process that has its memory. */
  queueBroken(queue: number, code: GuestError["code"], reason: string, count: number): void {
    this.#brokenElsewhere += count;
    this.#reportBroken(queue, code, reason, count);
  }

  /** Something of an endpoint is not what it was. */
  changed(endpoint: AttachedEndpoint): void {
    this.#events.onChanged(endpoint);
  }

  /** Number of the guest's message that is passed on next. */
  nextSerial(): number {
    return ++this.#serial;
  }

  /** Requests or connections of the frontend were refused. */
  frontendRefused(code: CodedError["code"] | "internal", count = 1): void {
    this.frontendErrors += count;
    this.counts.rejected.frontend.add(code, count);
  }

  #endpoints(): Set<AttachedEndpoint> {
    return new Set([...this.#up.values(), ...this.#declared.keys()]);
  }

  #declareUp(name: string, address: number | undefined, local: number | undefined): AttachedEndpoint {
    const target = { peer: undefined };
    const endpoint = new AttachedEndpoint(this, { name, ns: "up", address, target, local });
    this.#declared.set(endpoint, { target, address });
    return endpoint;
  }

  #declareDown(
    name: string,
    ns: "none" | "down" | "both",
    address: number | undefined,
    peer: number | undefined,
  ): AttachedEndpoint {
    const service = this.#makeLocal(address, true);
    service.retain();
    let announcement: HostAnnouncement | undefined;
    try {
      if (ns !== "none") announcement = this.device.announce(name, service.address);
    } catch (error) {
      service.release();
      throw error;
    }
    const target = peer === undefined ? service.endpoint : { peer };
    const endpoint = new AttachedEndpoint(this, { name, ns, target, service });
    service.owner = endpoint;
    endpoint.told = announcement?.told ?? false;
    if (announcement !== undefined) this.#down.set(announcement, endpoint);
    this.#declared.set(endpoint, { announcement });
    return endpoint;
  }

  /** An announcement of the guest is this endpoint, or the other half of it. */
  #bind(endpoint: AttachedEndpoint, announcement: GuestAnnouncement): void {
    this.#up.set(announcement, endpoint);
    const { target } = this.#declared.get(endpoint) ?? {};
    if (target !== undefined) {
      target.peer = announcement.address;
      this.device.targetLearned();
    } else if (endpoint.service !== undefined && endpoint.peer === undefined) {
      // Until the guest has spoken; then messages go to the source of its most recent one.
      endpoint.service.endpoint.learn(announcement.address);
    }
    this.#events.onChanged(endpoint);
    endpoint.changed();
  }

  #makeLocal(address: number | undefined, shared: boolean): LocalAddress {
    const local = new LocalAddress(this, address, shared, () => this.#locals.delete(local.address));
    this.#locals.set(local.address, local);
    return local;
  }

  #deviceState(state: DeviceState): void {
    this.log.info("guest-state", { state, generation: this.device.generation });
    if (state === "attached" && this.device.nameService === false) {
      const announced = [...this.#declared.keys()].filter((each) => each.ns !== "none").length;
      if (announced > 0) this.log.warn("name-service-off", { endpoints: announced });
    }
    this.stateChanged();
  }

  #reset(): void {
    for (const endpoint of this.#endpoints()) endpoint.end("reset");
    for (const endpoint of this.#declared.keys()) this.#events.onChanged(endpoint);
  }

  #announced(announcement: GuestAnnouncement): void {
    const { name, address } = announcement;
    for (const [endpoint, declared] of this.#declared) {
      if (!matches(endpoint, declared.address, announcement)) continue;
      if ([...this.#up.values()].includes(endpoint)) continue;
      this.#bind(endpoint, announcement);
      return;
    }
    const endpoint = new AttachedEndpoint(this, { name, ns: "up", target: { peer: address } });
    this.#up.set(announcement, endpoint);
    this.#events.onAdded(endpoint);
  }

  #withdrawn(announcement: GuestAnnouncement): void {
    const endpoint = this.#up.get(announcement);
    if (endpoint === undefined) return;
    this.#up.delete(announcement);
    const declared = this.#declared.get(endpoint);
    if (declared === undefined) {
      this.#events.onRemoved(endpoint);
      endpoint.end("withdrawn");
      return;
    }
    if (declared.target !== undefined) {
      declared.target.peer = undefined;
      endpoint.end("withdrawn");
    } else if (endpoint.service?.endpoint.peer === announcement.address) {
      endpoint.service.endpoint.peer = undefined;
    }
    this.#events.onChanged(endpoint);
    endpoint.changed();
  }

  #told(announcement: HostAnnouncement): void {
    const endpoint = this.#down.get(announcement);
    if (endpoint === undefined) return;
    endpoint.told = announcement.told;
    this.#events.onChanged(endpoint);
    endpoint.changed();
  }

  #peerLearned({ address }: Endpoint, first: boolean): void {
    const { owner } = this.#locals.get(address) ?? {};
    if (owner?.service?.address !== address) return;
    this.#events.onChanged(owner);
    // Another peer is no other state.
    if (first) owner.changed();
  }

  #broken(queue: number, error: GuestError): void {
    this.#reportBroken(queue, error.code, error.message, 1);
  }

  #reportBroken(queue: number, code: GuestError["code"], reason: string, count: number): void {
    const name = queue === RESPONSE_QUEUE ? "response" : "request";
    this.counts.rejected.queue.add(code, count);
    this.log.warn("queue-broken", { queue: name, code, reason });
  }
}

/** What the host keeps of an endpoint that it declared. */
interface Declared {
  /** With ns down and both. */
  announcement?: HostAnnouncement | undefined;
  /** With ns up: where messages go, as soon as the guest has announced it, and the address that it must have. */
  target?: { peer: number | undefined };
  address?: number | undefined;
}

/** Whether what the guest announced is the endpoint, or the other half of it. */
function matches(
  endpoint: AttachedEndpoint,
  address: number | undefined,
  announcement: GuestAnnouncement,
): boolean {
  if (endpoint.name !== announcement.name) return false;
  if (endpoint.ns === "up") return address === undefined || address === announcement.address;
  return endpoint.ns === "both";
}
