import type { Endpoint, EndpointDeclaration, Guest, Origin } from "../../schemas/index.ts";
import type { Bridge } from "../bridge.ts";
import { displayName } from "../directory.ts";
import type { EndpointPort } from "../endpoint-port.ts";
import { HttpProblem } from "../problem.ts";
import type { Permit } from "./permit.ts";

/** The bridge as one client sees it: what it may not see is not there. */
export class View {
  readonly permit: Permit;
  readonly #bridge: Bridge;

  constructor(bridge: Bridge, permit: Permit) {
    this.#bridge = bridge;
    this.permit = permit;
  }

  guests(): Guest[] {
    return this.#bridge.guests().filter(({ name }) => this.permit.sees(name));
  }

  /** @throws HttpProblem guest-unknown */
  guest(name: string): Guest {
    if (!this.permit.sees(name)) throw guestUnknown(name);
    return this.#bridge.guest(name);
  }

  /**
   * The endpoint of a guest with this id.
   * @throws HttpProblem guest-unknown, endpoint-unknown
   */
  endpoint(guest: string, id: string): EndpointPort {
    this.guest(guest);
    const endpoint = this.#bridge.directory.find(guest, { id });
    if (endpoint === undefined || !this.permit.may("list", endpoint)) {
      throw new HttpProblem("endpoint-unknown", `guest "${guest}" has no endpoint with the id "${id}"`);
    }
    return endpoint;
  }

  /** Descriptions of endpoints: what is given must be equal. `after` is an id. */
  list(
    where: { guest?: string | undefined; name?: string | undefined; origin?: Origin | undefined },
    limit?: number,
    after?: string,
  ): { endpoints: Endpoint[]; next: string | null } {
    const { guest, name, origin } = where;
    return this.#bridge.directory.list(
      (port) =>
        (guest === undefined || port.guest === guest) &&
        (origin === undefined || port.origin === origin) &&
        (name === undefined || displayName(port.name) === name) &&
        this.permit.may("list", port),
      limit,
      after,
    );
  }

  /**
   * Adds an endpoint of the host.
   * @throws HttpProblem
   */
  declare(guest: string, declaration: EndpointDeclaration): EndpointPort {
    this.guest(guest);
    const { name, ns, address, peer, local } = declaration;
    const endpoint = { guest, name: Buffer.from(name).toString("latin1") };
    this.permit.demand("announce", endpoint, "to declare an endpoint");
    // With an address of one's choice one gets, or sends, what is another endpoint's.
    const chosen = peer ?? local ?? (ns === "up" ? undefined : address);
    if (chosen !== undefined) this.permit.demand("admin", endpoint, "to choose an address");
    return this.#bridge.declare(guest, declaration);
  }

  /** @throws HttpProblem endpoint-of-guest, forbidden, read-only */
  withdraw(endpoint: EndpointPort): void {
    this.permit.demand("announce", endpoint, "to withdraw an endpoint");
    this.#bridge.withdraw(endpoint);
  }
}

/** What is said of a guest that there is none of, and of one that the client may not see. */
export function guestUnknown(name: string): HttpProblem {
  return new HttpProblem("guest-unknown", `there is no guest "${name}"`);
}
