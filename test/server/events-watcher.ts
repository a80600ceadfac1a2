import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
import { request } from "node:http";
import { onTestFinished } from "vitest";
import type { Endpoint, EventData, EventName, Guest } from "../../schemas/index.ts";
import { EndpointList, events, GuestList } from "../../schemas/index.ts";

/** Nothing beside what the schemas say. */
const schemas = {
  guest: events.guest.strict(),
  endpoint: events.endpoint.strict(),
  "endpoint-removed": events["endpoint-removed"].strict(),
  ready: events.ready.strict(),
};

/** An event as it came. */
export interface SeenEvent {
  readonly name: EventName;
  /** undefined: it had none. */
  readonly id: string | undefined;
  readonly data: EventData;
}

/** Guests and endpoints without what changes all the time. */
export interface View {
  readonly guests: readonly unknown[];
  readonly endpoints: readonly unknown[];
}

/** A reader of `/api/v1/events` that holds every event against its schema, and applies it to what it knows. */
export class Watcher {
  readonly headers: IncomingHttpHeaders;
  /** What came, in order. */
  readonly seen: SeenEvent[] = [];
  readonly #response: IncomingMessage;
  readonly #guests = new Map<string, Guest>();
  readonly #endpoints = new Map<string, Endpoint>();
  /** What was known before this connection, and did not come again on it. */
  readonly #earlier: readonly [guests: Set<string>, endpoints: Set<string>];
  /** The connection is over. */
  readonly ended: Promise<void>;
  lastId: string | undefined;
  #ready = false;
  #whole = false;
  #rest = "";
  #broken: unknown;
  #wake: () => void = () => {};

  private constructor(response: IncomingMessage, before: Watcher | undefined) {
    this.#response = response;
    this.headers = response.headers;
    for (const [name, guest] of before?.guests ?? []) this.#guests.set(name, guest);
    for (const [id, endpoint] of before?.endpoints ?? []) this.#endpoints.set(id, endpoint);
    this.#earlier = [new Set(this.#guests.keys()), new Set(this.#endpoints.keys())];
    response.setEncoding("utf8");
    response.on("data", (part: string) => this.#take(part));
    response.on("error", () => {});
    this.ended = new Promise((resolve) => {
      response.once("close", () => {
        resolve();
        this.#wake();
      });
    });
  }

  /**
   * @param lastId for Last-Event-ID
   * @param before what it knows already
   */
  static async open(url: string, lastId?: string, before?: Watcher): Promise<Watcher> {
    const asked = request(`${url}/api/v1/events`, {
      headers: lastId === undefined ? {} : { "last-event-id": lastId },
      // A connection of its own, which ends with the test.
      agent: false,
    });
    onTestFinished(() => {
      asked.destroy();
    });
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      asked.once("response", resolve);
      asked.once("error", reject);
      asked.end();
    });
    return new Watcher(response, before);
  }

  /** As `open`, and it has all of the current state. */
  static async ready(url: string, lastId?: string, before?: Watcher): Promise<Watcher> {
    const watcher = await Watcher.open(url, lastId, before);
    await watcher.until("ready", () => watcher.#ready);
    return watcher;
  }

  get guests(): ReadonlyMap<string, Guest> {
    return this.#guests;
  }

  get endpoints(): ReadonlyMap<string, Endpoint> {
    return this.#endpoints;
  }

  /** What came after `ready`. */
  get changes(): readonly SeenEvent[] {
    return this.seen.slice(this.seen.findIndex(({ name }) => name === "ready") + 1);
  }

  /** All that the events say. */
  get view(): View {
    return viewOf([...this.#guests.values()], [...this.#endpoints.values()]);
  }

  /** Waits until something is so, asked again after every piece that comes. */
  async until(what: string, condition: () => boolean): Promise<void> {
    const deadline = performance.now() + 10_000;
    for (;;) {
      if (this.#broken !== undefined) throw this.#broken;
      if (condition()) return;
      if (this.#response.closed) throw new Error(`the stream ended before ${what}`);
      if (performance.now() > deadline) throw new Error(`did not happen: ${what}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, 1000).unref();
      });
    }
  }

  /** The first change that fits. */
  async change(fits: (event: SeenEvent) => boolean): Promise<SeenEvent> {
    await this.until("the change", () => this.changes.some(fits));
    return this.changes.find(fits) as SeenEvent;
  }

  close(): void {
    this.#response.destroy();
  }

  #take(part: string): void {
    const blocks = (this.#rest + part).split("\n\n");
    this.#rest = blocks.pop() ?? "";
    try {
      for (const block of blocks) if (!block.startsWith(":")) this.#event(block);
    } catch (error) {
      this.#broken ??= error;
    }
    this.#wake();
  }

  #event(block: string): void {
    const [, name, id, text] = /^event: ([a-z-]+)\n(?:id: (\S+)\n)?data: (.*)$/.exec(block) ?? [];
    if (name === undefined || text === undefined) throw new Error(`no event: ${block}`);
    const data = schemas[name as EventName].parse(JSON.parse(text));
    this.seen.push({ name: name as EventName, id, data });
    if (id !== undefined) this.lastId = id;
    this.#apply(name as EventName, id, data);
  }

  #apply(name: EventName, id: string | undefined, data: EventData): void {
    const [guests, endpoints] = this.#earlier;
    if (name === "ready") {
      if (this.#ready) throw new Error("ready twice");
      this.#ready = true;
      if (!this.#whole) return;
      // What is not in it is gone.
      for (const each of guests) this.#guests.delete(each);
      for (const each of endpoints) this.#endpoints.delete(each);
      return;
    }
    // Of the whole state: only changes have ids.
    if (id === undefined) this.#whole = true;
    if (name === "guest") {
      const guest = data as Guest;
      this.#guests.set(guest.name, guest);
      guests.delete(guest.name);
    } else if (name === "endpoint") {
      const endpoint = data as Endpoint;
      this.#endpoints.set(endpoint.id, endpoint);
      endpoints.delete(endpoint.id);
    } else if (!this.#endpoints.delete((data as EventData<"endpoint-removed">).id)) {
      throw new Error(`removed, and never there: ${JSON.stringify(data)}`);
    }
  }
}

/** What the lists say now. */
export async function listedView(url: string): Promise<View> {
  const get = async (path: string): Promise<unknown> => (await fetch(`${url}/api/v1/${path}`)).json();
  const { guests } = GuestList.parse(await get("guests"));
  const { endpoints } = EndpointList.parse(await get("endpoints?limit=10000"));
  return viewOf(guests, endpoints);
}

function viewOf(guests: readonly Guest[], endpoints: readonly Endpoint[]): View {
  const byText = (a: unknown, b: unknown) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1);
  return {
    guests: guests.map((each) => ({ ...each, counters: undefined, waiting: undefined })).toSorted(byText),
    endpoints: endpoints.map((each) => ({ ...each, counters: undefined })).toSorted(byText),
  };
}
