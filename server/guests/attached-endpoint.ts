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
  ChannelSnapshot,
  EndpointPort,
  EndReason,
  OpenOptions,
  OpenRefusal,
  SendBounds,
} from "../endpoint-port.ts";
import { AttachedChannel } from "./attached-channel.ts";
import type { Attachment } from "./attachment.ts";
import type { LocalAddress } from "./local-address.ts";
import type { LocalAddresses } from "./local-addresses.ts";

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

/** What an endpoint of another process leaves, besides its open channels: plain data. */
export interface EndpointSnapshot {
  readonly name: string;
  readonly ns: NameServiceMode;
  readonly told: boolean;
  readonly counters: EndpointCounters;
  readonly address: number | undefined;
  readonly local: number | undefined;
  /** Address of an endpoint of the host. */
  readonly service: number | undefined;
  /** Where messages go, unless it is to the peer of the service. */
  readonly peer: number | undefined;
  readonly toServicePeer: boolean;
  /** The address that clients of a guest's endpoint share. */
  readonly shared: number | undefined;
  /** Closed channels of which messages still wait. */
  readonly finishing: readonly ChannelSnapshot[];
  /** Buffers with messages of channels that are gone. */
  readonly unread: readonly number[];
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

  get #locals(): LocalAddresses {
    return this.attachment.endpoints.locals;
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
      const channel = new AttachedChannel(this, local, { ...options, exclusive }, events);
      this.#channels.add(channel);
      this.attachment.endpoints.changed(this);
      return channel;
    } catch (error) {
      if (error instanceof RpmsgError) return "no-address";
      throw error;
    }
  }

  restore<Ticket>(
    snapshot: ChannelSnapshot<Ticket>,
    bounds: SendBounds,
    events: ChannelEvents<Ticket>,
  ): ChannelPort<Ticket> {
    return this.#restored(snapshot, bounds, events);
  }

  /** What there is to know besides its open channels. */
  snapshot(): EndpointSnapshot {
    const { name, ns, told, counters, service, target } = this;
    const toServicePeer = target === service?.endpoint;
    return {
      name,
      ns,
      told,
      counters: { ...counters },
      address: this.#address,
      local: this.#local,
      service: service?.address,
      peer: toServicePeer ? undefined : target.peer,
      toServicePeer,
      shared: this.#shared?.endpoint.closed === false ? this.#shared.address : undefined,
      finishing: [...this.#finishing].map((channel) => withoutTickets(channel.snapshot())),
      // What no channel has taken as its own.
      unread: this.attachment.unreadOf(this),
    };
  }

  /** Goes on where another process stopped; facts and local addresses are there again. */
  goOn({ told, counters, shared, finishing, unread }: EndpointSnapshot, bounds: SendBounds): void {
    this.told = told;
    Object.assign(this.counters, counters);
    if (shared !== undefined) this.#shared = this.#locals.at(shared);
    for (const channel of finishing) this.#restored(channel, bounds, NOBODY).close();
    if (unread.length > 0) this.#restoreUnread(unread);
  }

  /** What channels that are gone have sent is counted still, where a reset comes before the guest has read it. */
  #restoreUnread(heads: readonly number[]): void {
    const sender = { unconfirmed: () => void this.counters.unconfirmed++ };
    this.attachment.sends(sender, this);
    this.attachment.device.restoreUnread(
      sender,
      heads.map((head) => ({ head, ticket: undefined })),
    );
  }

  #restored<Ticket>(
    snapshot: ChannelSnapshot<Ticket>,
    bounds: SendBounds,
    events: ChannelEvents<Ticket>,
  ): AttachedChannel<Ticket> {
    const local = this.#locals.at(snapshot.local);
    if (local === undefined) throw new RangeError(`a channel has the unknown address ${snapshot.local}`);
    const channel = new AttachedChannel(this, local, { ...snapshot, ...bounds }, events);
    this.#channels.add(channel);
    return channel.restore(snapshot);
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
    this.attachment.endpoints.changed(this);
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
    const known = this.#locals.at(address);
    if (known === undefined) return address !== NAME_SERVICE_ADDRESS;
    const holders = [...this.#channels].filter((channel) => channel.has(known)).length;
    return holders > 0 && holders === known.users;
  }

  #localOf(options: OpenOptions): LocalAddress | undefined {
    const { share = this.service === undefined ? "private" : "shared", local = this.#local } = options;
    const shared = share === "shared";
    if (local !== undefined) return this.#locals.forChannel(this, local, shared);
    if (share !== "private" && this.service !== undefined) return this.service;
    if (!shared) return this.#locals.forChannel(this, undefined, false);
    if (this.#shared === undefined || this.#shared.endpoint.closed) {
      this.#shared = this.#locals.forChannel(this, undefined, true);
    }
    return this.#shared;
  }
}

/** Nobody waits for what becomes of a message of a closed channel. */
function withoutTickets({ waiting, unread, ...facts }: ChannelSnapshot): ChannelSnapshot {
  return {
    ...facts,
    waiting: waiting.map(({ dst, bytes, left }) => ({ dst, bytes, left, ticket: undefined })),
    unread: unread.map(({ head }) => ({ head, ticket: undefined })),
  };
}

const NOBODY: ChannelEvents = {
  onMessage() {},
  onWritable() {},
  onSent() {},
  onUndelivered() {},
  onUnconfirmed() {},
  onChanged() {},
  onEnd() {},
};
