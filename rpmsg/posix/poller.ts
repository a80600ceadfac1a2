import process from "node:process";
import { errno, errnoName } from "./errno.ts";
import type { Libc, PollHandle } from "./libc.ts";
import { CLOEXEC, checked, libc } from "./libc.ts";

/** There is something to read, or the peer has closed its side (epoll_ctl(2)). */
export const EPOLLIN = 0x1;
/** Sending is possible again; reported after `setWritable(fd, true)` only. */
export const EPOLLOUT = 0x4;
/** Both sides are closed; reported always. */
export const EPOLLHUP = 0x10;

const EPOLLET = 0x8000_0000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;
/** Events in one turn of the event loop. What is left then makes libuv call again in the next turn, after everybody else. */
const CAPACITY = 256;

interface Watch {
  readonly owner: Poller;
  readonly callback: (events: number) => void;
  readonly onError: (error: unknown) => void;
  /** Tells this registration from an earlier one of the same descriptor number. */
  readonly generation: number;
}

/**
 * struct epoll_event in words: u32 events, u64 data, where data is our (fd, generation). Packed on x86-64 (12 bytes); on arm64 data is
 * aligned to 8 (16 bytes).
 */
interface Scratch {
  readonly c: Libc;
  readonly events: bigint;
  readonly eventWords: Uint32Array;
  /** One event for epoll_ctl, apart from the array above: callbacks add and remove descriptors while it is read. */
  readonly control: bigint;
  readonly controlWords: Uint32Array;
  readonly stride: number;
  readonly dataWord: number;
}

// One for all sets: the event loop runs one callback at a time.
let scratch: Scratch | undefined;

/** What all open pollers watch; undefined while there is none. */
let shared: WatchSet | undefined;

/**
 * The descriptors of all pollers in one private epoll descriptor, which libuv watches: however many guests have kicked, a turn of the event
 * loop costs one callback of koffi and one system call. Bad descriptors (closed, a regular file) are refused by the kernel with an error
 * number; handed to libuv directly they would abort the process.
 */
class WatchSet {
  readonly watches = new Map<number, Watch>();
  /** Pollers that are open. */
  users = 0;
  readonly #epoll: number;
  readonly #handle: PollHandle;
  readonly #native: Scratch;
  #generation = 0;

