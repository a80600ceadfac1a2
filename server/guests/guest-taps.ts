import type { RpmsgDevice, TappedMessage } from "../../rpmsg/index.ts";
import { decodeNameService, HEADER_SIZE, NAME_SERVICE_ADDRESS } from "../../rpmsg/index.ts";
import type { GuestTap } from "../endpoint-port.ts";
import type { LocalAddresses } from "./local-addresses.ts";

/** Those who capture what goes through a guest's rings. Without any, a message costs the look whether there is one. */
export class GuestTaps {
  readonly #device: RpmsgDevice;
  readonly #locals: LocalAddresses;
  readonly #taps = new Set<GuestTap>();

  constructor(device: RpmsgDevice, locals: LocalAddresses) {
    this.#device = device;
    this.#locals = locals;
  }

  /**
   * Shows every message from now on; so many as the guest's counters say.
   * @returns ends it
   */
  add(tap: GuestTap): () => void {
    this.#taps.add(tap);
    this.#device.tap = (message) => this.#show(message);
    return () => {
      this.#taps.delete(tap);
      if (this.#taps.size === 0) this.#device.tap = undefined;
    };
  }

  #show(message: TappedMessage): void {
    const { toGuest, outcome, src, dst, packet, length } = message;
    const [local, other] = toGuest ? [src, dst] : [dst, src];
    const endpoint = outcome === "malformed" ? undefined : this.#locals.at(local)?.endpointOf(other);
    const announcement =
      outcome === "passed" && dst === NAME_SERVICE_ADDRESS
        ? decodeNameService(packet, HEADER_SIZE, length - HEADER_SIZE)
        : undefined;
    const { generation } = this.#device;
    const facts = { generation, endpoint, announced: announcement?.name };
    for (const tap of this.#taps) tap(message, facts);
  }
}
