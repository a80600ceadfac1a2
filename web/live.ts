import { batch, signal } from "@preact/signals";
import { guests as fetchGuests, list, RpmsgError, watch } from "../client/index.ts";
import type { Access, Endpoint, Guest } from "../schemas/index.ts";
import { access, metrics } from "./api.ts";
import { Inventory } from "./inventory.ts";
import type { Buckets } from "./latency.ts";
import { bucketsOf, quantile, since } from "./latency.ts";
import { LONGEST, pause, untilNext } from "./pace.ts";
import { Meter } from "./rates.ts";
import { Series } from "./series.ts";
import { bridge, credentials, enter, forget, takeTicket, token } from "./session.ts";
import type { Trouble } from "./trouble.ts";
import { isUnauthorized, troubleOf } from "./trouble.ts";

/** Milliseconds between two looks at all counters, and at the metrics; where they take long, they come less often. */
const PERIOD = 1000;
const METRICS_PERIOD = 2000;
/** Milliseconds in which changes are shown together. */
const TOGETHER = 50;
/** Milliseconds that charts show. */
const SHOWN = 300_000;
/** Milliseconds after which it is told what to do where no events come, and between two tries to have them at most. */
const PATIENCE = 5000;
/** Looks that the small line of an endpoint shows. */
const SPARK = 60;
const HISTOGRAM = "rpmsg_guest_to_socket_seconds";

/** What is measured of an endpoint. */
export interface Traffic {
  /** A second. */
  readonly rates: Readonly<Record<string, number>>;
  /** Messages a second, both ways, of the latest looks. */
  readonly recent: readonly number[];
}

/** loading: nothing came yet; asking: a token is needed; live; lost: the bridge does not answer now. */
export const link = signal<"loading" | "asking" | "live" | "lost">("loading");
/** What is wrong, while the link is asking or lost. */
export const linkTrouble = signal<Trouble | undefined>(undefined);
/** Whether events come: without them, states are as old as the last look. */
export const hearing = signal(true);
/** Why they have not come for a while. */
export const eventsTrouble = signal<Trouble | undefined>(undefined);
/** When the last look came, in milliseconds since 1970. */
export const lookedAt = signal<number | undefined>(undefined);
/** Who this page is to the bridge; undefined until it has said. */
export const self = signal<Access | undefined>(undefined);
/** Grows whenever the bridge, or another one in its place, is there anew: what was asked once may be otherwise. */
export const arrivals = signal(0);
export const guests = signal<readonly Guest[]>([]);
export const endpoints = signal<readonly Endpoint[]>([]);
/** By id of the endpoint. */
export const traffic = signal<ReadonlyMap<string, Traffic>>(new Map());
/** Messages and bytes a second, of all guests: from them, to them. They change with `ticks`. */
export const messages = new Series(2, SHOWN / PERIOD);
export const bytes = new Series(2, SHOWN / PERIOD);
/** Milliseconds from a guest's ring to a client's socket: median and 99th percentile. */
export const latency = new Series(2, SHOWN / METRICS_PERIOD);
/** Why there is no latency. */
export const latencyTrouble = signal<Trouble | undefined>(undefined);
/** Grows with every look. */
export const ticks = signal(0);

/** Whether an endpoint is a service that every emulated guest of the bridge has. */
export function isService({ guest, name, origin }: Endpoint, wanted: string): boolean {
  const isEmulated = guests.value.some((each) => each.name === guest && each.kind === "emulated");
  return name === wanted && origin === "guest" && isEmulated;
}

const meters = new Map<string, Meter>();
const total = new Meter();
let buckets: Buckets | undefined;
/** Told `look` when there is a reason to look at once. */
const reasons = new EventTarget();
document.addEventListener("visibilitychange", () => reasons.dispatchEvent(new Event("look")));

/** Comes in with what the address has, and then shows what there is. */
export async function begin(): Promise<void> {
  const ticket = takeTicket();
  await run(ticket === undefined ? undefined : await enter(ticket));
}

/** Comes in with a token. @returns why it was not taken */
export async function giveToken(text: string): Promise<Trouble | undefined> {
  const refused = await enter(text);
  if (refused === undefined) void run();
  return refused;
}

/** @param refused why the ticket in the address was not taken: it matters only where one is needed */
async function run(refused?: Trouble): Promise<void> {
  const abort = new AbortController();
  const inventory = new Inventory();
  link.value = "loading";
  try {
    await Promise.all([
      follow(inventory, abort.signal),
      count(inventory, abort.signal),
      measure(abort.signal),
    ]);
  } catch (error) {
    abort.abort();
    batch(() => {
      const unauthorized = isUnauthorized(error);
      link.value = unauthorized ? "asking" : "lost";
      // Whoever gave nothing is not told that it was wrong.
      linkTrouble.value =
        refused ?? (unauthorized && token.value === undefined ? undefined : troubleOf(error));
      guests.value = [];
      endpoints.value = [];
    });
    if (isUnauthorized(error)) forget();
  }
}

