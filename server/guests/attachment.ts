import type { CodedError, DeviceSnapshot, DeviceState, GuestError, SendQueue } from "../../rpmsg/index.ts";
import { RESPONSE_QUEUE, RpmsgDevice } from "../../rpmsg/index.ts";
import type { Guest, GuestState, Limits } from "../../schemas/index.ts";
import { TokenBucket } from "../access/token-bucket.ts";
import type { BurstLog } from "../burst-log.ts";
import type { CountedLimit } from "../counted-limits.ts";
import type { SendBounds } from "../endpoint-port.ts";
import type { MemoryBudget } from "../memory-budget.ts";
import { Notice } from "../notice.ts";
import type { Tally } from "../tally.ts";
import type { AttachedEndpoint } from "./attached-endpoint.ts";
import type { EndpointEvents, EndpointSetSnapshot } from "./endpoint-set.ts";
import { EndpointSet } from "./endpoint-set.ts";
import { GuestCounts } from "./guest-counts.ts";
import { GuestTaps } from "./guest-taps.ts";
import type { LinkSnapshot } from "./vhost-user-snapshot.ts";

/** What the outside is told of a guest. */
export interface GuestEvents extends EndpointEvents {
  /** The state or the generation of the guest. */
  onGuest(guest: Attachment): void;
}

/** What bounds a guest, and what it has in common with the others. */
export interface GuestBounds {
  readonly limits: Limits;
  readonly counters: Tally<CountedLimit>;
  /** Of the bytes that wait for all guests. */
  readonly budget: MemoryBudget;
}

/** What a kind of guest adds to the attachment: how the driver's rings come to the device. */
export interface GuestLink {
  readonly kind: string;
  /** A frontend is connected; false is the state `waiting`. */
  readonly connected: boolean;
  /** Names of the negotiated features, and queue sizes; null where there are none. */
  readonly features: string[] | null;
  readonly queues: { response: number; request: number } | null;
  /** Ends the link; the device is stopped and reset. */
  close(): void;
  /** Takes nothing of the frontend until `resume`. The device is paused already. */
  pause?(): void;
  resume?(): void;
  /** What another process needs to go on with it; undefined where nobody else can. */
  snapshot?(): LinkSnapshot;
}

/** What a guest leaves to another process: plain data. */
export interface AttachmentSnapshot extends EndpointSetSnapshot {
  readonly name: string;
  readonly device: DeviceSnapshot;
  readonly frontendErrors: number;
  readonly brokenElsewhere: number;
  /** Undefined where the guest is one of the process itself. */
  readonly link: LinkSnapshot | undefined;
}

/**
 * One guest: its device, the endpoints that it announced and those that the host declared, and the channels to them. A
 * reset ends every channel; what the host declared stays and is announced again.
 */
export class Attachment {
  readonly name: string;
  readonly device: RpmsgDevice;
  readonly endpoints: EndpointSet;
  readonly taps: GuestTaps;
  readonly log: BurstLog;
  readonly counts = new GuestCounts();
  /** Of the bytes that wait for all guests. */
  readonly budget: MemoryBudget;
  /** Requests and connections of the frontend that were refused. */
  frontendErrors = 0;
  /** Queues that an isolated guest broke: the device sees only the relay's. */
  #brokenElsewhere = 0;
  readonly #events: GuestEvents;
  readonly #counters: Tally<CountedLimit>;
  readonly #announcementRate: TokenBucket;
  /** The guest has announced more often than it may: its messages are left in its ring. */
  #pause: NodeJS.Timeout | undefined;
  #link: GuestLink | undefined;
  #serial = 0;
  /** Whose counters count what became of a message. */
  readonly #senders = new WeakMap<object, AttachedEndpoint>();
  /** While the guest stands still: what it may not have read, of senders that did not ask yet. */
  #unread: ReturnType<RpmsgDevice["unread"]> = new Map();
  readonly #idle = new Notice();

  constructor(name: string, { limits, counters, budget }: GuestBounds, log: BurstLog, events: GuestEvents) {
    this.name = name;
    this.log = log;
    this.#events = events;
    this.budget = budget;
    this.endpoints = new EndpointSet(this, limits.declaredEndpoints, events);
    this.#counters = counters;
    this.#announcementRate = new TokenBucket(limits.announcementRate);
    this.device = new RpmsgDevice(
      {
        onState: (state) => this.#deviceState(state),
        onReset: () => this.endpoints.reset(),
        onNameService: () => this.#slowDown(this.#announcementRate.spend()),
        onAnnounced: (announcement) => this.endpoints.announced(announcement),
        onWithdrawn: (announcement) => this.endpoints.withdrawn(announcement),
        onTold: (announcement) => this.endpoints.told(announcement),
        onPeer: (endpoint, first) => this.endpoints.peerLearned(endpoint, first),
        onIdle: () => this.#idle.give(),
        onWaited: (milliseconds) => this.counts.waits.observe(milliseconds / 1000),
        onError: (queue, error) => this.#broken(queue, error),
      },
      { maxGuestAnnouncements: limits.guestAnnouncements },
    );
    this.taps = new GuestTaps(this.device, this.endpoints.locals);
  }

  /**
   * Starts the guest. The device may be in use from within `open` on.
   * @param inherited it is what it was in another process: nobody is told
   */
  start(open: (attachment: Attachment) => GuestLink, inherited = false): void {
    this.#link = open(this);
    if (!inherited) this.stateChanged();
  }

