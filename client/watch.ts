import type { Endpoint, EventData, Guest } from "../schemas/index.ts";
import type { ReconnectOptions } from "./backoff.ts";
import { Backoff } from "./backoff.ts";
import { RpmsgError } from "./errors.ts";
import type { RequestOptions } from "./http.ts";
import { request } from "./http.ts";
import type { ServerSentEvent } from "./sse.ts";
import { serverSentEvents } from "./sse.ts";
import { baseOf } from "./target.ts";

export interface WatchOptions extends RequestOptions {
  /** How a lost connection is made again; false: it ends the loop. */
  reconnect?: ReconnectOptions | false;
  /** Milliseconds without a sign of life after which the connection is lost. Default 40,000; the bridge gives one every 15,000. */
  silence?: number;
}

/** What changed. */
export type Change =
  /** A guest, as it is now. */
  | { type: "guest"; guest: Guest }
  /** An endpoint, new or changed. */
  | { type: "endpoint"; endpoint: Endpoint }
  | ({ type: "endpoint-removed" } & EventData<"endpoint-removed">)
  /** `guests` and `endpoints` are complete; it comes again after a connection that broke. */
  | ({ type: "ready" } & EventData<"ready">)
  /** The connection broke: until `ready` comes, `guests` and `endpoints` are as old as that. */
  | { type: "lost"; reason: string };

/** A live view of guests and endpoints: loop over it, and look at the maps at any time. */
export class Watch implements AsyncIterable<Change> {
  readonly #url: URL;
  readonly #options: WatchOptions;
  readonly #guests = new Map<string, Guest>();
  readonly #endpoints = new Map<string, Endpoint>();
  #instance = "";

  constructor(target: string | URL, options: WatchOptions) {
    this.#url = new URL("api/v1/events", baseOf(target));
    this.#options = options;
  }

  /** By name, as of the last change that the loop has given. */
  get guests(): ReadonlyMap<string, Guest> {
    return this.#guests;
  }

  /** By id, as of the last change that the loop has given. */
  get endpoints(): ReadonlyMap<string, Endpoint> {
    return this.#endpoints;
  }

  /**
   * First the current state, change by change, then `ready`, then what changes. Nothing is read while the loop is
   * busy. It ends with `signal`, and throws an RpmsgError where the bridge cannot be had or refuses.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<Change, void, undefined> {
    const { signal, token, reconnect = {}, silence = 40_000 } = this.#options;
    const { initial = false, attempts = Number.POSITIVE_INFINITY } = reconnect === false ? {} : reconnect;
    const backoff = new Backoff(reconnect === false ? {} : reconnect);
    let id = "";
    let failures = 0;
    let connected = false;
    let complete = false;
    while (!aborted(signal)) {
      let since: number | undefined;
      let reason = "the bridge ended the stream";
      try {
        const headers = { accept: "text/event-stream", ...(id !== "" && { "last-event-id": id }) };
        const { body } = await request(this.#url, { token, signal }, headers);
        if (body === null) throw new RpmsgError("unreachable", "what answers is no rpmsg-bridge");
        connected = true;
        failures = 0;
        since = performance.now();
        const seen: Seen = { guests: new Set(), endpoints: new Set(), complete: false };
        for await (const event of serverSentEvents(body, silence)) {
          if (event.id !== "") id = event.id;
          for (const change of this.#apply(event, seen)) {
            complete ||= change.type === "ready";
            yield change;
          }
        }
      } catch (error) {
        if (aborted(signal)) return;
        failures++;
        const goesOn = connected || initial;
        // A token that is not taken now is not taken later.
        const barred = error instanceof RpmsgError && error.code === "unauthorized";
        if (reconnect === false || !goesOn || barred || failures >= attempts) throw asRpmsgError(error);
        reason = (error as Error).message;
      }
      if (since !== undefined) backoff.lasted(performance.now() - since);
      if (reconnect === false) return;
      if (complete) {
        complete = false;
        yield { type: "lost", reason };
      }
      await pause(backoff.next(), signal);
    }
  }

  *#apply({ event, data, id }: ServerSentEvent, seen: Seen): Generator<Change, void, undefined> {
    const value = parse(data);
    if (event === "guest" && isText(value["name"])) {
      const guest = value as unknown as Guest;
      this.#guests.set(guest.name, guest);
      seen.guests.add(guest.name);
      seen.complete ||= id === "";
      yield { type: "guest", guest };
    } else if (event === "endpoint" && isText(value["id"])) {
      const endpoint = value as unknown as Endpoint;
      this.#endpoints.set(endpoint.id, endpoint);
      seen.endpoints.add(endpoint.id);
      seen.complete ||= id === "";
      yield { type: "endpoint", endpoint };
    } else if (event === "endpoint-removed" && isText(value["id"])) {
      this.#endpoints.delete(value["id"]);
      yield { type: "endpoint-removed", ...(value as EventData<"endpoint-removed">) };
    } else if (event === "ready" && isText(value["instance"])) {
      const { instance } = value;
      if (seen.complete || instance !== this.#instance) yield* this.#prune(seen);
      this.#instance = instance;
      yield { type: "ready", instance };
    }
  }

  /** What went while the connection was broken. */
  *#prune(seen: Seen): Generator<Change, void, undefined> {
    for (const name of [...this.#guests.keys()]) {
      if (!seen.guests.has(name)) this.#guests.delete(name);
    }
    for (const { id, guest, name, generation } of [...this.#endpoints.values()]) {
      if (seen.endpoints.has(id)) continue;
      this.#endpoints.delete(id);
      yield { type: "endpoint-removed", id, guest, name, generation };
    }
  }
}

/** What came on a connection before it was ready. */
interface Seen {
  /** Names. */
  readonly guests: Set<string>;
  /** Ids. */
  readonly endpoints: Set<string>;
  /** It is the whole state, not what was missed: only changes have ids. */
  complete: boolean;
}

/**
 * Watches the guests and endpoints of a bridge.
 * @param target URL of the bridge, or of anything on it; in a browser it may be relative to the page
 * @throws TypeError for a URL that is none
 */
export function watch(target: string | URL, options: WatchOptions = {}): Watch {
  return new Watch(target, options);
}

function aborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}

function asRpmsgError(error: unknown): RpmsgError {
  if (error instanceof RpmsgError) return error;
  return new RpmsgError("connection-lost", `the connection was lost: ${(error as Error).message}`, {
    cause: error,
  });
}

function parse(data: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(data);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

function isText(value: unknown): value is string {
  return typeof value === "string";
}

/** Waits; an abort ends it early. */
function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal?.addEventListener("abort", end);
  });
}
