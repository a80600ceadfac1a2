import type { GuestAnnouncement, GuestError, HostAnnouncement } from "../../rpmsg/index.ts";
import { RESPONSE_QUEUE, RpmsgDevice, RpmsgError } from "../../rpmsg/index.ts";
import type { Announcement, Guest, GuestState, Limits } from "../../schemas/index.ts";
import type { BurstLog } from "../burst-log.ts";
import type { EndpointPort } from "../endpoint-port.ts";
import { AttachedEndpoint } from "./attached-endpoint.ts";
import { LocalAddress } from "./local-address.ts";

/** What the outside is told of a guest's endpoints. */
export interface GuestEvents {
  onAdded(endpoint: EndpointPort): void;
  onRemoved(endpoint: EndpointPort): void;
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
 * One guest: its device, the endpoints that it and the host announced, and the channels to them. A reset ends every
 * channel; services of the host stay and are announced again.
 */
export class Attachment {
  readonly name: string;
  readonly device: RpmsgDevice;
  readonly log: BurstLog;
  /** Requests and connections of the frontend that were refused. */
  frontendErrors = 0;
  readonly #events: GuestEvents;
  /** Endpoints that the guest announced. */
  readonly #up = new Map<GuestAnnouncement, AttachedEndpoint>();
  /** Services of the host. */
  readonly #down = new Map<HostAnnouncement, AttachedEndpoint>();
  /** Local addresses that channels or services have. */
  readonly #locals = new Map<number, LocalAddress>();
  #link: GuestLink | undefined;
  #onIdle: (() => void) | undefined;

  constructor(name: string, limits: Limits, log: BurstLog, events: GuestEvents) {
    this.name = name;
    this.log = log;
    this.#events = events;
    this.device = new RpmsgDevice(
      {
        onState: (state) => log.info("guest-state", { state, generation: this.device.generation }),
        onReset: () => this.#reset(),
        onAnnounced: (announcement) => this.#announced(announcement),
        onWithdrawn: (announcement) => this.#withdrawn(announcement),
        onTold: (announcement) => {
          const endpoint = this.#down.get(announcement);
          if (endpoint !== undefined) endpoint.told = announcement.told;
        },
        onIdle: () => this.#onIdle?.(),
        onError: (queue, error) => this.#broken(queue, error),
      },
      { maxGuestAnnouncements: limits.guestAnnouncements },
    );
  }

  /** Starts the guest. The device may be in use from within `open` on. */
  start(open: (attachment: Attachment) => GuestLink): void {
    this.#link = open(this);
  }

  get state(): GuestState {
    if (this.#link?.connected !== true) return "waiting";
    return this.device.state;
  }

  describe(): Guest {
    return {
      name: this.name,
      kind: this.#link?.kind ?? "unknown",
      state: this.state,
      generation: this.device.generation,
      features: this.#link?.features ?? null,
      queues: this.#link?.queues ?? null,
      mtu: this.device.mtu,
      counters: { ...this.device.counters, frontendErrors: this.frontendErrors },
    };
  }

  /**
   * Adds a service of the host, which the guest is told of in every generation.
   * @throws RpmsgError address-in-use, address-invalid, name-invalid, already-announced
   */
  announce({ name, address }: Announcement): void {
    const raw = Buffer.from(name).toString("latin1");
    const local = this.#makeLocal(address, true);
    local.retain();
    let announcement: HostAnnouncement;
    try {
      announcement = this.device.announce(raw, local.address);
    } catch (error) {
      local.release();
      throw error;
    }
    const endpoint = new AttachedEndpoint(this, raw, local.address, "host", local.endpoint, local);
    local.owner = endpoint;
    this.#down.set(announcement, endpoint);
    this.#events.onAdded(endpoint);
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
    if (known !== undefined) return shared && known.shared ? known : undefined;
    try {
      const local = this.#makeLocal(address, shared);
      local.owner = owner;
      return local;
    } catch (error) {
      if (error instanceof RpmsgError && error.code === "address-in-use") return undefined;
      throw error;
    }
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
    for (const endpoint of this.#down.values()) endpoint.end("withdrawn");
    this.device.close();
  }

  #makeLocal(address: number | undefined, shared: boolean): LocalAddress {
    const local = new LocalAddress(this.device, address, shared, () => this.#locals.delete(local.address));
    this.#locals.set(local.address, local);
    return local;
  }

  #reset(): void {
    for (const endpoint of [...this.#up.values(), ...this.#down.values()]) endpoint.end("reset");
  }

  #announced(announcement: GuestAnnouncement): void {
    const { name, address } = announcement;
    const endpoint = new AttachedEndpoint(this, name, address, "guest", { peer: address });
    this.#up.set(announcement, endpoint);
    this.#events.onAdded(endpoint);
  }

  #withdrawn(announcement: GuestAnnouncement): void {
    const endpoint = this.#up.get(announcement);
    if (endpoint === undefined) return;
    this.#up.delete(announcement);
    endpoint.end("withdrawn");
    this.#events.onRemoved(endpoint);
  }

  #broken(queue: number, error: GuestError): void {
    const name = queue === RESPONSE_QUEUE ? "response" : "request";
    this.log.warn("queue-broken", { queue: name, code: error.code, reason: error.message });
  }
}
