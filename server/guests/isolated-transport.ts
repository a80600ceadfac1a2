import { unlinkSync } from "node:fs";
import { resolve } from "node:path";
import type { DeviceConfig, Poller, Serve, TransportSnapshot } from "../../rpmsg/index.ts";
import { closeFd, errnoName, listenUnix, SystemError } from "../../rpmsg/index.ts";
import type { ChildSnapshot, Ending } from "./isolated-child.ts";
import { IsolatedChild } from "./isolated-child.ts";
import type { ControlEvents } from "./isolation-control.ts";
import type { IsolationOptions } from "./isolation-process.ts";

/** Milliseconds before a process that ended is replaced: the first time, and the most after doubling. */
const RESTART_FIRST = 20;
const RESTART_MOST = 1000;
/** One that lived so long was no failure to start. */
const RESTART_FORGET = 1000;
/** Connections that the process has passed and that wait for their turn: it has one frontend at a time. */
const MAX_WAITING = 8;

export interface IsolatedEvents extends Pick<ControlEvents, "onRings" | "onReport" | "onUnsealed"> {
  /** The process is gone; another one is started. */
  onExited(how: Ending): void;
  onError(error: Error): void;
}

/** For a hand-over: plain data, with descriptors of the process that gives it. */
export interface IsolatedSnapshot {
  /** Undefined where there is none, or none that is worth it: the next one is started. */
  readonly child: ChildSnapshot | undefined;
  /** Connections with it whose turn comes. */
  readonly waiting: readonly number[];
}

/** What another bridge left of the same guest. */
export interface IsolatedInheritance {
  readonly transport: TransportSnapshot;
  /** Undefined where that one's guest was not isolated. */
  readonly isolated: IsolatedSnapshot | undefined;
}

/**
 * The transport of a guest whose frontend and memory are in a process of their own. It gives the bridge connections
 * with that process, on which the guest is as trustworthy as the bridge itself. The listening socket is the bridge's:
 * frontends find it whatever becomes of the process, which is replaced when it ends.
 */
export class IsolatedTransport {
  readonly listener: number | undefined;
  readonly #path: string;
  readonly #poller: Poller;
  readonly #events: IsolatedEvents;
  readonly #options: IsolationOptions;
  readonly #serve: Serve;
  /** The connection that the bridge serves, and those whose turn comes. */
  #current: { close(): void } | undefined;
  readonly #waiting: number[];
  #child: IsolatedChild | undefined;
  #restart: NodeJS.Timeout | undefined;
  #delay = RESTART_FIRST;
  #paused: boolean;
  /** What another bridge hands over is its own until `resume`. */
  #owned: boolean;
  #closed = false;

  /**
   * Takes the poller, which is closed with the transport, and where there is none in the end: an open one keeps the
   * process alive.
   * @param inherited where another bridge stopped: everything goes on from there with `resume`
   * @throws SystemError socket: the path cannot be listened on; what `serve` throws of an inherited connection. Nothing
   *   that was handed over is left open then.
   */
  constructor(
    config: { mode: "listen" | "connect"; path: string },
    bufferSizes: DeviceConfig | undefined,
    poller: Poller,
    serve: Serve,
    events: IsolatedEvents,
    inherited?: IsolatedInheritance,
  ) {
    const { mode, path } = config;
    this.#path = path;
    this.#poller = poller;
    this.#events = events;
    this.#serve = serve;
    this.#options = { mode, path: resolve(path), ...(bufferSizes !== undefined && { bufferSizes }) };
    if (mode === "listen") {
      const listener = inherited?.transport.listener ?? listenUnix(path);
      if (listener < 0) {
        poller.close();
        throw new SystemError("socket", `cannot listen on ${path}: ${errnoName(listener)}`);
      }
      this.listener = listener;
    }
    const { child, waiting = [] } = inherited?.isolated ?? {};
    this.#waiting = [...waiting];
    this.#paused = inherited !== undefined;
    this.#owned = !this.#paused;
    const connection = inherited?.transport.connection;
    try {
      if (child !== undefined) this.#child = this.#attend(child);
      if (connection !== undefined) this.#use(connection);
    } catch (error) {
      this.close();
      throw error;
    }
    if (!this.#paused) this.#start();
  }

  /** Stands still until `resume`, or for good where another bridge goes on: the process lives on. */
  pause(): void {
    this.#paused = true;
    clearTimeout(this.#restart);
    this.#child?.pause();
  }

  /** Goes on after `pause`, or where another bridge stopped. */
  resume(): void {
    if (this.#closed || !this.#paused) return;
    this.#paused = false;
    this.#owned = true;
    if (this.#child === undefined) this.#start();
    else this.#child.resume();
    this.#next();
  }

  /** What there is to know of a paused one. */
  snapshot(): IsolatedSnapshot {
    const child = this.#child?.snapshot();
    return { child, waiting: child === undefined ? [] : this.#waiting };
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#restart);
    this.#current?.close();
    const child = this.#child;
    this.#letGo();
    if (this.#owned) child?.stop();
    else child?.release();
    this.#poller.close();
    if (this.listener === undefined) return;
    closeFd(this.listener);
    if (!this.#owned) return;
    try {
      unlinkSync(this.#path);
    } catch {
      // Somebody has taken it away already.
    }
  }

  #start(): void {
    try {
      this.#child = this.#attend({ options: this.#options, listener: this.listener });
    } catch (error) {
      this.#events.onError(error as Error);
      this.#startLater();
    }
  }

  #attend(from: ConstructorParameters<typeof IsolatedChild>[0]): IsolatedChild {
    const started = performance.now();
    const events = this.#events;
    const child: IsolatedChild = new IsolatedChild(from, this.#poller, {
      onConnection: (connection) => {
        this.#waiting.push(connection);
        if (this.#waiting.length > MAX_WAITING) child.kill();
        else this.#next();
      },
      onRings: (sizes) => events.onRings(sizes),
      onReport: (report) => events.onReport(report),
      onUnsealed: () => events.onUnsealed(),
      onEnded: (how) => {
        this.#letGo();
        events.onExited(how);
        if (performance.now() - started > RESTART_FORGET) this.#delay = RESTART_FIRST;
        this.#startLater();
      },
      onError: (error) => events.onError(error),
    });
    return child;
  }

  /** Serves the connection whose turn it is. */
  #next(): void {
    while (this.#current === undefined && !this.#closed && !this.#paused) {
      const fd = this.#waiting.shift();
      if (fd === undefined) return;
      this.#use(fd);
    }
  }

  #use(fd: number): void {
    // It may be over before `serve` returns.
    let over = false;
    const connection = this.#serve(fd, () => {
      over = true;
      this.#current = undefined;
      // Not from within the closing of the old connection.
      setImmediate(() => this.#next());
    });
    if (!over) this.#current = connection;
  }

  /** Has nothing to do with the process any more. */
  #letGo(): void {
    this.#child = undefined;
    for (const fd of this.#waiting.splice(0)) closeFd(fd);
  }

  #startLater(): void {
    if (this.#closed) return;
    this.#restart = setTimeout(() => this.#start(), this.#delay);
    this.#delay = Math.min(this.#delay * 2, RESTART_MOST);
  }
}
