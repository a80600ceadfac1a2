import { randomUUID } from "node:crypto";
import { rmSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import type { Logger } from "pino";
import type { Config, Endpoint, EndpointDeclaration, Guest, Limits } from "../schemas/index.ts";
import { Admission } from "./access/admission.ts";
import { Gate } from "./access/gate.ts";
import { checkAccess } from "./access/origin.ts";
import { Peers } from "./access/peer.ts";
import { guestUnknown } from "./access/view.ts";
import { BurstLog, LineRate } from "./burst-log.ts";
import type { ChannelHost } from "./channel/channels.ts";
import { Channels, sendBounds } from "./channel/channels.ts";
import { ClientCounts } from "./client-counts.ts";
import { mostDescriptors } from "./descriptors.ts";
import { Directory } from "./directory.ts";
import type { EndpointPort, GuestTap } from "./endpoint-port.ts";
import { EventLog } from "./event-log.ts";
import type { AttachmentSnapshot, GuestEvents } from "./guests/attachment.ts";
import { Attachment } from "./guests/attachment.ts";
import type { GuestCounts } from "./guests/guest-counts.ts";
import type { EmulatedGuest } from "./guests/open-guest.ts";
import { openGuest } from "./guests/open-guest.ts";
import { toProblem } from "./guests/rpmsg-problem.ts";
import { inheritLink } from "./guests/vhost-user-snapshot.ts";
import type { BridgeState, Inheritance } from "./hand-over/bridge-state.ts";
import { Log } from "./log.ts";
import { MemoryBudget } from "./memory-budget.ts";
import { HttpProblem } from "./problem.ts";
import { refuse } from "./refuse.ts";

/** How much of the drain's time clients get to close. */
const CLIENTS_SHARE = 0.7;

/** Milliseconds that captures have to end: so many however late it is, and no more however early. */
const LAST_WORDS = { least: 300, most: 1000 };

/** The composition root: guests on one side, channels on the other, the directory between them. */
export class Bridge implements ChannelHost {
  readonly config: Config;
  /** Tells this bridge from others, and from itself after a restart; a successor has that of its predecessor. */
  readonly instance: string;
  readonly directory = new Directory();
  readonly events: EventLog;
  readonly counts = new ClientCounts();
  readonly channels: Channels;
  /** Those that run: each is ended with the bridge, and at a hand-over. */
  readonly captures = new Set<{ end(): Promise<void>; cut(): void }>();
  /** Of the bytes that wait for all guests. */
  readonly guestBudget: MemoryBudget;
  /** Who requests are from, and who is let in. */
  readonly peers: Peers;
  readonly gate: Gate;
  readonly admission: Admission;
  readonly log: BurstLog;
  readonly #log: Log;
  readonly #lines: LineRate;
  readonly #emulated: ReadonlyMap<string, EmulatedGuest>;
  readonly #guests = new Map<string, Attachment>();
  readonly #inheritance: Inheritance | undefined;
  /** Sockets of the other bridge's guests that this one has not. */
  readonly #abandoned: string[] = [];
  #standsStill = false;
  #state: "new" | "ready" | "suspended" | "draining" | "closed" = "new";

  /**
   * @param emulated guests of the configuration that the caller has made, by name
   * @param inheritance what another bridge left
   */
  constructor(
    config: Config,
    log: Logger,
    emulated: ReadonlyMap<string, EmulatedGuest> = new Map(),
    inheritance?: Inheritance,
  ) {
    this.config = config;
    this.instance = inheritance?.state.instance ?? randomUUID();
    this.events = new EventLog(this.instance);
    this.#inheritance = inheritance;
    this.channels = new Channels(this);
    this.guestBudget = new MemoryBudget(config.limits.guestBytes, () => this.counts.limits.add("guestBytes"));
    this.peers = new Peers(config);
    this.gate = new Gate(config, inheritance?.state.gate, Date.now, () =>
      this.counts.limits.add("connectionsPerToken"),
    );
    this.#log = new Log(log);
    this.#lines = new LineRate(config.limits.logRate, this.counts.limits);
    this.log = new BurstLog(this.#log, this.#lines);
    this.admission = new Admission(this.peers, config.limits, this.counts.limits, () =>
      this.log.write("descriptors-short", { most: mostDescriptors }),
    );
    this.#emulated = emulated;
  }

  get limits(): Limits {
    return this.config.limits;
  }

  get ready(): boolean {
    return this.#state === "ready";
  }

  /**
   * Starts every guest of the configuration. What another bridge left stands still until `resume`.
   * @throws ConfigError, SystemError
   */
  async start(): Promise<void> {
    const events = this.#guestEvents();
    const inherited = this.#inherit(events);
    for (const [name, config] of Object.entries(this.config.guests)) {
      const left = inherited.get(name);
      inherited.delete(name);
      const attachment = left?.attachment ?? this.#makeAttachment(name, events);
      const take = this.#inheritance?.take.bind(this.#inheritance);
      const link = left && take && inheritLink(left.snapshot.link, config, take);
      if (left !== undefined && link?.goesOn !== true) {
        this.#log.forGuest(name).write("guest-not-inherited", {});
        if (link === undefined) this.#abandon(left.snapshot);
      }
      await openGuest(attachment, config, this.#emulated.get(name), link);
      this.#guests.set(name, attachment);
      // One that is handed over is what it was.
      if (link?.goesOn !== true) this.events.publish("guest", attachment.describe(), { guest: name });
    }
    for (const [name, { attachment, snapshot }] of inherited) {
      this.#log.forGuest(name).write("guest-released", {});
      this.#abandon(snapshot);
      this.#guests.delete(name);
      attachment.release();
    }
    this.channels.start();
    if (this.#inheritance === undefined) this.#state = "ready";
  }

  // ---- hand-over ----

  /** Sends all clients away, to come back to whoever goes on; at most `timeout` milliseconds. */
  async suspend(timeout: number): Promise<void> {
    this.#state = "suspended";
    this.events.end();
    await Promise.all([this.channels.restart(timeout), this.#endCaptures(timeout)]);
  }

  /** Between `pause` and `resume`: what is asked for now is not part of what is handed over. */
  get standsStill(): boolean {
    return this.#standsStill;
  }

  /** Every guest stands still, unnoticed. */
  pause(): void {
    this.#standsStill = true;
    for (const guest of this.#guests.values()) guest.pause();
  }

  /** Goes on, after `suspend` and `pause`, or after the bridge whose state this one has. */
  resume(): void {
    this.#standsStill = false;
    for (const guest of this.#guests.values()) guest.resume();
    this.channels.resume();
    for (const path of this.#abandoned.splice(0)) rmSync(path, { force: true });
    this.#state = "ready";
  }

  /** Everything that another process needs to go on; all clients are away, and all guests stand still. */
  snapshot(): BridgeState {
    const { directory } = this;
    // First: they ask for what the guests may not have read of them.
    const sessions = this.channels.snapshot();
    return {
      instance: this.instance,
      gate: this.gate.snapshot(),
      events: this.events.snapshot(),
      nextEndpoint: directory.next,
      guests: [...this.#guests.values()].map((attachment) => ({
        attachment: attachment.snapshot(),
        entries: attachment.endpoints.list.map((endpoint) => directory.snapshot(endpoint)),
      })),
      sessions,
    };
  }

  /** The guests, endpoints and sessions of another bridge, by the guest's name. */
  #inherit(
    events: GuestEvents,
  ): Map<string, { readonly attachment: Attachment; readonly snapshot: AttachmentSnapshot }> {
    const { state } = this.#inheritance ?? {};
    if (state === undefined) return new Map();
    const bounds = sendBounds(this.limits);
    const guests = state.guests.map(({ attachment: snapshot, entries }) => {
      const attachment = this.#makeAttachment(snapshot.name, events);
      const endpoints = attachment.restore(snapshot, bounds);
      this.#guests.set(snapshot.name, attachment);
      return { attachment, snapshot, listed: endpoints.map((each, i) => [each, entries[i]] as const) };
    });
    this.directory.restore(
      state.nextEndpoint,
      guests.flatMap(({ listed }) =>
        listed.flatMap(([endpoint, entry]) => (entry === undefined ? [] : [[endpoint, entry] as const])),
      ),
    );
    this.events.restore(state.events);
    this.channels.restore(state.sessions, (id) => this.directory.byId(id));
    return new Map(guests.map(({ attachment, snapshot }) => [snapshot.name, { attachment, snapshot }]));
  }

  /** Nobody listens on the guest's socket any more: its file goes when everything is ours. */
  #abandon({ link }: AttachmentSnapshot): void {
    const isUsed = Object.values(this.config.guests).some((each) => each.path === link?.path);
    if (link?.mode === "listen" && !isUsed) this.#abandoned.push(link.path);
  }

  #makeAttachment(name: string, events: GuestEvents): Attachment {
    const log = new BurstLog(this.#log.forGuest(name), this.#lines);
    const { limits, guestBudget: budget } = this;
    return new Attachment(name, { limits, counters: this.counts.limits, budget }, log, events);
  }

  guests(): Guest[] {
    return [...this.#guests.values()].map((guest) => guest.describe());
  }

  /** What is counted of each guest besides what its description has. */
  guestCounts(): { guest: string; counts: GuestCounts; waiting: { messages: number; bytes: number } }[] {
    return [...this.#guests.values()].map(({ name, counts, device }) => ({
      guest: name,
      counts,
      waiting: { messages: device.pending, bytes: device.pendingBytes },
    }));
  }

  /** @throws HttpProblem guest-unknown */
  guest(name: string): Guest {
    return this.#guest(name).describe();
  }

  /** @throws HttpProblem guest-unknown */
  isAttached(guest: string): boolean {
    return this.#guest(guest).state === "attached";
  }

  /**
   * Adds an endpoint of the host.
   * @throws HttpProblem
   */
  declare(guest: string, declaration: EndpointDeclaration): EndpointPort {
    const attachment = this.#guest(guest);
    try {
      return attachment.endpoints.declare(declaration);
    } catch (error) {
      throw toProblem(error);
    }
  }

  announce(guest: string, name: string, address: number | undefined): EndpointPort {
    return this.declare(guest, { name, ns: "down", ...(address !== undefined && { address }) });
  }

  /** @throws HttpProblem endpoint-of-guest */
  withdraw(endpoint: EndpointPort): void {
    if (this.#guest(endpoint.guest).endpoints.withdraw(endpoint)) return;
    // A service whose client goes twice is gone already.
    if (this.directory.has(endpoint)) {
      throw new HttpProblem("endpoint-of-guest", "the guest announced it: only the guest withdraws it");
    }
  }

  /**
   * Shows what goes through a guest's rings.
   * @returns ends it
   * @throws HttpProblem guest-unknown
   */
  tap(guest: string, tap: GuestTap): () => void {
    return this.#guest(guest).taps.add(tap);
  }

  describe(endpoint: EndpointPort): Endpoint {
    return this.directory.describe(endpoint);
  }

  /** Logs a mistake of the bridge itself. */
  report(error: unknown): void {
    const { message, stack = "" } = error instanceof Error ? error : new Error(String(error));
    this.log.write("internal-error", { reason: message, stack });
  }

  /**
   * Takes an upgrade of the HTTP server: a WebSocket, or an error before the upgrade.
   * @param stream somebody listens to its errors
   */
  upgrade(request: IncomingMessage, stream: Duplex, head: Buffer): void {
    const peer = this.peers.of(request);
    try {
      this.admission.upgrade(request, peer);
      checkAccess(request, this.config, peer);
      const permit = this.gate.admit(request.headers);
      if (!this.ready) throw new HttpProblem("draining", "the bridge is stopping");
      this.admission.stay(request.socket, peer, permit.name);
      const messageRate = this.admission.isExempt(peer) ? undefined : this.limits.messageRate;
      this.channels.upgrade(request, stream, head, permit, peer.address, messageRate);
    } catch (error) {
      if (!(error instanceof HttpProblem)) this.report(error);
      const problem =
        error instanceof HttpProblem ? error : new HttpProblem("internal", "the upgrade failed");
      this.counts.rejected.upgrade.add(problem.code);
      // Not why in words: those may repeat what the client has sent, such as a token among its subprotocols.
      const { code } = problem;
      const [path = ""] = (request.url ?? "").split("?");
      this.log.write("upgrade-refused", { code, peer: peer.address, path });
      refuse(stream, problem, this);
    }
  }

  /**
   * Ends in good order: no new channels, clients told, what they have sent delivered, then the guests stopped. After
   * the configured time what is left is cut off.
   */
  async drain(): Promise<void> {
    if (this.#state === "draining" || this.#state === "closed") return;
    this.#state = "draining";
    const { drainTimeout } = this.config.limits;
    const deadline = performance.now() + drainTimeout;
    const left = await this.channels.drain(drainTimeout * CLIENTS_SHARE);
    const guests = [...this.#guests.values()];
    const given = await Promise.all(guests.map((guest) => guest.drained(deadline - performance.now())));
    if (left || given.includes(false)) this.counts.limits.add("drainTimeout");
    // Last: they show what the others did.
    await this.#endCaptures(Math.max(deadline - performance.now(), LAST_WORDS.least));
    this.close();
  }

  /** Ends at once. */
  close(): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.channels.close();
    for (const guest of this.#guests.values()) guest.close();
  }

  /** Gives those who capture the rest, as far as they take it in time; nobody waits for one who reads nothing. */
  async #endCaptures(timeout: number): Promise<void> {
    if (this.captures.size === 0) return;
    const late = new Set(this.captures);
    const ends = [...late].map(async (each) => {
      await each.end();
      late.delete(each);
    });
    let timer: NodeJS.Timeout | undefined;
    const over = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, Math.min(timeout, LAST_WORDS.most));
    });
    await Promise.race([Promise.all(ends), over]);
    clearTimeout(timer);
    for (const each of late) each.cut();
  }

  #guest(name: string): Attachment {
    const guest = this.#guests.get(name);
    if (guest === undefined) throw guestUnknown(name);
    return guest;
  }

  /** What guests tell goes to the directory, to those who watch, and to channels that wait for it. */
  #guestEvents(): GuestEvents {
    const { directory, events, channels } = this;
    return {
      onAdded: (endpoint) => {
        directory.add(endpoint);
        events.publish("endpoint", directory.describe(endpoint), endpoint);
        channels.changed(endpoint.guest, endpoint.name);
      },
      onChanged: (endpoint) => {
        if (!directory.has(endpoint)) return;
        events.endpointChanged(endpoint, () => directory.describe(endpoint));
        if (endpoint.clients === 0) channels.changed(endpoint.guest, endpoint.name);
      },
      onRemoved: (endpoint) => {
        const { id, guest, name, generation } = directory.describe(endpoint);
        directory.remove(endpoint);
        events.forget(endpoint);
        events.publish("endpoint-removed", { id, guest, name, generation }, endpoint);
      },
      onGuest: (guest) => {
        // Not before it is one of ours.
        if (this.#guests.get(guest.name) !== guest) return;
        events.flush();
        events.publish("guest", guest.describe(), { guest: guest.name });
        if (guest.state === "attached") channels.changed(guest.name);
      },
    };
  }
}