  /** @throws Error when no descriptor is left, or where this is not Linux */
  constructor() {
    scratch ??= createScratch();
    this.#native = scratch;
    const { c } = scratch;
    this.#epoll = checked(c, c.epoll_create1(CLOEXEC));
    if (this.#epoll < 0) {
      throw new Error(`epoll_create1: ${errnoName(this.#epoll)}`);
    }
    try {
      this.#handle = c.watch(this.#epoll, () => this.#dispatch());
    } catch (error) {
      c.close(this.#epoll);
      throw error;
    }
  }

  add(fd: number, watch: Omit<Watch, "generation">): number {
    const generation = (this.#generation + 1) >>> 0;
    const result = this.#control(EPOLL_CTL_ADD, fd, EPOLLIN, generation);
    if (result === 0) {
      this.#generation = generation;
      this.watches.set(fd, { ...watch, generation });
    }
    return result;
  }

  change(fd: number, events: number, generation: number): number {
    return this.#control(EPOLL_CTL_MOD, fd, events, generation);
  }

  remove(fd: number): void {
    this.watches.delete(fd);
    this.#control(EPOLL_CTL_DEL, fd, 0, 0); // fails if the descriptor was closed before: then there is nothing to undo
  }

  close(): void {
    this.#handle.close(); // takes the epoll descriptor out of libuv's own epoll set at once
    this.#native.c.close(this.#epoll);
  }

  #control(operation: number, fd: number, events: number, generation: number): number {
    const { c, control, controlWords, dataWord } = this.#native;
    controlWords[0] = events | EPOLLET;
    controlWords[dataWord] = fd;
    controlWords[dataWord + 1] = generation;
    return checked(c, c.epoll_ctl(this.#epoll, operation, fd, control));
  }

  /** Called by koffi from libuv's poll phase. Must not throw: nobody above would catch it. */
  #dispatch(): void {
    const { c, events, eventWords, stride, dataWord } = this.#native;
    const count = c.epoll_wait(this.#epoll, events, CAPACITY, 0);
    for (let index = 0; index < count; index++) {
      const word = index * stride;
      // Those of a poller that was closed meanwhile are gone.
      const watch = this.watches.get(eventWords[word + dataWord] as number);
      if (watch !== undefined && watch.generation === eventWords[word + dataWord + 1]) {
        call(watch, eventWords[word] as number);
      }
    }
  }
}

/**
 * Watches descriptors on the event loop (epoll(7)), edge-triggered: a callback comes once for every change, not for as long as something is
 * there. So read sockets until -EAGAIN; an eventfd need not be read at all, every further write calls back again, and one that was
 * signalled before it was added calls back once.
 *
 * A descriptor is watched by one poller only. An open poller keeps the process alive.
 */
export class Poller {
  readonly #onError: (error: unknown) => void;
  readonly #set: WatchSet;
  #closed = false;

  /**
   * @param options `onError` receives what a callback throws; by default it becomes an uncaught exception
   * @throws Error when no descriptor is left, or where this is not Linux
   */
  constructor(options: { readonly onError?: (error: unknown) => void } = {}) {
    this.#onError = options.onError ?? rethrow;
    shared ??= new WatchSet();
    this.#set = shared;
    this.#set.users++;
  }

  /**
   * Watches a descriptor for EPOLLIN, EPOLLHUP and EPOLLERR. Remove it before you close it: the kernel goes on reporting a closed
   * descriptor for as long as another process holds the same file.
   *
   * @param callback receives the EPOLL* bits; called from the event loop, never from inside `add`
   * @returns 0 or -errno: -EPERM (cannot be watched, e.g. a regular file), -EBADF (also when the poller is closed), -EEXIST, -ENOSPC
   *   (fs.epoll.max_user_watches), -ENOMEM, -EINVAL and -ELOOP (epoll descriptors)
   */
  add(fd: number, callback: (events: number) => void): number {
    if (this.#closed) {
      return -errno.EBADF;
    }
    return this.#set.add(fd, { owner: this, callback, onError: this.#onError });
  }

  /**
   * Also reports EPOLLOUT, or no longer: for a connection whose send gave -EAGAIN. Calls back at once (from the event loop) if sending is
   * possible, and then also with EPOLLIN if there is something to read.
   *
   * @returns 0 or -errno: -ENOENT (not added), -EBADF (closed)
   */
  setWritable(fd: number, on: boolean): number {
    const watch = this.#set.watches.get(fd);
    if (watch?.owner !== this) {
      return -errno.ENOENT;
    }
    return this.#set.change(fd, on ? EPOLLIN | EPOLLOUT : EPOLLIN, watch.generation);
  }

  /** Forgets a descriptor; its callback is not called again, even if an event has been fetched already. Unknown ones are ignored. */
  remove(fd: number): void {
    // The number may be another poller's by now.
    if (this.#set.watches.get(fd)?.owner === this) {
      this.#set.remove(fd);
    }
  }

  /** Forgets all descriptors and lets the process end. They stay open. May be called from a callback, and again. */
  close(): void {
    if (this.#closed) {
      return;
    }
    this.#closed = true;
    for (const [fd, { owner }] of this.#set.watches) {
      if (owner === this) {
        this.#set.remove(fd);
      }
    }
    if (--this.#set.users === 0) {
      shared = undefined;
      this.#set.close();
    }
  }
}

function call(watch: Watch, events: number): void {
  try {
    watch.callback(events);
  } catch (error) {
    try {
      watch.onError(error);
    } catch (second) {
      rethrow(second);
    }
  }
}

function rethrow(error: unknown): void {
  queueMicrotask(() => {
    throw error;
  });
}

function createScratch(): Scratch {
  const c = libc();
  const packed = process.arch === "x64";
  const stride = packed ? 3 : 4;
  const array = c.allocate(CAPACITY * stride * 4);
  const single = c.allocate(stride * 4);
  return {
    c,
    events: array.address,
    eventWords: new Uint32Array(array.buffer),
    control: single.address,
    controlWords: new Uint32Array(single.buffer),
    stride,
    dataWord: packed ? 1 : 2,
  };
}