/** Events say what there is, and in which state. */
async function follow(inventory: Inventory, end: AbortSignal): Promise<void> {
  const view = watch(bridge, {
    ...credentials(),
    signal: end,
    reconnect: { initial: true, maxDelay: PATIENCE },
  });
  void introduce();
  let late = tellLater("The bridge's events do not come.");
  const settle = (): void => {
    clearTimeout(late);
    batch(() => {
      hearing.value = true;
      eventsTrouble.value = undefined;
    });
  };
  end.addEventListener("abort", settle, { once: true });
  let timer: ReturnType<typeof setTimeout> | undefined;
  for await (const change of view) {
    inventory.heard(change, view);
    if (change.type === "ready") {
      settle();
      arrivals.value++;
      void introduce();
      reasons.dispatchEvent(new Event("look"));
    } else if (change.type === "lost") {
      hearing.value = false;
      late = tellLater(`The bridge's events do not come any more (${change.reason}).`);
      reasons.dispatchEvent(new Event("look"));
    }
    if (inventory.complete) {
      timer ??= setTimeout(() => {
        timer = undefined;
        if (!end.aborted) show(inventory);
      }, TOGETHER);
    }
  }
  clearTimeout(timer);
}

/** Looks go on meanwhile, and mostly the events are there again before anybody could read it. */
function tellLater(text: string): ReturnType<typeof setTimeout> {
  return setTimeout(() => {
    batch(() => {
      hearing.value = false;
      eventsTrouble.value = {
        text: `${text} States, and which endpoints there are, are as old as the last look.`,
        code: "no-events",
        advice:
          "The page connects again by itself. Where that does not help close other tabs that have this page: of a " +
          "bridge, and of a browser, there are only so many event streams.",
      };
    });
  }, PATIENCE);
}

/** Asks who this page is to the bridge. One that cannot say lets it try everything. */
async function introduce(): Promise<void> {
  self.value = await access({}).catch(() => undefined);
}

function show(inventory: Inventory): void {
  batch(() => {
    guests.value = inventory.guests();
    endpoints.value = inventory.endpoints();
    if (link.value === "loading") link.value = "live";
  });
}

/** Counters alone are no events: they are asked for. */
async function count(inventory: Inventory, end: AbortSignal): Promise<void> {
  await regularly(PERIOD, end, async (limit) => {
    try {
      const options = { ...credentials(), signal: limit };
      const [someGuests, someEndpoints] = await Promise.all([
        fetchGuests(bridge, options),
        list(bridge, options),
      ]);
      inventory.looked(someGuests, someEndpoints);
      take(performance.timeOrigin + performance.now(), someGuests, someEndpoints, inventory);
      return true;
    } catch (error) {
      if (end.aborted || isUnauthorized(error)) throw error;
      batch(() => {
        link.value = "lost";
        linkTrouble.value = troubleOf(limit.aborted ? noAnswer() : error);
      });
      return false;
    }
  });
}

function noAnswer(): RpmsgError {
  return new RpmsgError(
    "unreachable",
    `the bridge at ${bridge.origin} gave no answer in ${LONGEST / 1000} s`,
  );
}

function take(
  now: number,
  newGuests: readonly Guest[],
  newEndpoints: readonly Endpoint[],
  inventory: Inventory,
): void {
  const time = now / 1000;
  const sums = { from: 0, to: 0, bytesFrom: 0, bytesTo: 0 };
  for (const { counters } of newGuests) {
    sums.from += counters.messagesFromGuest;
    sums.to += counters.messagesToGuest;
    sums.bytesFrom += counters.bytesFromGuest;
    sums.bytesTo += counters.bytesToGuest;
  }
  const rates = total.look(time, sums);
  messages.push(time, [rates?.["from"] ?? null, rates?.["to"] ?? null]);
  bytes.push(time, [rates?.["bytesFrom"] ?? null, rates?.["bytesTo"] ?? null]);
  const measured = new Map<string, Traffic>();
  for (const { id, counters } of newEndpoints) {
    const meter = meters.get(id) ?? new Meter();
    meters.set(id, meter);
    const found = meter.look(time, counters) ?? {};
    const both = (found["messagesFromGuest"] ?? 0) + (found["messagesToGuest"] ?? 0);
    const recent = [...(traffic.value.get(id)?.recent ?? []), both].slice(-SPARK);
    measured.set(id, { rates: found, recent });
  }
  for (const id of meters.keys()) if (!measured.has(id)) meters.delete(id);
  batch(() => {
    show(inventory);
    lookedAt.value = now;
    link.value = "live";
    linkTrouble.value = undefined;
    traffic.value = measured;
    ticks.value++;
  });
}

/** How long messages take, by the bridge's own histogram. */
async function measure(end: AbortSignal): Promise<void> {
  await regularly(METRICS_PERIOD, end, async (limit) => {
    try {
      const found = bucketsOf(await metrics(limit), HISTOGRAM) ?? [];
      const recent = since(buckets ?? found, found);
      buckets = found;
      const milliseconds = (q: number): number | null => {
        const seconds = quantile(recent, q);
        return seconds === null ? null : seconds * 1000;
      };
      latency.push((performance.timeOrigin + performance.now()) / 1000, [
        milliseconds(0.5),
        milliseconds(0.99),
      ]);
      latencyTrouble.value = undefined;
      return true;
    } catch (error) {
      // Whether there is a bridge, and a token, `count` finds out.
      const trouble = troubleOf(error);
      latencyTrouble.value = trouble.code === "forbidden" ? trouble : undefined;
      return false;
    }
  });
}

/**
 * Does something again and again, while the page is seen, and no more often than its cost allows.
 * @param action says whether it came about; its signal ends it where it takes too long
 */
async function regularly(
  period: number,
  end: AbortSignal,
  action: (signal: AbortSignal) => Promise<boolean>,
): Promise<void> {
  while (!end.aborted) {
    const start = performance.now();
    const failed = !document.hidden && !(await action(AbortSignal.any([end, AbortSignal.timeout(LONGEST)])));
    await pause(untilNext(period, performance.now() - start, failed), end, reasons);
  }
}
