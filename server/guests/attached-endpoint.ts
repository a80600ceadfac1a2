import type { Target } from "../../rpmsg/index.ts";
import { RpmsgError } from "../../rpmsg/index.ts";
import type { EndpointCounters, EndpointState, Origin } from "../../schemas/index.ts";
import type { ChannelEvents, ChannelPort, EndpointPort, OpenOptions } from "../endpoint-port.ts";
import { AttachedChannel } from "./attached-channel.ts";
import type { Attachment } from "./attachment.ts";
import type { LocalAddress } from "./local-address.ts";

/** An endpoint of an attached guest, announced by the guest or by the host. */
export class AttachedEndpoint implements EndpointPort {
  readonly attachment: Attachment;
  readonly name: string;
  readonly address: number;
  readonly origin: Origin;
  /** Where messages go. */
  readonly target: Target;
  /** The address of a service of the host. */
  readonly service: LocalAddress | undefined;
  /** The guest was told of this service of the host. */
  told = false;
  readonly counters: EndpointCounters = {
    messagesToGuest: 0,
    bytesToGuest: 0,
    messagesFromGuest: 0,
    bytesFromGuest: 0,
    noClient: 0,
    undelivered: 0,
  };
  readonly #channels = new Set<AttachedChannel>();
  /** The address of the clients of a guest's endpoint that share one. */
  #shared: LocalAddress | undefined;

  constructor(
    attachment: Attachment,
    name: string,
    address: number,
    origin: Origin,
    target: Target,
    service?: LocalAddress,
  ) {
    this.attachment = attachment;
    this.name = name;
    this.address = address;
    this.origin = origin;
    this.target = target;
    this.service = service;
  }

  get guest(): string {
    return this.attachment.name;
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

  open(options: OpenOptions, events: ChannelEvents): ChannelPort | "local-in-use" | "no-address" {
    try {
      const local = this.#local(options);
      if (local === undefined) return "local-in-use";
      const channel = new AttachedChannel(this, local, options, events);
      this.#channels.add(channel);
      return channel;
    } catch (error) {
      if (error instanceof RpmsgError) return "no-address";
      throw error;
    }
  }

  /** A channel is closed. */
  closed(channel: AttachedChannel): void {
    this.#channels.delete(channel);
  }

  /** Tells every channel that it is of no use any more. */
  end(state: "reset" | "withdrawn"): void {
    for (const channel of [...this.#channels]) channel.end(state);
  }

  #local({ share, local }: OpenOptions): LocalAddress | undefined {
    const shared = share === "shared";
    if (!shared || local !== undefined) return this.attachment.localAddress(this, local, shared);
    if (this.service !== undefined) return this.service;
    if (this.#shared === undefined || this.#shared.endpoint.closed) {
      this.#shared = this.attachment.localAddress(this, undefined, true);
    }
    return this.#shared;
  }
}
