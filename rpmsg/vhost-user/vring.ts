import type { DirtyLog } from "../memory/dirty-log.ts";
import type { GuestMemory } from "../memory/guest-memory.ts";
import { setNonblocking, signalEventfd } from "../posix/eventfd.ts";
import type { Poller } from "../posix/poller.ts";
import { closeFd } from "../posix/unix-socket.ts";
import { DeviceQueue } from "../virtqueue/device-queue.ts";
import type { InflightRegion } from "../virtqueue/inflight.ts";
import type { RingAddresses } from "../virtqueue/layout.ts";
import { ringSizes } from "../virtqueue/layout.ts";

/** For a hand-over: plain data, with descriptors of the process that gives it. */
export interface VringSnapshot {
  readonly size: number;
  readonly addresses: RingAddresses | undefined;
  readonly logAddress: number | undefined;
  /** Where the queue stands, also while it runs. */
  readonly base: number;
  readonly started: boolean;
  readonly enabled: boolean;
  readonly changing: boolean;
  readonly kicked: boolean;
  /** There is no kick descriptor: the ring is polled. */
  readonly polled: boolean;
  readonly kick: number | undefined;
  readonly call: number | undefined;
  readonly error: number | undefined;
}

/** Milliseconds between looks at a ring whose frontend passed no kick descriptor. */
const POLL_INTERVAL = 2;

/**
 * The vhost-user state of one queue. "Started" and "enabled" are independent: SET_VRING_KICK starts a ring,
 * GET_VRING_BASE stops it, SET_VRING_ENABLE enables and disables it (vhost-user.rst, "Ring states").
 */
export class Vring {
  size = 0;
  addresses: RingAddresses | undefined;
  /** What the used ring is logged as: a guest address, which need not be in memory; undefined: it is not logged. */
  logAddress: number | undefined;
  /** Next entry of the available ring to take: for us only a number that the frontend keeps. */
  base = 0;
  started = false;
  enabled = false;
  /** Its size, addresses or base were changed while it ran. */
  changing = false;
  /** A kick came while the device did not run. */
  kicked = false;
  /** The queue while the device runs. */
  queue: DeviceQueue | undefined;

  readonly #poller: Poller;
  readonly #onKick: () => void;
  #kick: number | undefined;
  #call: number | undefined;
  #error: number | undefined;
  #poll: NodeJS.Timeout | undefined;

  constructor(poller: Poller, onKick: () => void) {
    this.#poller = poller;
    this.#onKick = onKick;
  }

  /** It may run, as far as the frontend's messages go. */
  get isReady(): boolean {
    return this.size > 0 && this.addresses !== undefined && this.started && this.enabled && !this.changing;
  }

  /** All its parts are in guest memory. */
  isMapped(memory: GuestMemory): boolean {
    const { addresses } = this;
    if (addresses === undefined) return false;
    const bytes = ringSizes(this.size);
    return (["descriptors", "available", "used"] as const).every(
      (part) => memory.findUser(addresses[part], bytes[part]) !== undefined,
    );
  }

  /**
   * Sets the kick descriptor and takes it; undefined: there is none and the ring is polled.
   * @returns 0, or -errno when the descriptor cannot be waited for
   */
  setKick(fd: number | undefined): number {
    this.clearKick();
    if (fd === undefined) {
      this.#poll = setInterval(this.#onKick, POLL_INTERVAL).unref();
      return 0;
    }
    // Never read: the poller reports each write, and one that came before it was added.
    const result = this.#poller.add(fd, this.#onKick);
    if (result < 0) closeFd(fd);
    else this.#kick = fd;
    return result;
  }

  clearKick(): void {
    clearInterval(this.#poll);
    this.#poll = undefined;
    if (this.#kick === undefined) return;
    this.#poller.remove(this.#kick);
    closeFd(this.#kick);
    this.#kick = undefined;
  }

  setCall(fd: number | undefined): void {
    if (this.#call !== undefined) closeFd(this.#call);
    // A blocking descriptor that nobody reads would stop the whole process.
    if (fd !== undefined) setNonblocking(fd);
    this.#call = fd;
  }

  setError(fd: number | undefined): void {
    if (this.#error !== undefined) closeFd(this.#error);
    if (fd !== undefined) setNonblocking(fd);
    this.#error = fd;
  }

  call(): void {
    if (this.#call !== undefined) signalEventfd(this.#call);
  }

  /** Tells the frontend that the queue is broken. */
  fail(): void {
    if (this.#error !== undefined) signalEventfd(this.#error);
  }

  /** Guest addresses below this one are written to the log for the used ring. */
  get logEnd(): number {
    return this.logAddress === undefined ? 0 : this.logAddress + ringSizes(this.size).used;
  }

  /**
   * @param inflight where chains in flight are marked
   * @throws FrontendError ring-size, ring-range, ring-alignment
   */
  open(
    memory: GuestMemory,
    indirect: boolean,
    eventIndex: boolean,
    inflight: InflightRegion | undefined,
  ): DeviceQueue {
    const addresses = this.addresses ?? { descriptors: 0, available: 0, used: 0 };
    const setup = { memory, size: this.size, addresses, indirect, eventIndex };
    this.queue = new DeviceQueue(setup, this.base, inflight);
    return this.queue;
  }

  snapshot(): VringSnapshot {
    const { size, addresses, logAddress, started, enabled, changing, kicked } = this;
    const base = this.queue?.position.base ?? this.base;
    const polled = this.#poll !== undefined;
    const fds = { kick: this.#kick, call: this.#call, error: this.#error };
    return { size, addresses, logAddress, base, started, enabled, changing, kicked, polled, ...fds };
  }

  /**
   * Goes on as the vring that the snapshot is of, on a new one. Its descriptors are this process's.
   * @returns 0, or -errno when the kick descriptor cannot be waited for
   */
  restore({ polled, kick, call, error, ...state }: VringSnapshot): number {
    Object.assign(this, state);
    if (call !== undefined) this.setCall(call);
    if (error !== undefined) this.setError(error);
    return kick === undefined && !polled ? 0 : this.setKick(kick);
  }

  /** Writes of the queue, while it runs, are logged there; undefined: not at all. */
  logTo(pages: DirtyLog | undefined): void {
    if (this.queue !== undefined) this.queue.log = pages && { pages, used: this.logAddress };
  }

  /** Back to the state of a new connection, but for the call and error descriptors, which QEMU passes only once. */
  reset(): void {
    this.size = 0;
    this.addresses = undefined;
    this.logAddress = undefined;
    this.base = 0;
    this.started = false;
    this.enabled = false;
    this.changing = false;
    this.kicked = false;
    this.queue = undefined;
    this.clearKick();
  }

  close(): void {
    this.reset();
    this.setCall(undefined);
    this.setError(undefined);
  }
}
