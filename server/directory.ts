import type { Endpoint, Origin } from "../schemas/index.ts";
import { endpointPath } from "./endpoint-path.ts";
import type { EndpointPort } from "./endpoint-port.ts";

/** An endpoint that is listed. */
interface Entry {
  readonly id: string;
  /** The number in the id: endpoints are listed in its order. */
  readonly number: number;
  readonly path: string;
  /** The address in the path. That of an endpoint that the guest is to announce may change. */
  readonly address: number | undefined;
  readonly port: EndpointPort;
}

/** How an endpoint is listed, to be handed over: plain data. */
export interface EntrySnapshot {
  readonly number: number;
  readonly path: string;
  readonly address: number | undefined;
}

/** Names that cannot be a segment of a path: nothing, "here" and "up". With an address they can. */
const UNNAMABLE = new Set(["", ".", ".."]);

/** What a request's path and query say of the endpoint that they mean. */
export interface EndpointReference {
  id?: string;
  /** One character a byte. */
  name?: string;
  address?: number;
  origin?: Origin;
}

/**
 * The live list of endpoints. An endpoint keeps its id and its path for as long as it lives; a name alone means its
 * oldest holder.
 */
export class Directory {
  /** By guest, then by name, oldest first. */
  readonly #guests = new Map<string, Map<string, Entry[]>>();
  readonly #entries = new Map<string, Entry>();
  /** In the order of their numbers, so that a page begins where it goes on, and not with a look at all before it. */
  readonly #ordered: Entry[] = [];
  readonly #byPort = new Map<EndpointPort, Entry>();
  #nextNumber = 1;

  add(port: EndpointPort): void {
    const number = this.#nextNumber++;
    const id = `e${number}`;
    const { name, address, guest } = port;
    const holders = this.#guests.get(guest)?.get(name) ?? [];
    // The two sides number their addresses apart, so that name and address may be taken: then only the id tells.
    const plain = holders.length === 0 && !UNNAMABLE.has(name);
    const ambiguous =
      address === undefined ||
      holders.some((other) => other.port.address === address || other.address === address);
    const reference: EndpointReference = plain ? { name } : ambiguous ? { id } : { name, address };
    this.#list({ id, number, path: endpointPath(guest, reference), address: reference.address, port });
  }

  /** The number of the next endpoint. */
  get next(): number {
    return this.#nextNumber;
  }

  /** How an endpoint is listed. */
  snapshot(port: EndpointPort): EntrySnapshot {
    const { number, path, address } = this.#entryOf(port);
    return { number, path, address };
  }

  /** Lists endpoints of another process as they were. */
  restore(next: number, entries: readonly (readonly [EndpointPort, EntrySnapshot])[]): void {
    this.#nextNumber = next;
    for (const [port, entry] of entries.toSorted(([, a], [, b]) => a.number - b.number)) {
      this.#list({ ...entry, id: `e${entry.number}`, port });
    }
  }

  remove(port: EndpointPort): void {
    const entry = this.#byPort.get(port);
    if (entry === undefined) return;
    this.#byPort.delete(port);
    this.#entries.delete(entry.id);
    this.#ordered.splice(this.#placeAfter(entry.number - 1), 1);
    const names = this.#guests.get(port.guest);
    const left = names?.get(port.name)?.filter((each) => each !== entry) ?? [];
    if (left.length > 0) names?.set(port.name, left);
    else names?.delete(port.name);
  }

  /** The endpoint that a request means, the oldest where several do. */
  find(guest: string, { id, name, address, origin }: EndpointReference): EndpointPort | undefined {
    const byId = id === undefined ? undefined : this.#entries.get(id);
    const holders = id === undefined ? this.#guests.get(guest)?.get(name ?? "") : byId && [byId];
    const fits = ({ port }: Entry) =>
      port.guest === guest && (origin === undefined || port.origin === origin);
    // Its own path goes before an address that an older one has got since.
    const found =
      address === undefined
        ? holders?.find(fits)
        : (holders?.find((entry) => entry.address === address && fits(entry)) ??
          holders?.find((entry) => entry.port.address === address && fits(entry)));
    return found?.port;
  }

  byId(id: string): EndpointPort | undefined {
    return this.#entries.get(id)?.port;
  }

  has(port: EndpointPort): boolean {
    return this.#byPort.has(port);
  }

  /** @throws RangeError an endpoint that is not listed */
  idOf(port: EndpointPort): string {
    return this.#entryOf(port).id;
  }

  /** @throws RangeError an endpoint that is not listed */
  describe(port: EndpointPort): Endpoint {
    return describe(this.#entryOf(port));
  }

  /**
   * Descriptions of endpoints, in the order in which they came.
   * @param limit most that are given
   * @param after id behind which the list goes on; its endpoint may be gone
   */
  list(
    where: (port: EndpointPort) => boolean = () => true,
    limit = Number.POSITIVE_INFINITY,
    after?: string,
  ): { endpoints: Endpoint[]; next: string | null } {
    const endpoints: Endpoint[] = [];
    const start = after === undefined ? 0 : Number(after.slice(1));
    for (let place = this.#placeAfter(start); place < this.#ordered.length; place++) {
      const entry = this.#ordered[place] as Entry;
      if (!where(entry.port)) continue;
      if (endpoints.length === limit) return { endpoints, next: endpoints.at(-1)?.id ?? null };
      endpoints.push(describe(entry));
    }
    return { endpoints, next: null };
  }

  #list(entry: Entry): void {
    const { guest, name } = entry.port;
    const names = this.#guests.get(guest) ?? new Map<string, Entry[]>();
    this.#guests.set(guest, names);
    names.set(name, [...(names.get(name) ?? []), entry]);
    this.#entries.set(entry.id, entry);
    this.#ordered.push(entry);
    this.#byPort.set(entry.port, entry);
  }

  /** Where in the order the first endpoint with a greater number is; there need not be one with this number. */
  #placeAfter(number: number): number {
    let low = 0;
    let high = this.#ordered.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#ordered[middle] as Entry).number <= number) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #entryOf(port: EndpointPort): Entry {
    const entry = this.#byPort.get(port);
    if (entry === undefined) throw new RangeError("the endpoint is not listed");
    return entry;
  }
}

/** A name for people: bytes that are not UTF-8 show as U+FFFD. */
export function displayName(name: string): string {
  return Buffer.from(name, "latin1").toString("utf8");
}

function describe({ id, path, port }: Entry): Endpoint {
  return {
    id,
    guest: port.guest,
    name: displayName(port.name),
    address: port.address ?? null,
    origin: port.origin,
    ns: port.ns,
    peer: port.peer ?? null,
    state: port.state,
    generation: port.generation,
    mtu: port.mtu,
    clients: port.clients,
    path,
    counters: { ...port.counters },
  };
}
