import type { SendQueue } from "../../rpmsg/index.ts";
import type { ChannelEvents, ChannelPort, OpenOptions, SendCode, UndeliveredCode } from "../endpoint-port.ts";
import type { AttachedEndpoint } from "./attached-endpoint.ts";
import type { LocalAddress } from "./local-address.ts";

/** One client's channel to an endpoint of an attached guest. */
export class AttachedChannel implements ChannelPort {
  readonly #endpoint: AttachedEndpoint;
  readonly #local: LocalAddress;
  readonly #events: ChannelEvents;
  readonly #queue: SendQueue;
  #holding = false;
  #closed = false;

  constructor(endpoint: AttachedEndpoint, local: LocalAddress, options: OpenOptions, events: ChannelEvents) {
    this.#endpoint = endpoint;
    this.#local = local;
    this.#events = events;
    this.#queue = endpoint.attachment.device.createSendQueue(
      local.endpoint,
      endpoint.target,
      {
        onWritable: () => events.onWritable(),
        onUndelivered: (code) => this.#undelivered(code),
      },
      { limit: options.queueBytes, low: options.lowBytes, timeout: options.timeout },
    );
    local.retain();
    local.add(events);
  }

  get local(): number {
    return this.#local.address;
  }

  get mtu(): number {
    return this.#endpoint.attachment.device.mtu;
  }

  get pendingBytes(): number {
    return this.#queue.pendingBytes;
  }

  send(dst: number | undefined, bytes: Uint8Array, offset: number, length: number): SendCode {
    const code = this.#queue.send(dst, bytes, offset, length);
    if (code === "sent" || code === "queued") {
      const { counters } = this.#endpoint;
      counters.messagesToGuest++;
      counters.bytesToGuest += length;
    }
    return code;
  }

  hold(): void {
    if (this.#holding || this.#closed) return;
    this.#holding = true;
    this.#endpoint.attachment.device.hold();
  }

  release(): void {
    if (!this.#holding) return;
    this.#holding = false;
    this.#endpoint.attachment.device.release();
  }

  close(): void {
    if (this.#closed) return;
    this.release();
    this.#closed = true;
    this.#local.remove(this.#events);
    this.#endpoint.closed(this);
    // What the client has sent is still on its way, from the channel's address.
    this.#queue.finish(() => this.#local.release());
  }

  abort(): void {
    if (this.#closed) return;
    this.#endpoint.counters.undelivered += this.#queue.pending;
    this.#queue.clear();
    this.close();
  }

  /** The channel is of no use any more. */
  end(state: "reset" | "withdrawn"): void {
    this.close();
    this.#events.onState(state);
  }

  #undelivered(code: UndeliveredCode): void {
    this.#endpoint.counters.undelivered++;
    if (!this.#closed) this.#events.onUndelivered(code);
  }
}
