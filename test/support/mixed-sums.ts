import type { ProfileName } from "../../guest/index.ts";
import type { Endpoint, EndpointCounters, Guest } from "../../schemas/index.ts";
import type { MixedClients } from "./mixed-clients.ts";
import type { MixedGuest } from "./mixed-guest.ts";
import type { Sender } from "./mixed-inbox.ts";

/** Endpoints all of whose clients number their messages and stay until the guest has read them, or is reset. */
const answered = ["json", "mux"];
/** Endpoints where connections end without a good-bye: what was on its way is lost with them. */
const lossy = ["rude"];

export interface EndpointFigures extends EndpointCounters {
  connections: number;
  received: number;
  told: number;
  /** Messages that were reported as sent, and later as perhaps unread. */
  unread: number;
  guestSent: number;
  guestReceived: number;
  results: Record<string, number>;
  ends: Record<string, number>;
}

export interface MixedFigures {
  seed: number;
  profile: ProfileName;
  resets: number;
  pauses: number;
  guest: Guest["counters"];
  endpoints: Record<string, EndpointFigures>;
  /** What was not as it must be. */
  problems: string[];
}

/** What both sides of a bridge saw, against what the bridge says. */
export class MixedSums {
  readonly #clients: MixedClients;
  readonly #guest: MixedGuest;

  constructor(clients: MixedClients, guest: MixedGuest) {
    this.#clients = clients;
    this.#guest = guest;
  }

  figuresOf({ name, counters }: Endpoint): EndpointFigures {
    const account = this.#clients.accounts.get(name);
    const seen = this.#guest.seen.get(name);
    return {
      ...counters,
      connections: account?.connections ?? 0,
      received: account?.received ?? 0,
      told: account?.told ?? 0,
      unread: account?.unconfirmed ?? 0,
      guestSent: seen?.sent ?? 0,
      guestReceived: seen?.received ?? 0,
      results: Object.fromEntries(account?.results ?? []),
      ends: Object.fromEntries(account?.ends ?? []),
    };
  }

  /** Something is on its way still. */
  isUnsettled(endpoints: readonly Endpoint[]): boolean {
    const isWaiting = [...this.#clients.links].some(
      ({ isOver, options: { sender } }) =>
        !isOver && sender.results.size > 0 && sender.results.size < sender.sent,
    );
    return isWaiting || endpoints.some((each) => sumsOf(this.figuresOf(each), each.name).length > 0);
  }

  /** What is not as it must be, once nothing is on its way. */
  problems(endpoints: readonly Endpoint[], guest: Guest): string[] {
    return [
      ...endpoints.flatMap((each) =>
        sumsOf(this.figuresOf(each), each.name).map((what) => `${each.name}: ${what}`),
      ),
      ...this.#clients.senders.flatMap((sender) =>
        this.#sender(sender).map((what) => `sender ${sender.number} of ${sender.endpoint}: ${what}`),
      ),
      ...this.#totals(endpoints, guest),
    ];
  }

  /** Every message of a client is where its result says. */
  #sender({ number, sent, results, isAnswered, endedEarly }: Sender): string[] {
    const heard = this.#guest.heard.get(number) ?? [];
    const problems: string[] = [];
    const problem = (what: string) => problems.push(what);
    const disorder = heard.findIndex((each, i) => i > 0 && each <= (heard[i - 1] ?? -1));
    if (disorder !== -1) problem(`the guest got ${heard[disorder]} after ${heard[disorder - 1]}`);
    if (!isAnswered) {
      // Without ids: a beginning, without a gap.
      if (heard.some((each, i) => each !== i)) problem(`the guest got ${heard.length} messages with gaps`);
      return problems;
    }
    const there = new Set(heard);
    for (const [message, result] of results) {
      if (result === "sent" && !there.has(message) && !endedEarly) problem(`message ${message} is missing`);
      if (result !== "sent" && there.has(message)) problem(`message ${message} was ${result}, and came`);
    }
    if (endedEarly) return problems;
    for (const message of heard) if (!results.has(message)) problem(`message ${message} has no result`);
    if (sent < heard.length) problem(`the guest got ${heard.length} messages of ${sent}`);
    return problems;
  }

  #totals(endpoints: readonly Endpoint[], { counters, generation }: Guest): string[] {
    const problems: string[] = [];
    const sum = (key: keyof EndpointCounters) =>
      endpoints.reduce((total, each) => total + each.counters[key], 0);
    if (generation !== this.#guest.boots)
      problems.push(`generation ${generation}, boot ${this.#guest.boots}`);
    // And the announcements, which are messages, too.
    const fromGuest = counters.messagesFromGuest - sum("messagesFromGuest");
    if (fromGuest !== generation * this.#guest.announcements) {
      problems.push(`${fromGuest} messages of the guest belong to no endpoint, in ${generation} generations`);
    }
    const toGuest = counters.messagesToGuest - sum("messagesToGuest");
    if (toGuest > generation || toGuest < 1) {
      problems.push(`${toGuest} messages to the guest belong to no endpoint, in ${generation} generations`);
    }
    // Each reset may leave what the bridge has not taken in the ring, of at most 256 buffers.
    const guestSent = [...this.#guest.seen.values()].reduce((total, { sent }) => total + sent, 0);
    const left = guestSent - sum("messagesFromGuest") - counters.unknownAddress;
    // The guest introduces itself to the service of the host, which no service of ours has counted.
    if (left < -generation || left > 256 * (generation - 1))
      problems.push(`${left} messages were left with the guest`);
    return problems;
  }
}

/** The sums that must hold for an endpoint once nothing is on its way; those that do not. */
function sumsOf(f: EndpointFigures, name: string): string[] {
  const problems: string[] = [];
  const equal = (what: string, left: number, right: number) => {
    if (left !== right) problems.push(`${what}: ${left} is not ${right}`);
  };
  equal("accepted = messagesToGuest + undelivered", f.accepted, f.messagesToGuest + f.undelivered);
  equal(
    "messagesToGuest - unconfirmed = got by the guest",
    f.messagesToGuest - f.unconfirmed,
    f.guestReceived,
  );
  if (!lossy.includes(name)) {
    equal("messagesToClients = received + dropped", f.messagesToClients, f.received + f.dropped);
  } else if (f.messagesToClients < f.received) {
    problems.push(`${f.received} received of ${f.messagesToClients}`);
  }
  // Where each message is for one client at most.
  if (["raw", "json", "mux", "solo", "slow", "rude"].includes(name)) {
    equal(
      "messagesFromGuest = messagesToClients + noClient",
      f.messagesFromGuest,
      f.messagesToClients + f.noClient,
    );
  } else if (f.messagesFromGuest > f.messagesToClients + f.noClient) {
    problems.push(`${f.messagesFromGuest} messages of the guest are more than were passed on`);
  }
  if (f.told > f.dropped) problems.push(`${f.told} drops told, of ${f.dropped}`);
  if (answered.includes(name)) {
    const { sent = 0, ...others } = f.results;
    const givenUp = ["no-buffer", "no-peer", "guest-gone"].reduce(
      (sum, code) => sum + (others[code] ?? 0),
      0,
    );
    equal("messagesToGuest = told to be sent", f.messagesToGuest, sent);
    equal("undelivered = told to be given up", f.undelivered, givenUp);
    equal("unconfirmed = told to be perhaps unread", f.unconfirmed, f.unread);
  }
  return problems;
}
