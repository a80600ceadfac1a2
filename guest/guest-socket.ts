import { openTransport, Poller } from "../rpmsg/index.ts";
import type { EmulatedGuest, GuestControl } from "./emulated-guest.ts";
import { VhostUserGuest } from "./vhost-user-guest.ts";

export interface SocketEvents {
  /** The guest is attached: called for every connection. */
  onAttached?: () => void;
  /** A connection could not be had, or ended in disorder. Default: a warning of the process. */
  onError?: (error: Error) => void;
}

/** A guest behind a vhost-user socket. */
export interface GuestConnection {
  /**
   * Done when the guest is attached: now, or the next time.
   * @throws Error it was closed before
   */
  attached(): Promise<void>;
  /** Ends it for good; the guest is gone for the bridge. */
  close(): void;
}

/** Runs a guest behind a vhost-user socket; it boots anew whenever it is connected. */
export class GuestSocket implements GuestConnection, GuestControl {
  readonly #guest: EmulatedGuest;
  readonly #poller: Poller;
  readonly #transport: { close(): void };
  readonly #events: SocketEvents;
  #vm: VhostUserGuest | undefined;
  #attached = false;
  #closed = false;
  readonly #waiting: { resolve: () => void; reject: (error: Error) => void }[] = [];

  /** @throws Error the guest is in use, or there is no vhost-user here; SystemError socket: it cannot listen there */
  constructor(guest: EmulatedGuest, mode: "connect" | "listen", path: string, events: SocketEvents = {}) {
    this.#guest = guest;
    this.#events = events;
    guest.use(this);
    try {
      this.#poller = new Poller({ onError: (error) => this.#fail(error) });
      this.#transport = openTransport(
        mode,
        path,
        this.#poller,
        (fd, closed) => this.#serve(fd, closed),
        (error) => this.#fail(error),
      );
    } catch (error) {
      guest.release(this);
      throw error;
    }
  }

  attached(): Promise<void> {
    if (this.#attached) return Promise.resolve();
    if (this.#closed) return Promise.reject(new Error("the connection is closed"));
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  reboot(): Promise<void> {
    return this.#running.reboot();
  }

  pause(): Promise<void> {
    return this.#running.pause();
  }

  resume(): Promise<void> {
    return this.#running.resume();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#transport.close();
    this.#attached = false;
    this.#guest.release(this);
    for (const { reject } of this.#waiting.splice(0))
      reject(new Error("closed before the guest was attached"));
  }

  get #running(): VhostUserGuest {
    if (this.#vm === undefined || !this.#attached) throw new Error("the guest is not attached");
    return this.#vm;
  }

  #serve(fd: number, closed: () => void): VhostUserGuest {
    const vm = new VhostUserGuest(this.#guest, fd, this.#poller, (error) => {
      this.#vm = undefined;
      this.#attached = false;
      if (error !== undefined) this.#fail(error);
      closed();
    });
    this.#vm = vm;
    vm.attach().then(
      () => {
        // It may have ended at once.
        if (this.#vm !== vm) return;
        this.#attached = true;
        this.#events.onAttached?.();
        for (const { resolve } of this.#waiting.splice(0)) resolve();
      },
      (error: unknown) => {
        if (!this.#closed) this.#fail(error);
        vm.close();
      },
    );
    return vm;
  }

  #fail(reason: unknown): void {
    const error = reason instanceof Error ? reason : new Error(String(reason));
    if (this.#events.onError === undefined) process.emitWarning(error);
    else this.#events.onError(error);
  }
}
