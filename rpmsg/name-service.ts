import { RpmsgError } from "./errors.ts";
import { ADDRESS_ANY } from "./wire/header.ts";
import { decodeNameService, encodeNameService, isServiceName } from "./wire/name-service.ts";

/** A service of the host that guests are told of ("down"). */
export interface HostAnnouncement {
  readonly name: string;
  readonly address: number;
  /** The create was published to the guest in this generation. */
  told: boolean;
}

/** A service that the guest announced ("up"). */
export interface GuestAnnouncement {
  /** One character a byte. */
  readonly name: string;
  readonly address: number;
}

export interface NameServiceEvents {
  /** The guest announced a service. */
  announced(announcement: GuestAnnouncement): void;
  /** The guest withdrew a service, or a reset did for it. */
  withdrawn(announcement: GuestAnnouncement): void;
  /** `told` of a host announcement changed. */
  told(announcement: HostAnnouncement): void;
}

/** What became of a name-service message, for the counters. */
export type NameServiceResult = "accepted" | "duplicate" | "unknown" | "malformed" | "limit";

/**
 * Name service in both directions, as ordinary messages to address 53. Records are keyed by name and address, as
 * Linux does (rpmsg_core.c: rpmsg_find_device): one name with two addresses is two services.
 *
 * The direction down keeps what shall be announced and sends it again in every generation; the direction up keeps
 * what the guest announced until it withdraws it or is reset.
 */
export class NameService {
  readonly #host = new Map<string, HostAnnouncement>();
  readonly #guest = new Map<string, GuestAnnouncement>();
  readonly #events: NameServiceEvents;
  readonly #send: (message: Uint8Array, published: () => void) => void;
  readonly #limit: number;
  #open = false;

  /**
   * @param send queues a message to the guest; `published` is called when it is in the response queue
   * @param limit most announcements of the guest that are kept
   */
  constructor(
    events: NameServiceEvents,
    send: (message: Uint8Array, published: () => void) => void,
    limit: number,
  ) {
    this.#events = events;
    this.#send = send;
    this.#limit = limit;
  }

  get guestAnnouncements(): Iterable<GuestAnnouncement> {
    return this.#guest.values();
  }

  /**
   * Announces a host service to the guest, now and after every reset.
   * @throws RpmsgError name-invalid, already-announced
   */
  announce(name: string, address: number): HostAnnouncement {
    if (!isServiceName(name)) {
      throw new RpmsgError("name-invalid", "a service name has 1 to 31 bytes, none of them zero");
    }
    const key = keyOf(name, address);
    if (this.#host.has(key))
      throw new RpmsgError("already-announced", `${name} is announced at address ${address}`);
    const announcement = { name, address, told: false };
    this.#host.set(key, announcement);
    if (this.#open) this.#tell(announcement);
    return announcement;
  }

  withdraw(announcement: HostAnnouncement): void {
    const key = keyOf(announcement.name, announcement.address);
    if (this.#host.get(key) !== announcement) return;
    this.#host.delete(key);
    if (this.#open) this.#send(encodeNameService({ ...announcement, created: false }), () => {});
  }

  /** The guest listens on address 53 from now on. */
  open(): void {
    if (this.#open) return;
    this.#open = true;
    for (const announcement of this.#host.values()) this.#tell(announcement);
  }

  /** The guest listens no more: what is withdrawn from now on it need not be told. */
  close(): void {
    this.#open = false;
  }

  /** The guest forgot everything: a DESTROY never arrives on a reset, so it is made up for. */
  reset(): void {
    this.close();
    for (const announcement of this.#host.values()) {
      if (!announcement.told) continue;
      announcement.told = false;
      this.#events.told(announcement);
    }
    for (const [key, announcement] of [...this.#guest]) {
      this.#guest.delete(key);
      this.#events.withdrawn(announcement);
    }
  }

  /** Takes a message that the guest sent to address 53. */
  receive(bytes: Uint8Array, offset: number, length: number): NameServiceResult {
    const message = decodeNameService(bytes, offset, length);
    if (message === undefined || message.address === ADDRESS_ANY) return "malformed";
    const key = keyOf(message.name, message.address);
    const known = this.#guest.get(key);
    if (!message.created) {
      if (known === undefined) return "unknown";
      this.#guest.delete(key);
      this.#events.withdrawn(known);
      return "accepted";
    }
    if (known !== undefined) return "duplicate";
    if (this.#guest.size >= this.#limit) return "limit";
    const announcement = { name: message.name, address: message.address };
    this.#guest.set(key, announcement);
    this.#events.announced(announcement);
    return "accepted";
  }

  #tell(announcement: HostAnnouncement): void {
    this.#send(encodeNameService({ ...announcement, created: true }), () => {
      announcement.told = true;
      this.#events.told(announcement);
    });
  }
}

function keyOf(name: string, address: number): string {
  return `${address}/${name}`;
}
