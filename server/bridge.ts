import { randomUUID } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import type { Logger } from "pino";
import type { Config, Endpoint, EndpointDeclaration, Guest, Limits, Origin } from "../schemas/index.ts";
import { Gate } from "./access/gate.ts";
import { checkAccess } from "./access/origin.ts";
import { Peers } from "./access/peer.ts";
import { guestUnknown } from "./access/view.ts";
import { BurstLog } from "./burst-log.ts";
import type { ChannelHost } from "./channel/channels.ts";
import { Channels } from "./channel/channels.ts";
import { refuse } from "./channel/upgrade.ts";
import { ClientCounts } from "./client-counts.ts";
import { Directory, displayName } from "./directory.ts";
import type { EndpointPort } from "./endpoint-port.ts";
import { EventLog } from "./event-log.ts";
import type { Attachment, GuestEvents } from "./guests/attachment.ts";
import type { GuestCounts } from "./guests/guest-counts.ts";
import type { EmulatedGuest } from "./guests/open-guest.ts";
import { openGuest } from "./guests/open-guest.ts";
import { toProblem } from "./guests/rpmsg-problem.ts";
import { HttpProblem } from "./problem.ts";

/** How much of the drain's time clients get to close. */
const CLIENTS_SHARE = 0.7;

/** The composition root: guests on one side, channels on the other, the directory between them. */
export class Bridge implements ChannelHost {
  readonly config: Config;
  /** Tells this bridge from others, and from itself after a restart. */
  readonly instance = randomUUID();
  readonly directory = new Directory();
  readonly events = new EventLog(this.instance);
  readonly counts = new ClientCounts();
  readonly channels = new Channels(this);
  /** Who requests are from. */
  readonly peers: Peers;
  readonly gate: Gate;
  readonly #log: Logger;
  readonly #emulated: ReadonlyMap<string, EmulatedGuest>;
  readonly #guests = new Map<string, Attachment>();
  #state: "new" | "ready" | "draining" | "closed" = "new";

  /** @param emulated guests of the configuration that the caller has made, by name */
  constructor(config: Config, log: Logger, emulated: ReadonlyMap<string, EmulatedGuest> = new Map()) {
    this.config = config;
    this.peers = new Peers(config);
    this.gate = new Gate(config);
    this.#log = log;
    this.#emulated = emulated;
  }

  get limits(): Limits {
    return this.config.limits;
  }

  get ready(): boolean {
    return this.#state === "ready";
  }

  /**
   * Starts every guest of the configuration.
   * @throws ConfigError, SystemError
   */
  async start(): Promise<void> {
    const events = this.#guestEvents();
    for (const [name, config] of Object.entries(this.config.guests)) {
      const log = new BurstLog(this.#log.child({ guest: name }));
      const emulated = this.#emulated.get(name);
      const opened = await openGuest(name, config, this.config.limits, log, events, emulated);
      this.#guests.set(name, opened);
      this.events.publish("guest", opened.describe(), { guest: name });
    }
    this.channels.start();
    this.#state = "ready";
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
   * The endpoint of a guest with this id.
   * @throws HttpProblem guest-unknown, endpoint-unknown
   */
  endpoint(guest: string, id: string): EndpointPort {
    this.#guest(guest);
    const endpoint = this.directory.find(guest, { id });
    if (endpoint === undefined) {
      throw new HttpProblem("endpoint-unknown", `guest "${guest}" has no endpoint with the id "${id}"`);
    }
    return endpoint;
  }

  /**
   * Adds an endpoint of the host.
   * @throws HttpProblem
   */
  declare(guest: string, declaration: EndpointDeclaration): EndpointPort {
    const attachment = this.#guest(guest);
    try {
      return attachment.declare(declaration);
    } catch (error) {
      throw toProblem(error);
    }
  }

  announce(guest: string, name: string, address: number | undefined): EndpointPort {
    return this.declare(guest, { name, ns: "down", ...(address !== undefined && { address }) });
  }

  /** @throws HttpProblem endpoint-of-guest */
  withdraw(endpoint: EndpointPort): void {
    if (this.#guest(endpoint.guest).withdraw(endpoint)) return;
    // A service whose client goes twice is gone already.
    if (this.directory.has(endpoint)) {
      throw new HttpProblem("endpoint-of-guest", "the guest announced it: only the guest withdraws it");
    }
  }

  describe(endpoint: EndpointPort): Endpoint {
    return this.directory.describe(endpoint);
  }

  /** Descriptions of endpoints: what is given must be equal. `after` is an id. */
  list(
    where: { guest?: string | undefined; name?: string | undefined; origin?: Origin | undefined },
    limit?: number,
    after?: string,
  ): { endpoints: Endpoint[]; next: string | null } {
    const { guest, name, origin } = where;
    return this.directory.list(
      (port) =>
        (guest === undefined || port.guest === guest) &&
        (origin === undefined || port.origin === origin) &&
        (name === undefined || displayName(port.name) === name),
      limit,
      after,
    );
  }

  /** Logs a mistake of the bridge itself. */
  report(error: unknown): void {
    this.#log.error({ event: "internal-error", err: error });
  }

  /** Takes an upgrade of the HTTP server: a WebSocket, or an error before the upgrade. */
  upgrade(request: IncomingMessage, stream: Duplex, head: Buffer): void {
    stream.on("error", () => stream.destroy());
    try {
      checkAccess(request.headers, this.config, this.peers.of(request));
      const permit = this.gate.admit(request.headers);
      if (!this.ready) throw new HttpProblem("draining", "the bridge is stopping");
      this.channels.upgrade(request, stream, head, permit);
    } catch (error) {
      if (!(error instanceof HttpProblem)) this.report(error);
      const problem =
        error instanceof HttpProblem ? error : new HttpProblem("internal", "the upgrade failed");
      this.counts.rejected.upgrade.add(problem.code);
      refuse(stream, problem);
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
    await this.channels.drain(drainTimeout * CLIENTS_SHARE);
    await Promise.all([...this.#guests.values()].map((guest) => guest.drained(deadline - performance.now())));
    this.close();
  }

  /** Ends at once. */
  close(): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.channels.close();
    for (const guest of this.#guests.values()) guest.close();
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
