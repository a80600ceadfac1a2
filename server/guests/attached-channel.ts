import type { SendQueue } from "../../rpmsg/index.ts";
import type {
  ChannelEvents,
  ChannelPort,
  ChannelSnapshot,
  DropCause,
  EndReason,
  SendBounds,
  SendCode,
} from "../endpoint-port.ts";
import type { Holder } from "../memory-budget.ts";
import type { AttachedEndpoint } from "./attached-endpoint.ts";
import type { LocalAddress } from "./local-address.ts";

/** What a channel may do. */
interface ChannelFacts extends SendBounds, Pick<ChannelSnapshot, "exclusive" | "replaceable" | "listens"> {}
/** Counted for each message that waits, besides its payload. */
const MESSAGE_COST = 16;

/** One client's channel to an endpoint of an attached guest. */
export class AttachedChannel<Ticket> implements ChannelPort<Ticket>, Holder {
  readonly endpoint: AttachedEndpoint;
  /** The only channel of its endpoint. */
  readonly exclusive: boolean;
  /** Another client may take its place. */
  readonly replaceable: boolean;
  readonly #listens: boolean;
  readonly #local: LocalAddress;
  readonly #events: ChannelEvents<Ticket>;
  readonly #queue: SendQueue<Ticket>;
  #holding = false;
  #closed = false;

  constructor(
    endpoint: AttachedEndpoint,
    local: LocalAddress,
    facts: ChannelFacts,
    events: ChannelEvents<Ticket>,
  ) {
    this.endpoint = endpoint;
    this.exclusive = facts.exclusive;
    this.replaceable = facts.replaceable;
    this.#listens = facts.listens;
    this.#local = local;
    this.#events = events;
    const { counters } = endpoint;
    const { counts } = endpoint.attachment;
    this.#queue = endpoint.attachment.device.createSendQueue<Ticket>(
      local.endpoint,
      endpoint.target,
      {
        onWritable: () => {
          if (!this.#closed) events.onWritable();
        },
        onSent: (length, ticket) => {
          counters.messagesToGuest++;
          counters.bytesToGuest += length;
          if (!this.#closed) events.onSent(ticket);
        },
        onUndelivered: (code, ticket) => {
          counters.undelivered++;
          counts.undelivered.add(code);
          if (!this.#closed) events.onUndelivered(code, ticket);
        },
        onUnconfirmed: (ticket) => {
          counters.unconfirmed++;
          if (!this.#closed) events.onUnconfirmed(ticket);
        },
      },
      { limit: facts.queueBytes, low: facts.lowBytes, timeout: facts.timeout },
    );
    endpoint.attachment.sends(this.#queue, endpoint);
    local.retain(endpoint);
    if (facts.listens) local.add(events);
  }

  get local(): number {
    return this.#local.address;
  }

  get peer(): number | undefined {
    return this.endpoint.peer;
  }

  get mtu(): number {
    return this.endpoint.mtu;
  }

  get pendingBytes(): number {
    return this.#queue.pendingBytes;
  }

  send(
    dst: number | undefined,
    bytes: Uint8Array,
    offset: number,
    length: number,
    ticket?: Ticket,
    timeout?: number,
  ): SendCode {
    const code = this.#queue.send(dst, bytes, offset, length, ticket, timeout);
    if (code === "sent" || code === "queued") {
      const { counters } = this.endpoint;
      counters.accepted++;
      if (code === "sent") {
        counters.messagesToGuest++;
        counters.bytesToGuest += length;
      } else {
        this.endpoint.attachment.budget.grown(this, MESSAGE_COST + length);
      }
    }
    return code;
  }

  get heldBytes(): number {
    return this.#queue.pendingBytes;
  }

  shed(): void {
    // The client may have left what it has sent behind.
    if (this.#closed) this.drop();
    else this.end("overloaded");
  }

  hold(): void {
    if (this.#holding || this.#closed) return;
    this.#holding = true;
    this.endpoint.attachment.device.hold();
  }

  release(): void {
    if (!this.#holding) return;
    this.#holding = false;
    this.endpoint.attachment.device.release();
  }

  dropped(count: number, cause: DropCause): void {
    this.endpoint.counters.dropped += count;
    this.endpoint.attachment.counts.dropped.add(cause, count);
  }

  close(): void {
    if (this.#closed) return;
    this.release();
    this.#closed = true;
    this.#local.remove(this.#events);
    this.endpoint.closed(this);
    // What the client has sent is still on its way, from the channel's address.
    this.#queue.finish(() => {
      this.endpoint.finished(this);
      this.endpoint.attachment.budget.forget(this);
      this.#local.release(this.endpoint);
    });
  }

  abort(): void {
    if (this.#closed) return;
    this.close();
    this.#queue.drop("endpoint-gone");
  }

  snapshot(): ChannelSnapshot<Ticket> {
    return {
      local: this.local,
      exclusive: this.exclusive,
      replaceable: this.replaceable,
      listens: this.#listens,
      waiting: this.#queue.snapshot(),
      unread: this.endpoint.attachment.takeUnread(this.#queue),
    };
  }

  /** What waited, and what the guest may not have read, where the snapshot was taken. */
  restore({ waiting, unread }: ChannelSnapshot<Ticket>): this {
    this.#queue.restore(waiting);
    if (this.heldBytes > 0) this.endpoint.attachment.budget.grown(this, this.heldBytes);
    this.endpoint.attachment.device.restoreUnread(this.#queue, unread);
    return this;
  }

  changed(): void {
    this.#events.onChanged();
  }

  /** The channel is of no use any more. */
  end(reason: EndReason): void {
    // Nobody is there any more to take it, or its address is another client's. At a reset the device has dropped it.
    if (reason !== "reset") this.drop();
    this.close();
    this.#events.onEnd(reason);
  }

  /** Gives up what waits. */
  drop(): void {
    this.#queue.drop("endpoint-gone");
  }

  /** Whether the channel has this local address. */
  has(local: LocalAddress): boolean {
    return this.#local === local;
  }
}
