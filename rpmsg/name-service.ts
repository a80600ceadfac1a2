import { RpmsgError } from "./errors.ts";
import { ADDRESS_ANY, NAME_SERVICE_ADDRESS } from "./wire/header.ts";
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

/** What both sides know of each other's services, for a hand-over: plain data. */
export interface NameServiceSnapshot {
  readonly open: boolean;
  /** Services of the host that `told` says the guest knows. */
  readonly host: readonly HostAnnouncement[];
  readonly guest: readonly GuestAnnouncement[];
  /** What the guest was told; `current` is false for one that was withdrawn since, and perhaps announced anew. */
  readonly told: readonly (GuestAnnouncement & { readonly current: boolean })[];
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
  /** What the guest knows of the host. */
  readonly #told = new Map<string, HostAnnouncement>();
  /** Keys of which it knows something else than what holds; each costs one message or two, whatever came between. */
  readonly #untold = new Set<string>();
  /** One message is on its way: the next one is made when it is with the guest, of what holds then. */
  #telling = false;

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
    this.#changed(key);
    return announcement;
  }

  withdraw(announcement: HostAnnouncement): void {
    const key = keyOf(announcement.name, announcement.address);
    if (this.#host.get(key) !== announcement) return;
    this.#host.delete(key);
    this.#changed(key);
  }

  /** The guest listens on address 53 from now on. */
  open(): void {
    if (this.#open) return;
    this.#open = true;
    for (const key of this.#host.keys()) this.#untold.add(key);
    this.#tell();
  }

  /** The guest listens no more: what is withdrawn from now on it need not be told. */
  close(): void {
    this.#open = false;
    this.#telling = false;
    this.#told.clear();
    this.#untold.clear();
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

  snapshot(): NameServiceSnapshot {
    return {
      open: this.#open,
      host: [...this.#host.values()].map(({ name, address, told }) => ({ name, address, told })),
      guest: [...this.#guest.values()],
      told: [...this.#told].map(([key, { name, address }]) => ({
        name,
        address,
        current: this.#told.get(key) === this.#host.get(key),
      })),
    };
  }

  /**
   * Goes on as the name service that the snapshot is of. Services of the host are announced before. What was on its
   * way to the guest and not published is made anew.
   */
  restore({ open, host, guest, told }: NameServiceSnapshot): void {
    this.#open = open;
    for (const { name, address, told: known } of host) {
      const announcement = this.#host.get(keyOf(name, address));
      if (announcement !== undefined) announcement.told = known;
    }
    for (const { name, address } of guest) this.#guest.set(keyOf(name, address), { name, address });
    for (const { name, address, current } of told) {
      const key = keyOf(name, address);
      const same = current ? this.#host.get(key) : undefined;
      this.#told.set(key, same ?? { name, address, told: true });
    }
    if (!open) return;
    for (const key of [...this.#host.keys(), ...this.#told.keys()]) this.#changed(key);
  }

  /** Takes a message that the guest sent to address 53. */
  receive(bytes: Uint8Array, offset: number, length: number): NameServiceResult {
    const message = decodeNameService(bytes, offset, length);
    if (message === undefined || message.address === ADDRESS_ANY) return "malformed";
    // Nobody is to talk to the guest's name service but we.
    if (message.address === NAME_SERVICE_ADDRESS) return "malformed";
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

  #changed(key: string): void {
    if (!this.#open) return;
    if (this.#told.get(key) === this.#host.get(key)) this.#untold.delete(key);
    else this.#untold.add(key);
    this.#tell();
  }

  /** Tells the guest what it does not know. At most one message waits for a buffer: the rest may change until then. */
  #tell(): void {
    while (this.#open && !this.#telling) {
      const [key] = this.#untold;
      if (key === undefined) return;
      const known = this.#told.get(key);
      // A service that was withdrawn and announced again is another one: the guest has to forget the first.
      const announcement = known ?? this.#host.get(key);
      if (announcement === undefined) {
        this.#untold.delete(key);
        continue;
      }
      this.#telling = true;
      const created = known === undefined;
      let direct = true;
      this.#send(encodeNameService({ ...announcement, created }), () => {
        this.#telling = false;
        this.#isTold(key, announcement, created);
        if (!direct) this.#tell();
      });
      direct = false;
    }
  }

  #isTold(key: string, announcement: HostAnnouncement, created: boolean): void {
    if (created) this.#told.set(key, announcement);
    else this.#told.delete(key);
    if (this.#told.get(key) === this.#host.get(key)) this.#untold.delete(key);
    else this.#untold.add(key);
    announcement.told = created;
    if (created) this.#events.told(announcement);
  }
}

function keyOf(name: string, address: number): string {
  return `${address}/${name}`;
}
