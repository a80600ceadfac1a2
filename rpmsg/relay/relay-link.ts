import type { Poller } from "../posix/poller.ts";
import { VhostUserFrontend } from "../vhost-user/frontend.ts";
import type { RelayRings } from "./relay-rings.ts";

export interface LinkEvents {
  /** The bridge is being told something: until `onSettled` nothing else is to happen to the guest's queues. */
  onBusy(): void;
  /** The bridge has done all that it was told. `running`: the rings that it serves. */
  onSettled(running: RelayRings | undefined): void;
  /** The bridge used buffers of this queue. */
  onCall(queue: number): void;
  onClose(error: Error | undefined): void;
}

/**
 * A relay's connection with the bridge, on which it is the frontend. What is asked of it is done one after the other:
 * each takes a few messages and their answers.
 */
export class RelayLink {
  readonly #frontend: VhostUserFrontend;
  readonly #events: LinkEvents;
  /** The rings that the bridge is to serve, and those that it serves. */
  #wanted: RelayRings | undefined;
  #running: RelayRings | undefined;
  /** The rings that it served last, and where they stood when they stopped. */
  #known: RelayRings | undefined;
  #bases: number[] = [];
  #resetWanted = false;
  #settling = false;
  /** Why we ended it. */
  #failure: Error | undefined;
  #closed = false;

  /** Takes the descriptor of a connected socket. */
  constructor(fd: number, poller: Poller, events: LinkEvents) {
    this.#events = events;
    this.#frontend = new VhostUserFrontend(
      fd,
      poller,
      { features: 0n, memory: [], vrings: [] },
      {
        onCall: (queue) => events.onCall(queue),
        onClose: (error) => {
          this.#closed = true;
          events.onClose(error ?? this.#failure);
        },
      },
    );
  }

  /** Agrees on what both sides can do. */
  open(): void {
    this.#settle(() => this.#frontend.negotiate());
  }

  /** The bridge is to serve these rings: those of before go on where they stood, others are those of a new driver. */
  run(rings: RelayRings): void {
    this.#wanted = rings;
    this.#settle();
  }

  /** The bridge is to stop; it takes what is in the request queue. */
  halt(): void {
    this.#wanted = undefined;
    this.#settle();
  }

  /** The driver is gone. */
  reset(): void {
    this.#wanted = undefined;
    this.#resetWanted = true;
    this.#settle();
  }

  kick(queue: number): void {
    this.#frontend.kick(queue);
  }

  close(): void {
    this.#frontend.close();
  }

  /** Does what is wanted, and what is wanted meanwhile. An error ends the connection. */
  #settle(first?: () => Promise<void>): void {
    if (this.#settling || this.#closed || (first === undefined && this.#isSettled)) return;
    this.#settling = true;
    this.#events.onBusy();
    this.#work(first).then(
      () => {
        this.#settling = false;
        if (this.#closed) return;
        if (this.#isSettled) this.#events.onSettled(this.#running);
        else this.#settle();
      },
      (error: Error) => {
        this.#failure = error;
        this.#frontend.close();
      },
    );
  }

  get #isSettled(): boolean {
    return this.#running === this.#wanted && !this.#resetWanted;
  }

  async #work(first?: () => Promise<void>): Promise<void> {
    await first?.();
    while (!this.#isSettled) {
      if (this.#running !== undefined) {
        this.#running = undefined;
        this.#bases = await this.#frontend.stop();
      } else if (this.#resetWanted) {
        this.#resetWanted = false;
        this.#known = undefined;
        await this.#frontend.reset();
      } else {
        const rings = this.#wanted as RelayRings;
        if (rings !== this.#known) {
          this.#frontend.change(rings.setup);
          this.#bases = [];
        }
        this.#known = rings;
        this.#running = rings;
        await this.#frontend.start(this.#bases);
      }
    }
  }
}
