import type { DeviceSnapshot, Endpoint, GuestAnnouncement, HostAnnouncement } from "../../rpmsg/index.ts";
import { NAME_SERVICE_ADDRESS, RpmsgError } from "../../rpmsg/index.ts";
import type { EndpointDeclaration } from "../../schemas/index.ts";
import type { EndpointPort, SendBounds } from "../endpoint-port.ts";
import type { EndpointSnapshot } from "./attached-endpoint.ts";
import { AttachedEndpoint } from "./attached-endpoint.ts";
import type { Attachment } from "./attachment.ts";
import { LocalAddresses } from "./local-addresses.ts";

/** What the outside is told of a guest's endpoints. */
export interface EndpointEvents {
  onAdded(endpoint: EndpointPort): void;
  /** Anything but the counters. */
  onChanged(endpoint: EndpointPort): void;
  onRemoved(endpoint: EndpointPort): void;
}

/** What a set leaves to another process: plain data. */
export interface EndpointSetSnapshot {
  /** In the order in which they came. */
  readonly endpoints: readonly SetEndpointSnapshot[];
  readonly locals: readonly { readonly address: number; readonly shared: boolean; readonly owner: number }[];
}

interface SetEndpointSnapshot extends EndpointSnapshot {
  /** Undefined where only the guest has announced it. */
  readonly declaration: EndpointDeclaration | undefined;
  /** The configuration declared it. */
  readonly configured: boolean;
  /** What the guest announced that is this endpoint. */
  readonly announcements: readonly GuestAnnouncement[];
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

/** The endpoints of one guest: what it announced, and what the host declared for it, which stays when it is reset. */
export class EndpointSet {
  readonly locals: LocalAddresses;
  readonly #attachment: Attachment;
  /** How many the host may declare. */
  readonly #most: number;
  readonly #events: EndpointEvents;
  /** What the guest announced, and the endpoints that it is, or is the other half of. */
  readonly #up = new Map<GuestAnnouncement, AttachedEndpoint>();
  /** Endpoints that the host declared, whatever the guest does. */
  readonly #declared = new Map<AttachedEndpoint, Declared>();
  /** Those of them that the guest is told of. */
  readonly #down = new Map<HostAnnouncement, AttachedEndpoint>();

  constructor(attachment: Attachment, most: number, events: EndpointEvents) {
    this.#attachment = attachment;
    this.#most = most;
    this.#events = events;
    this.locals = new LocalAddresses(attachment);
  }

