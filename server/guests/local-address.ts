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
  /** Of which endpoints the users are: channels, or the endpoint of the host that this is the address of. */
  readonly #endpoints = new Map<AttachedEndpoint, number>();
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

  /** One more of this endpoint has, or may have, messages on their way from this address. */
  retain(endpoint: AttachedEndpoint): void {
    this.#users++;
    this.#endpoints.set(endpoint, (this.#endpoints.get(endpoint) ?? 0) + 1);
  }

  /**
   * Whose a message is.
   * @param other the guest's address in it
   * @returns undefined where several endpoints have this address, and it is not clear which of them speaks
   */
  endpointOf(other: number): AttachedEndpoint | undefined {
    if (this.#endpoints.size === 0) return this.owner;
    const all = [...this.#endpoints.keys()];
    const those = all.length === 1 ? all : all.filter(({ peer }) => peer === other);
    return those.length === 1 ? those[0] : undefined;
  }

  /**
   * One less; the last one frees the address.
   * @param endpoint undefined where nobody had it
   */
  release(endpoint?: AttachedEndpoint): void {
    if (endpoint !== undefined) {
      const left = (this.#endpoints.get(endpoint) ?? 0) - 1;
      if (left > 0) this.#endpoints.set(endpoint, left);
      else this.#endpoints.delete(endpoint);
    }
    if (--this.#users > 0) return;
    this.endpoint.close();
    this.#onClose();
  }
}