  get state(): GuestState {
    if (this.#link?.connected !== true) return "waiting";
    return this.device.state;
  }

  describe(): Guest {
    const { counters } = this.device;
    return {
      name: this.name,
      kind: this.#link?.kind ?? "unknown",
      state: this.state,
      generation: this.device.generation,
      features: this.#link?.features ?? null,
      queues: this.#link?.queues ?? null,
      waiting: this.device.waiting ?? null,
      mtu: this.device.mtu,
      counters: {
        ...counters,
        brokenQueues: counters.brokenQueues + this.#brokenElsewhere,
        frontendErrors: this.frontendErrors,
      },
    };
  }

  /**
   * Waits until what clients have sent is with the guest, at most `timeout` milliseconds. The guest's own messages are
   * still taken, although nobody is there for them: a guest whose answers find no way out takes no messages in either.
   * @returns false where that time was too short
   */
  async drained(timeout: number): Promise<boolean> {
    if (this.device.idle) return true;
    const isThere = this.device.state === "attached";
    if (isThere && timeout > 0) await this.#idle.within(timeout);
    const { pending } = this.device;
    if (pending > 0) this.log.write("undelivered-at-stop", { messages: pending });
    return pending === 0 || !isThere;
  }

  /** The bridge has nothing to do with this guest any more: its endpoints are gone, and its channels end. */
  release(): void {
    this.device.reset();
    this.endpoints.withdrawAll();
    this.close();
  }

  close(): void {
    clearTimeout(this.#pause);
    this.#link?.close();
    this.#link = undefined;
    this.endpoints.end();
    this.device.close();
  }

  // ---- hand-over ----

  /** Stands still, unnoticed by the guest, until `resume` or for good. */
  pause(): void {
    this.device.pause();
    this.#link?.pause?.();
    this.#unread = this.device.unread();
  }

  /** Goes on: after `pause`, or where another process stopped. */
  resume(): void {
    this.#unread = new Map();
    // Whoever had it in another process did not come along.
    this.endpoints.locals.releaseUnused();
    this.device.resume();
    this.#link?.resume?.();
  }

  /** Messages of this queue that the guest may not have read; while it stands still, and once. */
  takeUnread<Ticket>(queue: SendQueue<Ticket>): { head: number; ticket: unknown }[] {
    const unread = this.#unread.get(queue) ?? [];
    this.#unread.delete(queue);
    return unread;
  }

  /** The queue's messages are counted at this endpoint. */
  sends(queue: object, endpoint: AttachedEndpoint): void {
    this.#senders.set(queue, endpoint);
  }

  /** Buffers with messages of the endpoint that the guest may not have read, and that no channel has taken. */
  unreadOf(endpoint: AttachedEndpoint): number[] {
    const unread = [...this.#unread].filter(([queue]) => this.#senders.get(queue) === endpoint);
    return unread.flatMap(([, own]) => own.map(({ head }) => head));
  }

  /** What another process needs, after the snapshots of the channels; the guest stands still. */
  snapshot(): AttachmentSnapshot {
    return {
      name: this.name,
      frontendErrors: this.frontendErrors,
      brokenElsewhere: this.#brokenElsewhere,
      device: this.device.snapshot(),
      ...this.endpoints.snapshot(),
      link: this.#link?.snapshot?.(),
    };
  }

  /**
   * Goes on as the guest that the snapshot is of: called on a new one, before it is started.
   * @returns the endpoints, in the snapshot's order
   */
  restore(snapshot: AttachmentSnapshot, bounds: SendBounds): AttachedEndpoint[] {
    this.frontendErrors = snapshot.frontendErrors;
    this.#brokenElsewhere = snapshot.brokenElsewhere;
    return this.endpoints.restore(snapshot, snapshot.device, bounds);
  }

  /** The link is connected, or not any more. */
  stateChanged(): void {
    this.#events.onGuest(this);
    for (const endpoint of this.endpoints.list) endpoint.changed();
  }

  /** The guest broke a queue in the process that has its memory. */
  queueBroken(queue: number, code: GuestError["code"], reason: string, count: number): void {
    this.#brokenElsewhere += count;
    this.#reportBroken(queue, code, reason, count);
  }

  /** Number of the guest's message that is passed on next. */
  nextSerial(): number {
    return ++this.#serial;
  }

  /** Requests or connections of the frontend were refused. */
  frontendRefused(code: CodedError["code"] | "internal", count = 1): void {
    this.frontendErrors += count;
    this.counts.rejected.frontend.add(code, count);
  }

  /** Leaves the guest's messages in its ring for so many milliseconds: nothing is lost, and nobody else waits. */
  #slowDown(wait: number): void {
    if (wait === 0 || this.#pause !== undefined) return;
    this.#counters.add("announcementRate");
    this.device.hold();
    this.#pause = setTimeout(() => {
      this.#pause = undefined;
      this.device.release();
    }, wait).unref();
  }

  #deviceState(state: DeviceState): void {
    this.log.write("guest-state", { state, generation: this.device.generation });
    if (state === "attached" && this.device.nameService === false) {
      const { announcing } = this.endpoints;
      if (announcing > 0) this.log.write("name-service-off", { endpoints: announcing });
    }
    this.stateChanged();
  }

  #broken(queue: number, error: GuestError): void {
    this.#reportBroken(queue, error.code, error.message, 1);
  }

  #reportBroken(queue: number, code: GuestError["code"], reason: string, count: number): void {
    const name = queue === RESPONSE_QUEUE ? "response" : "request";
    this.counts.rejected.queue.add(code, count);
    this.log.write("queue-broken", { queue: name, code, reason });
  }
}
