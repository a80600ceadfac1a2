import { ADDRESS_ANY, NAME_SERVICE_ADDRESS } from "../rpmsg/index.ts";
import type { NamedService, ServiceFactory, ServiceOptions } from "./service.ts";

const LONGEST_NAME = 31;

/**
 * Checks a service and fills in what it does not say.
 * @throws RangeError the name or the address cannot be had
 */
export function nameService(name: string, entry: ServiceFactory | ServiceOptions): NamedService {
  const raw = Buffer.from(name).toString("latin1");
  if (raw.length < 1 || raw.length > LONGEST_NAME || raw.includes("\0")) {
    throw new RangeError(`service "${name}": a name has 1 to ${LONGEST_NAME} bytes, none of them zero`);
  }
  const { service, ns = "both", address } = typeof entry === "function" ? { service: entry } : entry;
  if (typeof service !== "function") throw new TypeError(`service "${name}": want a function that makes it`);
  if (address !== undefined) {
    const valid = Number.isInteger(address) && address >= 0 && address < ADDRESS_ANY;
    if (!valid || address === NAME_SERVICE_ADDRESS) {
      throw new RangeError(`service "${name}": ${address} cannot be its address`);
    }
    if (ns === "down") throw new RangeError(`service "${name}": with ns down the guest chooses the address`);
  }
  return { name: raw, factory: service, ns, address };
}

/**
 * Services by their name, one character a byte.
 * @throws RangeError as `nameService`; two have the same address
 */
export function namedServices(
  entries: Readonly<Record<string, ServiceFactory | ServiceOptions>>,
): ReadonlyMap<string, NamedService> {
  const services = new Map<string, NamedService>();
  const addresses = new Set<number>();
  for (const [name, entry] of Object.entries(entries)) {
    const named = nameService(name, entry);
    if (named.address !== undefined) {
      if (addresses.has(named.address))
        throw new RangeError(`two services have the address ${named.address}`);
      addresses.add(named.address);
    }
    services.set(named.name, named);
  }
  return services;
}
