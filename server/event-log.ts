import type { EventData, EventName } from "../schemas/index.ts";

/** Events that a reader who was away may have missed and still gets. */
const KEPT = 4096;
/** Events more than that at which the oldest are let go of together. */
const SPARE = 256;
/** Milliseconds between two looks at what changed: whoever changes all the time is told so often. */
const PERIOD = 20;

/** What an event is about: a guest, or one of its endpoints, whose name has one character a byte. */
export interface Subject {
  readonly guest: string;
  readonly name?: string;
}

/** One event, as `/api/v1/events` sends it. */
export interface LoggedEvent {
  /** `{instance}:{number}` */
  readonly id: string;
  readonly name: EventName;
  /** JSON */
  readonly data: string;
  /** Who may not see that does not hear of it. */
  readonly subject: Subject;
}

/** What is kept, to be handed over: plain data. */
export interface EventLogSnapshot {
  readonly last: number;
  readonly events: readonly LoggedEvent[];
}

/**
 * What happens to guests and endpoints, in order, for those who watch. Changes of one thing that come close together
 * are told once, as it is then.
 */
export class EventLog {
  readonly instance: string;
  #events: LoggedEvent[] = [];
  #last = 0;
  /** Those who listen, and what tells them that there is no more. */
  readonly #listeners = new Map<(event: LoggedEvent) => void, () => void>();
  /** What changed and was not told yet. */
  readonly #changed = new Map<Subject, () => EventData<"endpoint">>();
  #timer: NodeJS.Timeout | NodeJS.Immediate | undefined;
  #toldAt = Number.NEGATIVE_INFINITY;

  constructor(instance: string) {
    this.instance = instance;
  }

  /** Id of the latest event. */
  get latest(): string {
    return `${this.instance}:${this.#last}`;
  }

  publish<Name extends EventName>(name: Name, data: EventData<Name>, about: Subject): void {
    // Not the endpoint itself: it would be kept for as long as the event.
    const subject = { guest: about.guest, ...(about.name !== undefined && { name: about.name }) };
    const event = { id: `${this.instance}:${++this.#last}`, name, data: JSON.stringify(data), subject };
    this.#events.push(event);
    if (this.#events.length >= KEPT + SPARE) this.#events = this.#events.slice(-KEPT);
    for (const listener of this.#listeners.keys()) listener(event);
  }

  /** An endpoint changed: it is told soon, as it is then. */
  endpointChanged(endpoint: Subject, describe: () => EventData<"endpoint">): void {
    this.#changed.set(endpoint, describe);
    if (this.#timer !== undefined) return;
    const wait = this.#toldAt + PERIOD - performance.now();
    this.#timer = wait > 0 ? setTimeout(() => this.flush(), wait).unref() : setImmediate(() => this.flush());
  }

  /** An endpoint is gone: what changed of it before does not matter. */
  forget(endpoint: Subject): void {
    this.#changed.delete(endpoint);
  }

  /** Tells what changed, before something else is told. */
  flush(): void {
    if (this.#timer === undefined) return;
    clearTimeout(this.#timer as NodeJS.Timeout);
    clearImmediate(this.#timer as NodeJS.Immediate);
    this.#timer = undefined;
    this.#toldAt = performance.now();
    const changed = [...this.#changed];
    this.#changed.clear();
    for (const [endpoint, describe] of changed) this.publish("endpoint", describe(), endpoint);
  }

  /**
   * The events after one.
   * @returns undefined where they are not known any more, or the event is none of this bridge
   */
  since(id: string): LoggedEvent[] | undefined {
    const prefix = `${this.instance}:`;
    const number = id.startsWith(prefix) ? id.slice(prefix.length) : "";
    const missed = /^\d+$/.test(number) ? this.#last - Number(number) : -1;
    if (missed < 0 || missed > this.#events.length) return undefined;
    return missed === 0 ? [] : this.#events.slice(-missed);
  }

  snapshot(): EventLogSnapshot {
    this.flush();
    return { last: this.#last, events: this.#events.slice(-KEPT) };
  }

  /** Goes on as the log of another process. */
  restore({ last, events }: EventLogSnapshot): void {
    this.#last = last;
    this.#events = [...events];
  }

  /** Tells all who listen that there is no more. */
  end(): void {
    this.flush();
    for (const ended of this.#listeners.values()) ended();
  }

  /**
   * @param ended called when there is no more: the listener is to go
   * @returns ends the subscription
   */
  subscribe(listener: (event: LoggedEvent) => void, ended = (): void => {}): () => void {
    this.#listeners.set(listener, ended);
    return () => this.#listeners.delete(listener);
  }
}
