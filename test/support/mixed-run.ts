import { mkdtempSync, rmSync } from "node:fs";
import { get } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { json as jsonOf } from "node:stream/consumers";
import { setTimeout as delay } from "node:timers/promises";
import type { ProfileName } from "../../guest/index.ts";
import type { Endpoint, EndpointCounters } from "../../schemas/index.ts";
import { EndpointList, Guest } from "../../schemas/index.ts";
import { startBridge } from "../../server/index.ts";
import type { Rate } from "./mixed-guest.ts";
import { FROM_GUEST, kind, MixedGuest } from "./mixed-guest.ts";
import { Account, Inbox, Sender } from "./mixed-inbox.ts";
import type { Link, LinkOptions } from "./mixed-links.ts";
import { JsonLink, MuxLinks, RawLink } from "./mixed-links.ts";
import { Random } from "./random.ts";

/** Endpoints of the guest, each for another kind of clients. They are declared, so that their counters outlive resets. */
const announced: Readonly<Record<string, Rate>> = {
  raw: { burst: 4, shortest: FROM_GUEST },
  json: { burst: 4, shortest: FROM_GUEST },
  mux: { burst: 4, shortest: FROM_GUEST },
  shared: { burst: 8, shortest: FROM_GUEST },
  solo: { burst: 8, shortest: FROM_GUEST },
  rude: { burst: 8, shortest: FROM_GUEST },
  slow: { burst: 20, shortest: 300 },
};
const awaited: Readonly<Record<string, Rate>> = { host: { burst: 8, shortest: FROM_GUEST } };
const names = [...Object.keys(announced), ...Object.keys(awaited)];

/** Milliseconds after which what is yet to come will not come any more. */
const PATIENCE = 20_000;
/** Endpoints all of whose clients number their messages and stay until the guest has read them, or is reset. */
const answered = ["json", "mux"];
/** Endpoints where connections end without a good-bye: what was on its way is lost with them. */
const lossy = ["rude"];

export interface MixedOptions {
  seconds: number;
  seed: number;
}

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

/** A bridge, a guest that is reset again and again, and clients of all kinds that use it at the same time. */
export async function mixedRun(options: MixedOptions): Promise<MixedFigures> {
  const directory = mkdtempSync(join(tmpdir(), "rpmsg-mixed-"));
  const run = new MixedRun(options, join(directory, "bridge.sock"));
  try {
    return await run.go();
  } finally {
    await run.close();
    rmSync(directory, { recursive: true });
  }
}

class MixedRun {
  readonly #options: MixedOptions;
  readonly #socketPath: string;
  readonly #random: Random;
  readonly #guest: MixedGuest;
  readonly #profile: ProfileName;
  readonly #accounts = new Map(names.map((name) => [name, new Account()]));
  readonly #senders: Sender[] = [];
  readonly #problems: string[];
  /** Those that are there to the end. */
  readonly #links = new Set<Link>();
  /** Those that wait for the guest's last word. */
  readonly #leaving = new Set<Link>();
  readonly #sockets: MuxLinks[] = [];
  #bridge: { close(): Promise<void> } | undefined;
  #isEnding = false;
  #pauses = 0;

  constructor(options: MixedOptions, socketPath: string) {
    this.#options = options;
    this.#socketPath = socketPath;
    this.#random = new Random(options.seed);
    this.#profile = this.#random.pick(["linux", "openamp", "rpmsg-lite"]);
    this.#guest = new MixedGuest(this.#profile, announced, awaited, this.#random);
    this.#problems = this.#guest.problems;
  }

  async go(): Promise<MixedFigures> {
    const up = Object.keys(announced).map((name) => ({ name, ns: "up" as const }));
    this.#bridge = await startBridge(
      {
        listen: `unix:${this.#socketPath}`,
        guests: { demo: { kind: "emulated", endpoints: [...up, { name: "host", address: 1040 }] } },
        limits: { slowReaderBytes: 131_072, pauseTimeout: 400, drainTimeout: 200 },
      },
      { guests: { demo: this.#guest.guest } },
    );
    const over = delay(this.#options.seconds * 1000);
    let busy = 0;
    const clients = this.#clients().map(async (client) => {
      busy++;
      await client();
      busy--;
    });
    const guest = [this.#resets(), this.#naps()];
    await over;
    this.#isEnding = true;
    await Promise.all(guest);
    this.#guest.wake();
    await Promise.race([Promise.all(clients), delay(PATIENCE, undefined, { ref: false })]);
    if (busy > 0) this.#problems.push(`${busy} clients wait for something that does not come`);
    for (const link of this.#leaving) {
      const { sender, inbox } = link.options;
      const state = link.isUp ? "up" : "down";
      const { length } = this.#guest.heard.get(sender.number) ?? [];
      this.#problems.push(
        `${sender.endpoint} ${sender.number} is ${state}: ${length} of ${sender.sent} messages came, ` +
          `${known(link)} were sent, ${sender.results.size} have results, ${inbox.stopped} came says the guest`,
      );
    }
    this.#guest.quiet = true;
    for (const link of this.#links) {
      link.resume();
      if ("grant" in link) (link as { grant(bytes: number): void }).grant(2 ** 30);
    }
    return this.#figures();
  }

