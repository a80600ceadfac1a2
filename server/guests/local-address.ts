import type { Endpoint } from "../../rpmsg/index.ts";
import type { ChannelEvents } from "../endpoint-port.ts";
import type { AttachedEndpoint } from "./attached-endpoint.ts";
import type { Attachment } from "./attachment.ts";

/** A local address, and the channels that get what the guest sends to it. */
export class LocalAddress {
  readonly endpoint: Endpoint;
  /** Several channels may have it. */
  readonly shared: boolean;
  /** Whose counters count what arrives here. */
  owner: AttachedEndpoint | undefined;
  /** Never changed in place: a channel may go while a message is passed on. */
  #channels: readonly ChannelEvents[] = [];
  #users = 0;
  readonly #onClose: () => void;

  /**
   * @param onClose called when the address is free again
   * @throws RpmsgError address-in-use, address-invalid, address-space-full
   */
  constructor(attachment: Attachment, address: number | undefined, shared: boolean, onClose: () => void) {
    this.shared = shared;
    this.#onClose = onClose;
    this.endpoint = attachment.device.createEndpoint((src, bytes, offset, length) => {
      const channels = this.#channels;
      const { counters } = this.owner ?? {};
      if (counters !== undefined) {
        counters.messagesFromGuest++;
        counters.bytesFromGuest += length;
        counters.messagesToClients += channels.length;
        if (channels.length === 0) {
          counters.noClient++;
          attachment.counts.dropped.add("no-client");
        }
      }
      const serial = attachment.nextSerial();
      for (let i = 0; i < channels.length; i++) channels[i]?.onMessage(src, bytes, offset, length, serial);
    }, address);
  }

  get address(): number {
    return this.endpoint.address;
  }

  add(channel: ChannelEvents): void {
    this.#channels = [...this.#channels, channel];
  }

  remove(channel: ChannelEvents): void {
    this.#channels = this.#channels.filter((each) => each !== channel);
  }

  /** How many have, or may have, messages on their way from this address. */
  get users(): number {
    return this.#users;
  }

  /** One more has, or may have, messages on their way from this address. */
  retain(): void {
    this.#users++;
  }

  /** One less; the last one frees the address. */
  release(): void {
    if (--this.#users > 0) return;
    this.endpoint.close();
    this.#onClose();
  }
}
