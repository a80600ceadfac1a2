import type {
  CodedError,
  DeviceSnapshot,
  DeviceState,
  Endpoint,
  GuestAnnouncement,
  GuestError,
  HostAnnouncement,
  SendQueue,
} from "../../rpmsg/index.ts";
import { NAME_SERVICE_ADDRESS, RESPONSE_QUEUE, RpmsgDevice, RpmsgError } from "../../rpmsg/index.ts";
import type { EndpointDeclaration, Guest, GuestState, Limits } from "../../schemas/index.ts";
import { TokenBucket } from "../access/token-bucket.ts";
import type { BurstLog } from "../burst-log.ts";
import type { CountedLimit } from "../counted-limits.ts";
import type { EndpointPort, SendBounds } from "../endpoint-port.ts";
import type { MemoryBudget } from "../memory-budget.ts";
import type { Tally } from "../tally.ts";
import type { EndpointSnapshot } from "./attached-endpoint.ts";
import { AttachedEndpoint } from "./attached-endpoint.ts";
import { GuestCounts } from "./guest-counts.ts";
import { LocalAddress } from "./local-address.ts";
import type { LinkSnapshot } from "./vhost-user-snapshot.ts";

/** What the outside is told of a guest's endpoints. */
export interface GuestEvents {
  onAdded(endpoint: EndpointPort): void;
  /** Anything but the counters. */
  onChanged(endpoint: EndpointPort): void;
  onRemoved(endpoint: EndpointPort): void;
  /** The state or the generation of the guest. */
  onGuest(guest: Attachment): void;
}

/** What bounds a guest, and what it has in common with the others. */
export interface GuestBounds {
  readonly limits: Limits;
  readonly counters: Tally<CountedLimit>;
  /** Of the bytes that wait for all guests. */
  readonly budget: MemoryBudget;
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
  /** Takes nothing of the frontend until `resume`. The device is paused already. */
  pause?(): void;
  resume?(): void;
  /** What another process needs to go on with it; undefined where nobody else can. */
  snapshot?(): LinkSnapshot;
}

/** What a guest leaves to another process: plain data. */
export interface AttachmentSnapshot {
  readonly name: string;
  readonly device: DeviceSnapshot;
  readonly frontendErrors: number;
  readonly brokenElsewhere: number;
  /** In the order in which they came. */
  readonly endpoints: readonly AttachedEndpointSnapshot[];
  readonly locals: readonly { readonly address: number; readonly shared: boolean; readonly owner: number }[];
  /** Undefined where the guest is one of the process itself. */
  readonly link: LinkSnapshot | undefined;
}

interface AttachedEndpointSnapshot extends EndpointSnapshot {
  /** Undefined where only the guest has announced it. */
  readonly declaration: EndpointDeclaration | undefined;
  /** The configuration declared it. */
  readonly configured: boolean;
  /** What the guest announced that is this endpoint. */
  readonly announcements: readonly GuestAnnouncement[];
  /** Buffers with messages of channels that are gone. */
  readonly unread: readonly number[];
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
  /** Of the bytes that wait for all guests. */
  readonly budget: MemoryBudget;
  /** Requests and connections of the frontend that were refused. */
  frontendErrors = 0;
  /** Queues that an isolated guest broke: the device sees only the relay's. */
  #brokenElsewhere = 0;
  readonly #events: GuestEvents;
  readonly #limits: Limits;
  readonly #counters: Tally<CountedLimit>;
  readonly #announcementRate: TokenBucket;
  /** The guest has announced more often than it may: its messages are left in its ring. */
  #pause: NodeJS.Timeout | undefined;
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
  /** Whose counters count what became of a message. */
  readonly #senders = new WeakMap<object, AttachedEndpoint>();
  /** While the guest stands still: what it may not have read, of senders that did not ask yet. */
  #unread: ReturnType<RpmsgDevice["unread"]> = new Map();
  #onIdle: (() => void) | undefined;

