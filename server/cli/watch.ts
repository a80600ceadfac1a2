import type { Endpoint, EventData, EventName } from "../../schemas/index.ts";
import { events } from "../../schemas/index.ts";
import { explain } from "./advice.ts";
import type { ClientFlags } from "./client.ts";
import { incomprehensible } from "./client.ts";
import { CommandError } from "./command-error.ts";
import type { StreamEvent } from "./event-stream.ts";
import { followEvents } from "./event-stream.ts";
import { referenceOf } from "./reference.ts";
import { stopSignal } from "./signals.ts";
import { count, printable } from "./terminal.ts";

interface WatchFlags extends ClientFlags {
  guest?: string;
}

/** Shows guests and endpoints as they are, and then every change, until it is told to stop or the bridge ends. */
export async function watch(flags: WatchFlags): Promise<void> {
  const stop = new AbortController();
  void stopSignal().then(() => stop.abort());
  const known = new Known();
  try {
    for await (const { event, data } of followEvents("/api/v1/events", flags, stop.signal)) {
      const read = readEvent({ event, data }, flags);
      const guest = read === undefined ? undefined : guestOf(read);
      if (guest !== undefined && guest !== (flags.guest ?? guest)) continue;
      const text = read && known.tell(read);
      if (read?.name === "ready") known.check(flags);
      if (flags.json === true) console.log(JSON.stringify({ event, data: JSON.parse(data) as unknown }));
      else if (text !== undefined) console.log(`${timeNow()} ${text}`);
    }
  } catch (error) {
    if (stop.signal.aborted) return;
    if (error instanceof CommandError) throw error;
    // The connection broke off: told below.
  }
  if (!stop.signal.aborted) {
    throw new CommandError(
      `the bridge at ${flags.url} has ended, or the way to it: watch again when it is back`,
    );
  }
}

/** An event that we know. */
type KnownEvent = { [Name in EventName]: { name: Name; data: EventData<Name> } }[EventName];

/** @returns undefined for events that we do not know: they are of a newer bridge */
function readEvent({ event, data }: StreamEvent, flags: ClientFlags): KnownEvent | undefined {
  if (!Object.hasOwn(events, event)) return undefined;
  const name = event as EventName;
  try {
    return { name, data: events[name].parse(JSON.parse(data)) } as KnownEvent;
  } catch {
    throw incomprehensible(flags, `event ${event}`);
  }
}

/** The guest that an event is about; undefined where it is about none. */
function guestOf(event: KnownEvent): string | undefined {
  if (event.name === "ready") return undefined;
  return event.name === "guest" ? event.data.name : event.data.guest;
}

/** What has been told, to see what is new in an event. */
class Known {
  readonly #guests = new Set<string>();
  readonly #endpoints = new Map<string, Endpoint>();

  /** @throws CommandError where there is no such guest as is to be watched */
  check({ guest }: WatchFlags): void {
    if (guest === undefined || this.#guests.has(guest)) return;
    throw new CommandError(explain(`there is no guest "${guest}"`, "guest-unknown"));
  }

  /** An event in a few words. */
  tell(event: KnownEvent): string {
    switch (event.name) {
      case "guest": {
        const { name, state, generation } = event.data;
        this.#guests.add(name);
        return `guest ${name} ${state} generation ${generation}`;
      }
      case "endpoint": {
        const before = this.#endpoints.get(event.data.id);
        this.#endpoints.set(event.data.id, event.data);
        return `endpoint ${referenceOf(event.data)} ${changes(before, event.data)}`;
      }
      case "endpoint-removed": {
        const { id, guest, name } = event.data;
        const before = this.#endpoints.get(id);
        this.#endpoints.delete(id);
        return `endpoint ${before === undefined ? `${guest}/${printable(name)}` : referenceOf(before)} removed`;
      }
      case "ready":
        return `ready: ${count(this.#guests.size, "guest")}, ${count(this.#endpoints.size, "endpoint")}`;
    }
  }
}

/** What of an endpoint is not as it was. */
function changes(before: Endpoint | undefined, now: Endpoint): string {
  const parts: string[] = [];
  if (now.state !== before?.state) parts.push(now.state);
  if (before !== undefined && now.generation !== before.generation)
    parts.push(`generation ${now.generation}`);
  if (before !== undefined && now.address !== before.address)
    parts.push(`address ${now.address ?? "unknown"}`);
  if (before !== undefined && now.peer !== before.peer) parts.push(`peer ${now.peer ?? "unknown"}`);
  if (now.clients !== (before?.clients ?? 0)) parts.push(count(now.clients, "client"));
  return parts.join(", ") || "changed";
}

function timeNow(): string {
  return new Date().toTimeString().slice(0, 8);
}
