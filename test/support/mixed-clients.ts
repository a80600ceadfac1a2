import { setTimeout as delay } from "node:timers/promises";
import { kind } from "./mixed-guest.ts";
import { Account, Inbox, Sender } from "./mixed-inbox.ts";
import type { Link, LinkOptions } from "./mixed-links.ts";
import { JsonLink, RawLink } from "./mixed-links.ts";
import type { MuxLink } from "./mixed-mux.ts";
import { MuxLinks } from "./mixed-mux.ts";
import type { Random } from "./random.ts";
import type { Rest } from "./rest.ts";

/** All clients of a mixed run: what they speak, and how they behave. */
export class MixedClients {
  readonly accounts: ReadonlyMap<string, Account>;
  readonly senders: Sender[] = [];
  /** Those that are there to the end. */
  readonly links = new Set<Link>();
  /** Those that wait for the guest's last word. */
  readonly leaving = new Set<Link>();
  readonly #socketPath: string;
  readonly #random: Random;
  readonly #problems: string[];
  readonly #rest: Rest;
  readonly #sockets: MuxLinks[] = [];
  #isEnding = false;
  /** Clients that have yet to end. */
  #busy = 0;
  #done: Promise<unknown> = Promise.resolve();

  constructor(
    endpoints: readonly string[],
    socketPath: string,
    random: Random,
    problems: string[],
    rest: Rest,
  ) {
    this.accounts = new Map(endpoints.map((name) => [name, new Account()]));
    this.#socketPath = socketPath;
    this.#random = random;
    this.#problems = problems;
    this.#rest = rest;
  }

  start(): void {
    this.#done = Promise.all(
      this.#all().map(async (client) => {
        this.#busy++;
        await client();
        this.#busy--;
      }),
    );
  }

  /**
   * Ends them: those that leave do, the others send no more, and read all that there is.
   * @param patience milliseconds that it may take
   * @returns how many have not come to an end
   */
  async end(patience: number): Promise<number> {
    this.#isEnding = true;
    await Promise.race([this.#done, delay(patience, undefined, { ref: false })]);
    for (const link of this.links) {
      link.resume();
      link.grant(2 ** 30);
    }
    return this.#busy;
  }

  close(): void {
    for (const link of this.links) link.vanish();
    for (const { socket } of this.#sockets) socket.terminate();
  }

  #all(): (() => Promise<void>)[] {
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
      let own = this.#mux();
      const ownMux = () => {
        if (own.isOver) own = this.#mux();
        return own.subscribe(this.#link("slow", query));
      };
      add(1, () => this.#dawdles(ownMux));
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
      this.links.add(link);
      await this.#talk(link, Number.POSITIVE_INFINITY);
      if (!link.isOver) continue;
      this.links.delete(link);
      if ((await link.ended) !== "4001") link.options.sender.endedEarly = true;
    }
  }

  /** Has the endpoint for itself, until another one takes it. */
  async #takesOver(open: () => Link | Promise<Link>): Promise<void> {
    while (!this.#isEnding) {
      await delay(this.#random.between(50, 400));
      await this.#rest.over;
      const link = await open();
      this.links.add(link);
      await this.#talk(link, Number.POSITIVE_INFINITY);
      if (!link.isOver) continue;
      this.links.delete(link);
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
      await this.#rest.over;
      link.pause();
      await delay(this.#random.between(5, 900));
      link.resume();
    }
  }

  /** Grants little credit. */
  async #isStingy(open: () => Promise<MuxLink>): Promise<void> {
    await this.#stays(async () => {
      const link = await open();
      const grant = async () => {
        while (!link.isOver && !this.#isEnding) {
          await delay(this.#random.between(5, 200));
          link.grant(this.#random.between(0, 20_000));
        }
      };
      void grant();
      return link;
    });
  }

  /** Is cut off in the middle of a sentence. On a busy machine the first ones hear something before. */
  async #vanishes(open: () => Link | Promise<Link>): Promise<void> {
    while (!this.#isEnding) {
      const link = await open();
      do await this.#talk(link, this.#random.between(20, 700));
      while (!link.isOver && !this.#isEnding && link.options.account.received === 0);
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
    await this.#rest.over;
    const until = performance.now() + milliseconds;
    while (!link.isOver && !this.#isEnding && performance.now() < until) {
      for (let i = this.#random.between(1, 8); i > 0; i--) link.send(this.#random.below(400));
      await delay(this.#random.between(2, 40));
      await this.#rest.over;
    }
  }

  /** Says good-bye to the guest and waits for its answer: then nothing is on its way any more. */
  async #lastWord(link: Link): Promise<void> {
    const { inbox, sender } = link.options;
    let askedIn = -1;
    let asked = -1;
    this.leaving.add(link);
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
    this.leaving.delete(link);
  }

  async #endOf(link: Link): Promise<void> {
    const reason = await link.ended;
    if (!["1000", "4001", "unsubscribed"].includes(reason)) {
      this.#problems.push(`${link.options.sender.endpoint}: a client that reads ended with ${reason}`);
    }
  }

  #link(endpoint: string, query = "", loses = false): LinkOptions {
    const sender = new Sender(this.senders.length + 1, endpoint);
    this.senders.push(sender);
    const account = this.accounts.get(endpoint) as Account;
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
}

/** How many messages of a client the guest must have got, as far as the client knows. */
export function known({ options: { sender } }: Link): number {
  if (sender.results.size === 0) return sender.sent;
  let sent = 0;
  for (const result of sender.results.values()) if (result === "sent") sent++;
  return sent;
}