  constructor(name: string, { limits, counters, budget }: GuestBounds, log: BurstLog, events: GuestEvents) {
    this.name = name;
    this.log = log;
    this.#events = events;
    this.budget = budget;
    this.#limits = limits;
    this.#counters = counters;
    this.#announcementRate = new TokenBucket(limits.announcementRate);
    this.device = new RpmsgDevice(
      {
        onState: (state) => this.#deviceState(state),
        onReset: () => this.#reset(),
        onNameService: () => this.#slowDown(this.#announcementRate.spend()),
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

  /**
   * Starts the guest. The device may be in use from within `open` on.
   * @param inherited it is what it was in another process: nobody is told
   */
  start(open: (attachment: Attachment) => GuestLink, inherited = false): void {
    this.#link = open(this);
    if (!inherited) this.stateChanged();
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
  declare(declaration: EndpointDeclaration, configured = false): EndpointPort {
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
    Object.assign(this.#declared.get(endpoint) ?? {}, { declaration, configured });
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
    if (pending > 0) this.log.write("undelivered-at-stop", { messages: pending });
  }

  /** The bridge has nothing to do with this guest any more: its endpoints are gone, and its channels end. */
  release(): void {
    this.device.reset();
    for (const endpoint of [...this.#declared.keys()]) this.withdraw(endpoint);
    this.close();
  }

  close(): void {
    clearTimeout(this.#pause);
    this.#link?.close();
    this.#link = undefined;
    for (const endpoint of this.#declared.keys()) endpoint.end("withdrawn");
    this.device.close();
  }

  /**
   * Declares what the configuration has. Where another process handed the guest over, what its configuration had and
   * this one has no more is withdrawn, and what both have stays as it is.
   * @throws RpmsgError as `declare`
   */
  configure(declarations: readonly EndpointDeclaration[]): void {
    const wanted = new Map(declarations.map((each) => [textOf(each), each]));
    for (const [endpoint, { declaration, configured }] of [...this.#declared]) {
      if (configured !== true || declaration === undefined) continue;
      if (!wanted.delete(textOf(declaration))) this.withdraw(endpoint);
    }
    for (const declaration of wanted.values()) this.declare(declaration, true);
  }

  // ---- hand-over ----

  /** Stands still, unnoticed by the guest, until `resume` or for good. */
  pause(): void {
    this.device.pause();
    this.#link?.pause?.();
    this.#unread = this.device.unread();
  }

  /** Goes on: after `pause`, or where another process stopped. */
  resume(): void {
    this.#unread = new Map();
    // Whoever had it in another process did not come along.
    for (const local of [...this.#locals.values()]) if (local.users === 0) local.release();
    this.device.resume();
    this.#link?.resume?.();
  }

  /** Messages of this queue that the guest may not have read; while it stands still, and once. */
  takeUnread<Ticket>(queue: SendQueue<Ticket>): { head: number; ticket: unknown }[] {
    const unread = this.#unread.get(queue) ?? [];
    this.#unread.delete(queue);
    return unread;
  }

  /** The queue's messages are counted at this endpoint. */
  sends(queue: object, endpoint: AttachedEndpoint): void {
    this.#senders.set(queue, endpoint);
  }

  /** Endpoints as the snapshot has them, in its order. */
  get endpointList(): readonly AttachedEndpoint[] {
    return [...this.#endpoints()];
  }

  /** What another process needs, after the snapshots of the channels; the guest stands still. */
  snapshot(): AttachmentSnapshot {
    const endpoints = this.endpointList;
    return {
      name: this.name,
      frontendErrors: this.frontendErrors,
      brokenElsewhere: this.#brokenElsewhere,
      device: this.device.snapshot(),
      endpoints: endpoints.map((endpoint) => {
        const { declaration, configured = false } = this.#declared.get(endpoint) ?? {};
        const snapshot = endpoint.snapshot();
        const announcements = [...this.#up].flatMap(([each, own]) => (own === endpoint ? [each] : []));
        const orphans = [...this.#unread].filter(([queue]) => this.#senders.get(queue) === endpoint);
        const unread = orphans.flatMap(([, own]) => own.map(({ head }) => head));
        return { ...snapshot, declaration, configured, announcements, unread };
      }),
      locals: [...this.#locals.values()].map(({ address, shared, owner }) => ({
        address,
        shared,
        owner: owner === undefined ? -1 : endpoints.indexOf(owner),
      })),
      link: this.#link?.snapshot?.(),
    };
  }

  /**
   * Goes on as the guest that the snapshot is of: called on a new one, before it is started. Nobody is told of the
   * endpoints: they have been there before.
   * @returns the endpoints, in the snapshot's order
   */
  restore(snapshot: AttachmentSnapshot, bounds: SendBounds): AttachedEndpoint[] {
    this.frontendErrors = snapshot.frontendErrors;
    this.#brokenElsewhere = snapshot.brokenElsewhere;
    for (const { address, shared } of snapshot.locals) this.#makeLocal(address, shared);
    const endpoints = snapshot.endpoints.map((each) => this.#restoreEndpoint(each));
    for (const { address, owner } of snapshot.locals) {
      const local = this.#locals.get(address);
      if (local !== undefined) local.owner = endpoints[owner];
    }
    this.device.restore(snapshot.device);
    for (const announcement of this.device.guestAnnouncements) {
      const index = snapshot.endpoints.findIndex(({ announcements }) =>
        announcements.some(
          ({ name, address }) => name === announcement.name && address === announcement.address,
        ),
      );
      const endpoint = endpoints[index];
      if (endpoint !== undefined) this.#up.set(announcement, endpoint);
    }
    for (const [index, each] of snapshot.endpoints.entries()) {
      const endpoint = endpoints[index] as AttachedEndpoint;
      endpoint.goOn(each, bounds);
      if (each.unread.length > 0) this.#restoreOrphans(endpoint, each.unread);
    }
    return endpoints;
  }

  #restoreEndpoint(snapshot: AttachedEndpointSnapshot): AttachedEndpoint {
    const { name, ns, address, local, declaration, configured } = snapshot;
    const service = snapshot.service === undefined ? undefined : this.#locals.get(snapshot.service);
    service?.retain();
    const target =
      service !== undefined && snapshot.toServicePeer ? service.endpoint : { peer: snapshot.peer };
    const endpoint = new AttachedEndpoint(this, {
      name,
      ns,
      address,
      local,
      target,
      ...(service !== undefined && { service }),
    });
    if (declaration === undefined) return endpoint;
    if (service === undefined) {
      this.#declared.set(endpoint, { declaration, configured, target, address: declaration.address });
      return endpoint;
    }
    const announcement = ns === "none" ? undefined : this.device.announce(name, service.address);
    if (announcement !== undefined) this.#down.set(announcement, endpoint);
    this.#declared.set(endpoint, { declaration, configured, announcement });
    return endpoint;
  }

  /** What channels that are gone have sent is counted still, where a reset comes before the guest has read it. */
  #restoreOrphans(endpoint: AttachedEndpoint, heads: readonly number[]): void {
    const sender = {
      unconfirmed() {
        endpoint.counters.unconfirmed++;
      },
    };
    this.sends(sender, endpoint);
    this.device.restoreUnread(
      sender,
      heads.map((head) => ({ head, ticket: undefined })),
    );
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

  /** Leaves the guest's messages in its ring for so many milliseconds: nothing is lost, and nobody else waits. */
  #slowDown(wait: number): void {
    if (wait === 0 || this.#pause !== undefined) return;
    this.#counters.add("announcementRate");
    this.device.hold();
    this.#pause = setTimeout(() => {
      this.#pause = undefined;
      this.device.release();
    }, wait).unref();
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
    this.log.write("guest-state", { state, generation: this.device.generation });
    if (state === "attached" && this.device.nameService === false) {
      const announced = [...this.#declared.keys()].filter((each) => each.ns !== "none").length;
      if (announced > 0) this.log.write("name-service-off", { endpoints: announced });
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
    this.log.write("queue-broken", { queue: name, code, reason });
  }
}

/** One text for equal declarations, whatever the order of their keys. */
function textOf(declaration: EndpointDeclaration): string {
  return JSON.stringify(Object.entries(declaration).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

/** What the host keeps of an endpoint that it declared. */
interface Declared {
  declaration?: EndpointDeclaration;
  /** By the configuration. */
  configured?: boolean;
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
