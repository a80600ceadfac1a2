import type { Endpoint, Origin } from "../schemas/index.ts";
import { endpointPath } from "./endpoint-path.ts";
import type { EndpointPort } from "./endpoint-port.ts";

/** An endpoint that is listed. */
interface Entry {
  readonly id: string;
  readonly path: string;
  readonly port: EndpointPort;
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
  /** By guest, oldest first. */
  readonly #guests = new Map<string, Set<Entry>>();
  #nextId = 1;

  add(port: EndpointPort): void {
    let entries = this.#guests.get(port.guest);
    if (entries === undefined) {
      entries = new Set();
      this.#guests.set(port.guest, entries);
    }
    const id = `e${this.#nextId++}`;
    let holders = 0;
    let twins = 0;
    for (const { port: other } of entries) {
      if (other.name !== port.name) continue;
      holders++;
      if (other.address === port.address) twins++;
    }
    // The two sides number their addresses apart, so that name and address may be taken: then only the id tells.
    const { name, address } = port;
    const reference = twins > 0 ? { id } : holders > 0 || UNNAMABLE.has(name) ? { name, address } : { name };
    entries.add({ id, path: endpointPath(port.guest, reference), port });
  }

  remove(port: EndpointPort): void {
    const entries = this.#guests.get(port.guest);
    for (const entry of entries ?? []) if (entry.port === port) entries?.delete(entry);
  }

  /** The endpoint that a request means, the oldest where several do. */
  find(guest: string, reference: EndpointReference): EndpointPort | undefined {
    const { id, name, address, origin } = reference;
    for (const entry of this.#guests.get(guest) ?? []) {
      const { port } = entry;
      if (id !== undefined ? entry.id !== id : port.name !== name) continue;
      if (address !== undefined && port.address !== address) continue;
      if (origin === undefined || port.origin === origin) return port;
    }
    return undefined;
  }

  /** Descriptions of the endpoints of one guest, or of all. */
  list(guest?: string): Endpoint[] {
    const sets = guest === undefined ? [...this.#guests.values()] : [this.#guests.get(guest) ?? []];
    return sets.flatMap((entries) => [...entries].map(describe));
  }
}

function describe({ id, path, port }: Entry): Endpoint {
  return {
    id,
    guest: port.guest,
    name: Buffer.from(port.name, "latin1").toString("utf8"),
    address: port.address,
    origin: port.origin,
    state: port.state,
    generation: port.generation,
    mtu: port.mtu,
    clients: port.clients,
    path,
    counters: { ...port.counters },
  };
}