  async close(): Promise<void> {
    for (const link of this.#links) link.vanish();
    for (const { socket } of this.#sockets) socket.terminate();
    await this.#bridge?.close();
  }

  // ---- the guest ----

  async #resets(): Promise<void> {
    while (!this.#isEnding) {
      await delay(this.#random.between(400, 1300));
      if (this.#random.chance(0.75)) {
        await this.#guest.reboot();
      } else {
        this.#pauses++;
        await this.#guest.guest.pause();
        await delay(this.#random.between(5, 80));
        await this.#guest.guest.resume();
      }
    }
  }

  /** Now and then the guest takes no messages, so that there are some to wait, to be given up and to be lost. */
  async #naps(): Promise<void> {
    while (!this.#isEnding) {
      await delay(this.#random.between(50, 400));
      this.#guest.doze();
      await delay(this.#random.between(1, 60));
      this.#guest.wake();
    }
  }

  // ---- the clients ----

  #clients(): (() => Promise<void>)[] {
    const clients: (() => Promise<void>)[] = [];
    const add = (count: number, client: () => Promise<void>) => {
      for (let i = 0; i < count; i++) clients.push(client);
    };
    const timeout = () => (this.#random.chance(0.3) ? this.#random.between(10, 100) : undefined);
    const raw = (name: string, query = "", loses = false) => new RawLink(this.#link(name, query, loses));
    const json = (name: string, query = "") => new JsonLink(this.#link(name, query), timeout);
    const socket = this.#mux();
    const mux = (name: string, query = "") => socket.subscribe(this.#link(name, query));

    add(3, () => this.#visits(() => raw("raw")));
    add(3, () => this.#visits(() => json("json")));
    add(6, () => this.#visits(() => mux("mux")));
    for (const [name, query] of [
      ["shared", "?share=shared"],
      ["host", ""],
    ] as const) {
      add(2, () => this.#stays(() => raw(name, query)));
      add(2, () => this.#stays(() => json(name, query)));
      add(2, () => this.#stays(() => mux(name, query)));
    }
    add(1, () => this.#stays(() => json("host", "?share=private")));
    const solo = "?share=exclusive&takeover=1";
    add(1, () => this.#takesOver(() => raw("solo", solo)));
    add(1, () => this.#takesOver(() => json("solo", solo)));
    add(1, () => this.#takesOver(() => mux("solo", solo)));
    for (const policy of ["close", "pause", "drop-oldest", "drop-newest"]) {
      const query = `?slow=${policy}`;
      add(1, () => this.#dawdles(() => raw("slow", query, policy.startsWith("drop"))));
      add(1, () => this.#dawdles(() => json("slow", query)));
      const own = this.#mux();
      add(1, () => this.#dawdles(() => own.subscribe(this.#link("slow", query))));
      add(1, () => this.#isStingy(() => socket.subscribe(this.#link("slow", query), 4096)));
    }
    add(1, () => this.#vanishes(() => raw("rude")));
    add(1, () => this.#vanishes(() => this.#mux().subscribe(this.#link("rude"))));
    add(1, () => this.#breaks(() => json("rude")));
    return clients;
  }

  /** Comes, talks, asks the guest for its last word, leaves and comes again. */
  async #visits(open: () => Link | Promise<Link>): Promise<void> {
    while (!this.#isEnding) {
      const link = await open();
      await this.#talk(link, this.#random.between(50, 1500));
      await this.#lastWord(link);
      link.leave();
      await this.#endOf(link);
    }
  }

  /** Is there until the guest is reset, and comes again. */
  async #stays(open: () => Link | Promise<Link>): Promise<void> {
    while (!this.#isEnding) {
      const link = await open();
      this.#links.add(link);
      await this.#talk(link, Number.POSITIVE_INFINITY);
      if (!link.isOver) continue;
      this.#links.delete(link);
      if ((await link.ended) !== "4001") link.options.sender.endedEarly = true;
    }
  }

  /** Has the endpoint for itself, until another one takes it. */
  async #takesOver(open: () => Link | Promise<Link>): Promise<void> {
    while (!this.#isEnding) {
      await delay(this.#random.between(50, 400));
      const link = await open();
      this.#links.add(link);
      await this.#talk(link, Number.POSITIVE_INFINITY);
      if (!link.isOver) continue;
      this.#links.delete(link);
      link.options.sender.endedEarly = true;
    }
  }

  /** Reads by fits and starts. */
  async #dawdles(open: () => Link | Promise<Link>): Promise<void> {
    await this.#stays(async () => {
      const link = await open();
      void this.#pauseReading(link);
      return link;
    });
  }

  async #pauseReading(link: Link): Promise<void> {
    while (!link.isOver && !this.#isEnding) {
      await delay(this.#random.between(5, 150));
      link.pause();
      await delay(this.#random.between(5, 900));
      link.resume();
    }
  }

  /** Grants little credit. */
  async #isStingy(open: () => Promise<Awaited<ReturnType<MuxLinks["subscribe"]>>>): Promise<void> {
    await this.#stays(async () => {
      const link = await open();
      const grant = async () => {
        while (!link.isOver && !this.#isEnding) {
          await delay(this.#random.between(5, 200));
          link.grant(this.#random.between(0, 60_000));
        }
      };
      void grant();
      return link;
    });
  }

  /** Is cut off in the middle of a sentence. */
  async #vanishes(open: () => Link | Promise<Link>): Promise<void> {
    while (!this.#isEnding) {
      const link = await open();
      await this.#talk(link, this.#random.between(20, 700));
      link.options.sender.endedEarly = true;
      link.vanish();
      await link.ended;
    }
  }

  /** Is cut off and comes back for the rest. */
  async #breaks(open: () => JsonLink): Promise<void> {
    while (!this.#isEnding) {
      const link = open();
      while (!link.isOver && !this.#isEnding) {
        await this.#talk(link, this.#random.between(20, 400));
        if (!link.isOver) link.break();
      }
      link.options.sender.endedEarly = true;
      link.vanish();
      await link.ended;
    }
  }

  /** Sends now and then, for so many milliseconds. */
  async #talk(link: Link, milliseconds: number): Promise<void> {
    const until = performance.now() + milliseconds;
    while (!link.isOver && !this.#isEnding && performance.now() < until) {
      for (let i = this.#random.between(1, 8); i > 0; i--) link.send(this.#random.below(400));
      await delay(this.#random.between(2, 40));
    }
  }

  /** Says good-bye to the guest and waits for its answer: then nothing is on its way any more. */
  async #lastWord(link: Link): Promise<void> {
    const { inbox, sender } = link.options;
    let askedIn = -1;
    let asked = -1;
    this.#leaving.add(link);
    const isAnswered = () => sender.results.size === 0 || sender.results.size === sender.sent;
    // What was on its way at a reset may come after it: then there is another good-bye, and another answer.
    while (!link.isOver && !(inbox.stopped === known(link) && isAnswered())) {
      const result = sender.results.get(asked) ?? "sent";
      if (link.isUp && (askedIn !== inbox.begins || result !== "sent") && link.send(0, kind.stop)) {
        askedIn = inbox.begins;
        asked = sender.sent - 1;
      }
      await link.news();
    }
    this.#leaving.delete(link);
  }

  async #endOf(link: Link): Promise<void> {
    const reason = await link.ended;
    if (!["1000", "4001", "unsubscribed"].includes(reason)) {
      this.#problems.push(`${link.options.sender.endpoint}: a client that reads ended with ${reason}`);
    }
  }

  #link(endpoint: string, query = "", loses = false): LinkOptions {
    const sender = new Sender(this.#senders.length + 1, endpoint);
    this.#senders.push(sender);
    const account = this.#accounts.get(endpoint) as Account;
    const label = `${endpoint}${query} ${sender.number}`;
    return {
      socketPath: this.#socketPath,
      path: `/ws/v1/demo/${endpoint}${query}`,
      sender,
      account,
      inbox: new Inbox(label, account, this.#problems, loses),
      problems: this.#problems,
    };
  }

  #mux(): MuxLinks {
    const links = new MuxLinks(this.#socketPath);
    this.#sockets.push(links);
    return links;
  }

  // ---- the account ----

  async #figures(): Promise<MixedFigures> {
    let endpoints = await this.#endpoints();
    const deadline = performance.now() + PATIENCE;
    while (this.#isUnsettled(endpoints) && performance.now() < deadline) {
      await delay(20);
      endpoints = await this.#endpoints();
    }
    const guest = Guest.parse(await this.#get("/api/v1/guests/demo"));
    for (const endpoint of endpoints) this.#checkSums(endpoint);
    for (const sender of this.#senders) this.#checkSender(sender);
    this.#checkTotals(endpoints, guest);
    return {
      seed: this.#options.seed,
      profile: this.#profile,
      resets: this.#guest.boots - 1,
      pauses: this.#pauses,
      guest: guest.counters,
      endpoints: Object.fromEntries(endpoints.map((each) => [each.name, this.#figuresOf(each)])),
      problems: this.#problems,
    };
  }

  #figuresOf({ name, counters }: Endpoint): EndpointFigures {
    const { received, told, unconfirmed, results, ends, connections } =
      this.#accounts.get(name) ?? new Account();
    const seen = this.#guest.seen.get(name) ?? { sent: 0, received: 0 };
    return {
      ...counters,
      connections,
      received,
      told,
      unread: unconfirmed,
      guestSent: seen.sent,
      guestReceived: seen.received,
      results: Object.fromEntries(results),
      ends: Object.fromEntries(ends),
    };
  }

  /** Something is on its way still. */
  #isUnsettled(endpoints: readonly Endpoint[]): boolean {
    const isWaiting = [...this.#links].some(
      ({ isOver, options: { sender } }) =>
        !isOver && sender.results.size > 0 && sender.results.size < sender.sent,
    );
    return isWaiting || endpoints.some((each) => sumsOf(this.#figuresOf(each), each.name).length > 0);
  }

  #checkSums(endpoint: Endpoint): void {
    for (const problem of sumsOf(this.#figuresOf(endpoint), endpoint.name)) {
      this.#problems.push(`${endpoint.name}: ${problem}`);
    }
  }

  /** Every message of a client is where its result says. */
  #checkSender({ number, endpoint, sent, results, endedEarly }: Sender): void {
    const heard = this.#guest.heard.get(number) ?? [];
    const problem = (what: string) => this.#problems.push(`sender ${number} of ${endpoint}: ${what}`);
    const disorder = heard.findIndex((each, i) => i > 0 && each <= (heard[i - 1] ?? -1));
    if (disorder !== -1) problem(`the guest got ${heard[disorder]} after ${heard[disorder - 1]}`);
    if (results.size === 0) {
      // Without ids: a beginning, without a gap.
      if (heard.some((each, i) => each !== i)) problem(`the guest got ${heard.length} messages with gaps`);
      return;
    }
    const there = new Set(heard);
    for (const [message, result] of results) {
      if (result === "sent" && !there.has(message) && !endedEarly) problem(`message ${message} is missing`);
      if (result !== "sent" && there.has(message)) problem(`message ${message} was ${result}, and came`);
    }
    if (endedEarly) return;
    for (const message of heard) if (!results.has(message)) problem(`message ${message} has no result`);
    if (sent < heard.length) problem(`the guest got ${heard.length} messages of ${sent}`);
  }

  #checkTotals(endpoints: readonly Endpoint[], { counters, generation }: Guest): void {
    const sum = (key: keyof EndpointCounters) =>
      endpoints.reduce((total, each) => total + each.counters[key], 0);
    if (generation !== this.#guest.boots)
      this.#problems.push(`generation ${generation}, boot ${this.#guest.boots}`);
    // And the announcements, which are messages, too.
    const fromGuest = counters.messagesFromGuest - sum("messagesFromGuest");
    if (fromGuest !== generation * Object.keys(announced).length) {
      this.#problems.push(
        `${fromGuest} messages of the guest belong to no endpoint, in ${generation} generations`,
      );
    }
    const toGuest = counters.messagesToGuest - sum("messagesToGuest");
    if (toGuest > generation || toGuest < 1) {
      this.#problems.push(
        `${toGuest} messages to the guest belong to no endpoint, in ${generation} generations`,
      );
    }
    // Each reset may leave what the bridge has not taken in the ring, of at most 256 buffers.
    const guestSent = [...this.#guest.seen.values()].reduce((total, { sent }) => total + sent, 0);
    const left = guestSent - sum("messagesFromGuest") - counters.unknownAddress;
    // The guest introduces itself to the service of the host, which no service of ours has counted.
    if (left < -generation || left > 256 * (generation - 1))
      this.#problems.push(`${left} messages were left with the guest`);
  }

  async #endpoints(): Promise<Endpoint[]> {
    return EndpointList.parse(await this.#get("/api/v1/endpoints")).endpoints;
  }

  #get(path: string): Promise<unknown> {
    return new Promise((resolve, reject) => {
      get({ socketPath: this.#socketPath, path, headers: { host: "localhost" } }, (response) => {
        jsonOf(response).then(resolve, reject);
      }).on("error", reject);
    });
  }
}

/** How many messages of a client the guest must have got, as far as the client knows. */
function known({ options: { sender } }: Link): number {
  if (sender.results.size === 0) return sender.sent;
  let sent = 0;
  for (const result of sender.results.values()) if (result === "sent") sent++;
  return sent;
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
