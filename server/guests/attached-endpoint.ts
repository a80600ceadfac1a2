import type { Target } from "../../rpmsg/index.ts";
import { NAME_SERVICE_ADDRESS, RpmsgError } from "../../rpmsg/index.ts";
import type {
  EndpointCounters,
  EndpointState,
  GuestState,
  NameServiceMode,
  Origin,
} from "../../schemas/index.ts";
import type {
  ChannelEvents,
  ChannelPort,
  EndpointPort,
  EndReason,
  OpenOptions,
  OpenRefusal,
} from "../endpoint-port.ts";
import { AttachedChannel } from "./attached-channel.ts";
import type { Attachment } from "./attachment.ts";
import type { LocalAddress } from "./local-address.ts";

/** What tells one endpoint of a guest from another. */
export interface EndpointFacts {
  /** One character a byte. */
  readonly name: string;
  readonly ns: NameServiceMode;
  /** The address that the guest is to announce. */
  readonly address?: number | undefined;
  /** Where messages go. */
  readonly target: Target;
  /** The address of an endpoint of the host. */
  readonly service?: LocalAddress;
  /** The local address of clients that name none. */
  readonly local?: number | undefined;
}

/** An endpoint of an attached guest: one of the guest, or one of the host for which the guest has another half. */
export class AttachedEndpoint implements EndpointPort {
  readonly attachment: Attachment;
  readonly name: string;
  readonly ns: NameServiceMode;
  readonly target: Target;
  readonly service: LocalAddress | undefined;
  /** The guest was told of this endpoint of the host. */
  told = false;
  readonly counters: EndpointCounters = {
    accepted: 0,
    messagesToGuest: 0,
    bytesToGuest: 0,
    undelivered: 0,
    unconfirmed: 0,
    messagesFromGuest: 0,
    bytesFromGuest: 0,
    noClient: 0,
    messagesToClients: 0,
    dropped: 0,
  };
  readonly #address: number | undefined;
  readonly #local: number | undefined;
  readonly #channels = new Set<AttachedChannel<unknown>>();
  /** Closed ones of which messages still wait. */
  readonly #finishing = new Set<AttachedChannel<unknown>>();
  /** The address of the clients of a guest's endpoint that share one. */
  #shared: LocalAddress | undefined;

  constructor(attachment: Attachment, { name, ns, address, target, service, local }: EndpointFacts) {
    this.attachment = attachment;
    this.name = name;
    this.ns = ns;
    this.target = target;
    this.service = service;
    this.#address = address;
    this.#local = local;
  }

  get guest(): string {
    return this.attachment.name;
  }

  get guestState(): GuestState {
    return this.attachment.state;
  }

  get origin(): Origin {
    return this.service === undefined ? "guest" : "host";
  }

  get address(): number | undefined {
    return this.service?.address ?? this.target.peer ?? this.#address;
  }

  get peer(): number | undefined {
    return this.target.peer;
  }

  get state(): EndpointState {
    if (this.target.peer !== undefined) return "connected";
    return this.told ? "announced" : "declared";
  }

  get generation(): number {
    return this.attachment.device.generation;
  }

  get mtu(): number {
    return this.attachment.device.mtu;
  }

  get clients(): number {
    return this.#channels.size;
  }

  open<Ticket>(options: OpenOptions, events: ChannelEvents<Ticket>): ChannelPort<Ticket> | OpenRefusal {
    const exclusive = options.share === "exclusive";
    // An exclusive channel is the only one.
    const [first] = this.#channels;
    const busy = exclusive ? first !== undefined : first?.exclusive === true;
    if (busy && !(exclusive && options.takeover && first?.replaceable !== false)) return "endpoint-in-use";
    if (busy) {
      // Nobody is closed for a client that cannot be taken then.
      if (!this.#isFreeAfter(options.local ?? this.#local)) return "local-in-use";
      this.end("replaced");
    }
    try {
      const local = this.#localOf(options);
      if (local === undefined) return "local-in-use";
      const channel = new AttachedChannel(this, local, options, events);
      this.#channels.add(channel);
      this.attachment.changed(this);
      return channel;
    } catch (error) {
      if (error instanceof RpmsgError) return "no-address";
      throw error;
    }
  }

  /** The only client is an exclusive one. */
  get isExclusive(): boolean {
    const [first] = this.#channels;
    return first?.exclusive === true;
  }

  /** A channel is closed; what it has taken may still wait. */
  closed<Ticket>(channel: AttachedChannel<Ticket>): void {
    this.#channels.delete(channel);
    this.#finishing.add(channel);
    this.attachment.changed(this);
  }

  /** Nothing of a closed channel waits any more. */
  finished<Ticket>(channel: AttachedChannel<Ticket>): void {
    this.#finishing.delete(channel);
  }

  /** Tells every channel that states may have changed. */
  changed(): void {
    for (const channel of [...this.#channels]) channel.changed();
  }

  /** Tells every channel that it is of no use any more. */
  end(reason: EndReason): void {
    for (const channel of [...this.#channels]) channel.end(reason);
    if (reason === "withdrawn") for (const channel of [...this.#finishing]) channel.drop();
  }

  /** Whether a local address can be had when all channels are closed. */
  #isFreeAfter(address: number | undefined): boolean {
    if (address === undefined) return true;
    const known = this.attachment.localAt(address);
    if (known === undefined) return address !== NAME_SERVICE_ADDRESS;
    const holders = [...this.#channels].filter((channel) => channel.has(known)).length;
    return holders > 0 && holders === known.users;
  }

  #localOf(options: OpenOptions): LocalAddress | undefined {
    const { share = this.service === undefined ? "private" : "shared", local = this.#local } = options;
    const shared = share === "shared";
    if (local !== undefined) return this.attachment.localAddress(this, local, shared);
    if (share !== "private" && this.service !== undefined) return this.service;
    if (!shared) return this.attachment.localAddress(this, undefined, false);
    if (this.#shared === undefined || this.#shared.endpoint.closed) {
      this.#shared = this.attachment.localAddress(this, undefined, true);
    }
    return this.#shared;
  }
}
