import type { Change } from "../client/index.ts";
import type { Endpoint, Guest } from "../schemas/index.ts";

/**
 * Guests and endpoints. Events say which there are and in which state; how much went through them only looks say. Each
 * value that is shown is the newest of both. Until the events are complete, and after they were lost, the looks say
 * everything.
 */
export class Inventory {
  #complete = false;
  /** What events said, by name and by id. */
  #guests: ReadonlyMap<string, Guest> = new Map();
  #endpoints: ReadonlyMap<string, Endpoint> = new Map();
  /** What the last look saw, without that of which an event came since. */
  #seenGuests = new Map<string, Guest>();
  #seenEndpoints = new Map<string, Endpoint>();

  /** Whether events have said everything, and go on coming. */
  get complete(): boolean {
    return this.#complete;
  }

  /** @param known all that events have said so far, this change too */
  heard(
    change: Change,
    known: { guests: ReadonlyMap<string, Guest>; endpoints: ReadonlyMap<string, Endpoint> },
  ): void {
    this.#guests = known.guests;
    this.#endpoints = known.endpoints;
    if (change.type === "ready") this.#complete = true;
    else if (change.type === "lost") this.#complete = false;
    // The event was made after the look.
    else if (change.type === "guest") this.#seenGuests.delete(change.guest.name);
    else if (change.type === "endpoint") this.#seenEndpoints.delete(change.endpoint.id);
  }

  looked(guests: readonly Guest[], endpoints: readonly Endpoint[]): void {
    this.#seenGuests = new Map(guests.map((guest) => [guest.name, guest]));
    this.#seenEndpoints = new Map(endpoints.map((endpoint) => [endpoint.id, endpoint]));
  }

  guests(): Guest[] {
    if (!this.#complete) return [...this.#seenGuests.values()];
    return Array.from(this.#guests.values(), (guest) => {
      const { counters, waiting } = this.#seenGuests.get(guest.name) ?? guest;
      return { ...guest, counters, waiting };
    });
  }

  endpoints(): Endpoint[] {
    if (!this.#complete) return [...this.#seenEndpoints.values()];
    return Array.from(this.#endpoints.values(), (endpoint) => {
      const { counters, clients } = this.#seenEndpoints.get(endpoint.id) ?? endpoint;
      return { ...endpoint, counters, clients };
    });
  }
}
