import { displayName } from "../directory.ts";
import type { EndpointPort } from "../endpoint-port.ts";
import { interfaceTexts } from "./interface-name.ts";
import { interfaceBlock } from "./pcapng.ts";

/** Most endpoints that a file has interfaces of: a guest that announces ever new ones must not fill the memory. */
const MOST = 4096;

/** An interface of the file: an endpoint, or what of a guest is no endpoint's. */
export interface Interface {
  /** Its number, as soon as it is in the file. */
  id: number | undefined;
  /** The block that it begins with, until it is written. */
  head: Buffer | undefined;
  readonly counts: { received: number; dropped: number };
  /** Of `dropped`, what the file says already. */
  told: number;
}

/** The interfaces of one capture. */
export class Interfaces {
  readonly #byKey = new Map<string, Interface>();
  readonly #byPort = new WeakMap<EndpointPort, Interface>();
  /** Those of guests are as many as the configuration has. */
  #endpoints = 0;
  #written = 0;

  get all(): Iterable<Interface> {
    return this.#byKey.values();
  }

  /** The one of an endpoint; undefined where there are too many. */
  ofEndpoint(endpoint: EndpointPort): Interface | undefined {
    const known = this.#byPort.get(endpoint);
    if (known !== undefined) return known;
    const { guest, name, origin, address } = endpoint;
    const texts = interfaceTexts({ guest, endpoint: displayName(name), origin }, address);
    // An endpoint that the guest announces again after a reset is the same to a reader.
    const key = JSON.stringify([guest, name, texts.description]);
    let own = this.#byKey.get(key);
    if (own === undefined) {
      if (this.#endpoints === MOST) return undefined;
      this.#endpoints++;
      own = this.#add(key, texts);
    }
    this.#byPort.set(endpoint, own);
    return own;
  }

  /** The one of what of a guest is no endpoint's. */
  ofGuest(guest: string): Interface {
    const key = JSON.stringify([guest]);
    const texts = () => interfaceTexts({ guest, endpoint: undefined, origin: undefined }, undefined);
    return this.#byKey.get(key) ?? this.#add(key, texts());
  }

  /** Its number in the file, from now on: its head is written before anything else of it. */
  number(own: Interface): number {
    own.head = undefined;
    own.id ??= this.#written++;
    return own.id;
  }

  #add(key: string, { name, description }: { name: string; description: string }): Interface {
    const head = interfaceBlock(name, description);
    const own = { id: undefined, head, counts: { received: 0, dropped: 0 }, told: 0 };
    this.#byKey.set(key, own);
    return own;
  }
}