  /** As the snapshot has them, in its order. */
  get list(): readonly AttachedEndpoint[] {
    return [...new Set([...this.#up.values(), ...this.#declared.keys()])];
  }

  /** How many the host announces, where the guest hears it. */
  get announcing(): number {
    return [...this.#declared.keys()].filter(({ ns }) => ns !== "none").length;
  }

  /**
   * Adds an endpoint that the host declares. It stays through all generations until it is withdrawn.
   * @throws RpmsgError address-in-use, address-invalid, address-space-full, name-invalid, already-announced,
   *   name-service-off, too-many-endpoints
   */
  declare(declaration: EndpointDeclaration, configured = false): EndpointPort {
    const { name, ns, address, peer, local } = declaration;
    if (this.#declared.size >= this.#most) {
      throw new RpmsgError(
        "too-many-endpoints",
        `guest "${this.#attachment.name}" has ${this.#declared.size} declared endpoints, the most there may be`,
      );
    }
    if (ns !== "none" && this.#attachment.device.nameService === false) {
      throw new RpmsgError(
        "name-service-off",
        `guest "${this.#attachment.name}" has not negotiated name service`,
      );
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
      this.#attachment.device.withdraw(declared.announcement);
    }
    // Gone before its clients hear of it: one that is the service withdraws it too, and none is to find it again.
    this.#events.onRemoved(own);
    own.end("withdrawn");
    own.service?.release(own);
    // What the guest had announced for it is an endpoint in its own right now.
    for (const [announcement, half] of [...this.#up]) if (half === own) this.announced(announcement);
    return true;
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

  /** Withdraws all that the host declared. */
  withdrawAll(): void {
    for (const endpoint of [...this.#declared.keys()]) this.withdraw(endpoint);
  }

  /** The channels to what the host declared end; what the guest announced ends with its device. */
  end(): void {
    for (const endpoint of this.#declared.keys()) endpoint.end("withdrawn");
  }

  /** Something of an endpoint is not what it was. */
  changed(endpoint: AttachedEndpoint): void {
    this.#events.onChanged(endpoint);
  }

  reset(): void {
    for (const endpoint of this.list) endpoint.end("reset");
    for (const endpoint of this.#declared.keys()) this.#events.onChanged(endpoint);
  }

  announced(announcement: GuestAnnouncement): void {
    const { name, address } = announcement;
    for (const [endpoint, declared] of this.#declared) {
      if (!matches(endpoint, declared.address, announcement)) continue;
      if ([...this.#up.values()].includes(endpoint)) continue;
      this.#bind(endpoint, announcement);
      return;
    }
    const endpoint = new AttachedEndpoint(this.#attachment, { name, ns: "up", target: { peer: address } });
    this.#up.set(announcement, endpoint);
    this.#events.onAdded(endpoint);
  }

  withdrawn(announcement: GuestAnnouncement): void {
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

  told(announcement: HostAnnouncement): void {
    const endpoint = this.#down.get(announcement);
    if (endpoint === undefined) return;
    endpoint.told = announcement.told;
    this.#events.onChanged(endpoint);
    endpoint.changed();
  }

  peerLearned({ address }: Endpoint, first: boolean): void {
    const { owner } = this.locals.at(address) ?? {};
    if (owner?.service?.address !== address) return;
    this.#events.onChanged(owner);
    // Another peer is no other state.
    if (first) owner.changed();
  }

  /** What another process needs, after the snapshots of the channels; the guest stands still. */
  snapshot(): EndpointSetSnapshot {
    const { list } = this;
    return {
      endpoints: list.map((endpoint) => {
        const { declaration, configured = false } = this.#declared.get(endpoint) ?? {};
        const announcements = [...this.#up].flatMap(([each, own]) => (own === endpoint ? [each] : []));
        return { ...endpoint.snapshot(), declaration, configured, announcements };
      }),
      locals: this.locals.list.map(({ address, shared, owner }) => ({
        address,
        shared,
        owner: owner === undefined ? -1 : list.indexOf(owner),
      })),
    };
  }

  /**
   * Goes on as the set that the snapshot is of: called on a new one. Nobody is told of the endpoints: they have been
   * there before.
   * @param device what the snapshot has of the device, which takes the host's announcements as its own
   * @returns the endpoints, in the snapshot's order
   */
  restore(snapshot: EndpointSetSnapshot, device: DeviceSnapshot, bounds: SendBounds): AttachedEndpoint[] {
    for (const { address, shared } of snapshot.locals) this.locals.make(address, shared);
    const endpoints = snapshot.endpoints.map((each) => this.#restoreEndpoint(each));
    for (const { address, owner } of snapshot.locals) {
      const local = this.locals.at(address);
      if (local !== undefined) local.owner = endpoints[owner];
    }
    this.#attachment.device.restore(device);
    for (const announcement of this.#attachment.device.guestAnnouncements) {
      const index = snapshot.endpoints.findIndex(({ announcements }) =>
        announcements.some(
          ({ name, address }) => name === announcement.name && address === announcement.address,
        ),
      );
      const endpoint = endpoints[index];
      if (endpoint !== undefined) this.#up.set(announcement, endpoint);
    }
    for (const [index, each] of snapshot.endpoints.entries()) endpoints[index]?.goOn(each, bounds);
    return endpoints;
  }

  #restoreEndpoint(snapshot: SetEndpointSnapshot): AttachedEndpoint {
    const { name, ns, address, local, declaration, configured } = snapshot;
    const service = snapshot.service === undefined ? undefined : this.locals.at(snapshot.service);
    const target =
      service !== undefined && snapshot.toServicePeer ? service.endpoint : { peer: snapshot.peer };
    const endpoint = new AttachedEndpoint(this.#attachment, {
      name,
      ns,
      address,
      local,
      target,
      ...(service !== undefined && { service }),
    });
    service?.retain(endpoint);
    if (declaration === undefined) return endpoint;
    if (service === undefined) {
      this.#declared.set(endpoint, { declaration, configured, target, address: declaration.address });
      return endpoint;
    }
    const announcement = ns === "none" ? undefined : this.#attachment.device.announce(name, service.address);
    if (announcement !== undefined) this.#down.set(announcement, endpoint);
    this.#declared.set(endpoint, { declaration, configured, announcement });
    return endpoint;
  }

  #declareUp(name: string, address: number | undefined, local: number | undefined): AttachedEndpoint {
    const target = { peer: undefined };
    const endpoint = new AttachedEndpoint(this.#attachment, { name, ns: "up", address, target, local });
    this.#declared.set(endpoint, { target, address });
    return endpoint;
  }

  #declareDown(
    name: string,
    ns: "none" | "down" | "both",
    address: number | undefined,
    peer: number | undefined,
  ): AttachedEndpoint {
    const service = this.locals.make(address, true);
    let announcement: HostAnnouncement | undefined;
    try {
      if (ns !== "none") announcement = this.#attachment.device.announce(name, service.address);
    } catch (error) {
      service.release();
      throw error;
    }
    const target = peer === undefined ? service.endpoint : { peer };
    const endpoint = new AttachedEndpoint(this.#attachment, { name, ns, target, service });
    service.retain(endpoint);
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
      this.#attachment.device.targetLearned();
    } else if (endpoint.service !== undefined && endpoint.peer === undefined) {
      // Until the guest has spoken; then messages go to the source of its most recent one.
      endpoint.service.endpoint.learn(announcement.address);
    }
    this.#events.onChanged(endpoint);
    endpoint.changed();
  }
}

/** One text for equal declarations, whatever the order of their keys. */
function textOf(declaration: EndpointDeclaration): string {
  return JSON.stringify(Object.entries(declaration).toSorted(([a], [b]) => (a < b ? -1 : 1)));
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
