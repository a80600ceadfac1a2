import { describe, expect, test } from "vitest";
import type { Endpoint, Guest } from "../../schemas/index.ts";
import { Inventory } from "../../web/inventory.ts";
import { testBridge } from "../server/support.ts";

const ready = { type: "ready", instance: "one" } as const;

describe("guests and endpoints, of events and of looks", () => {
  test("are those of the looks until the events are complete, and of the events from then on", async () => {
    const { guest, one, other, known } = await resources();
    const inventory = new Inventory();
    inventory.heard({ type: "guest", guest }, known);
    inventory.heard({ type: "endpoint", endpoint: one }, known);
    expect([inventory.complete, inventory.guests(), inventory.endpoints()]).toEqual([false, [], []]);
    inventory.looked([guest], [one, other]);
    expect([inventory.guests(), inventory.endpoints()]).toEqual([[guest], [one, other]]);
    inventory.heard(ready, known);
    known.endpoints.delete(other.id);
    expect([inventory.complete, inventory.guests(), inventory.endpoints()]).toEqual([true, [guest], [one]]);
  });

  test("an event brings what it is of, and sets nothing else back to what was before the last look", async () => {
    const { guest, one, other, known } = await resources();
    const inventory = new Inventory();
    inventory.heard(ready, known);
    const counted = (endpoint: Endpoint, accepted: number, clients: number): Endpoint => ({
      ...endpoint,
      clients,
      counters: { ...endpoint.counters, accepted },
    });
    const busy = { ...guest, waiting: { response: 3, request: 4 } };
    inventory.looked([busy], [counted(one, 7, 1), counted(other, 8, 2)]);
    // A client came to one of them.
    const changed = counted(one, 9, 5);
    known.endpoints.set(one.id, changed);
    inventory.heard({ type: "endpoint", endpoint: changed }, known);
    expect(inventory.endpoints()).toEqual([changed, counted(other, 8, 2)]);
    expect(inventory.guests()).toEqual([busy]);
    // And the guest's state is the event's, until the next look its rings too.
    const gone = { ...guest, state: "detached", waiting: null } as const;
    known.guests.set(guest.name, gone);
    inventory.heard({ type: "guest", guest: gone }, known);
    expect(inventory.guests()).toEqual([gone]);
    inventory.looked([busy], [counted(one, 10, 5), counted(other, 11, 2)]);
    expect(inventory.guests()).toEqual([{ ...gone, waiting: busy.waiting }]);
    expect(inventory.endpoints().map(({ counters }) => counters.accepted)).toEqual([10, 11]);
  });
});

/** Of a bridge, and as `watch` has them. */
async function resources() {
  const { guest: get, endpoint } = await testBridge();
  const [guest, one, other] = await Promise.all([get("demo"), endpoint("echo"), endpoint("sink")]);
  const known = {
    guests: new Map<string, Guest>([[guest.name, guest]]),
    endpoints: new Map<string, Endpoint>([one, other].map((each) => [each.id, each])),
  };
  return { guest, one, other, known };
}
