import type { ChildProcess } from "node:child_process";
import { spawn } from "node:child_process";
import { unlinkSync } from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import type { DeviceConfig, Poller, Serve } from "../../rpmsg/index.ts";
import { closeFd, errnoName, listenUnix, SystemError, socketPair } from "../../rpmsg/index.ts";
import type { ControlEvents } from "./isolation-control.ts";
import { BridgeControl } from "./isolation-control.ts";
import type { IsolationOptions } from "./isolation-process.ts";

/** Milliseconds before a process that ended is replaced: the first time, and the most after doubling. */
const RESTART_FIRST = 20;
const RESTART_MOST = 1000;
/** One that lived so long was no failure to start. */
const RESTART_FORGET = 1000;
/** How often a process is asked whether it is stuck, and how many questions it may leave open. */
const PING_INTERVAL = 5000;
const PINGS_OPEN = 3;
/** Milliseconds that a process has to end when it is told so. */
const STOP_TIMEOUT = 2000;
/** Connections that the process has passed and that wait for their turn: it has one frontend at a time. */
const MAX_WAITING = 8;
/** Bytes of its last words that are kept. */
const MAX_STDERR = 2000;

export interface IsolatedEvents extends Pick<ControlEvents, "onRings" | "onReport"> {
  /** The process is gone; another one is started. */
  onExited(how: { pid: number; code?: number; signal?: string; stderr?: string }): void;
  onError(error: Error): void;
}

/**
 * The transport of a guest whose frontend and memory are in a process of their own. It gives the bridge connections
 * with that process, on which the guest is as trustworthy as the bridge itself. The listening socket is the bridge's:
 * frontends find it whatever becomes of the process, which is replaced when it ends.
 */
export class IsolatedTransport {
  readonly #path: string;
  readonly #poller: Poller;
  readonly #events: IsolatedEvents;
  readonly #options: IsolationOptions;
  readonly #listener: number | undefined;
  readonly #serve: Serve;
  /** The connection that the bridge serves, and those whose turn comes. */
  #current: { close(): void } | undefined;
  readonly #waiting: number[] = [];
  #child: ChildProcess | undefined;
  #control: BridgeControl | undefined;
  #pings: NodeJS.Timeout | undefined;
  #restart: NodeJS.Timeout | undefined;
  #delay = RESTART_FIRST;
  #closed = false;

  /** @throws SystemError socket: the path cannot be listened on */
  constructor(
    config: { mode: "listen" | "connect"; path: string },
    bufferSizes: DeviceConfig | undefined,
    poller: Poller,
    serve: Serve,
    events: IsolatedEvents,
  ) {
    const { mode, path } = config;
    this.#path = path;
    this.#poller = poller;
    this.#events = events;
    this.#serve = serve;
    this.#options = { mode, path: resolve(path), ...(bufferSizes !== undefined && { bufferSizes }) };
    if (mode === "listen") {
      const listener = listenUnix(path);
      if (listener < 0) {
        throw new SystemError("socket", `cannot listen on ${path}: ${errnoName(listener)}`);
      }
      this.#listener = listener;
    }
    this.#start();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#restart);
    this.#current?.close();
    const child = this.#child;
    this.#letGo();
    if (child !== undefined) {
      // This process stays until that one is gone.
      const timer = setTimeout(() => child.kill("SIGKILL"), STOP_TIMEOUT);
      child.once("exit", () => clearTimeout(timer));
    }
    if (this.#listener === undefined) return;
    closeFd(this.#listener);
    try {
      unlinkSync(this.#path);
    } catch {
      // Somebody has taken it away already.
    }
  }

  #start(): void {
    let ends: [number, number];
    try {
      ends = socketPair();
    } catch (error) {
      this.#events.onError(error as Error);
      this.#startLater();
      return;
    }
    const [ours, theirs] = ends;
    try {
      this.#child = this.#spawn(theirs);
    } catch (error) {
      closeFd(ours);
      this.#events.onError(error as Error);
      this.#startLater();
      return;
    } finally {
      closeFd(theirs);
    }
    this.#control = this.#connect(ours);
  }

  #spawn(control: number): ChildProcess {
    const started = performance.now();
    // Nothing of our environment and our arguments: it is to know no secret.
    const child = spawn(process.execPath, [entry(), JSON.stringify(this.#options)], {
      env: {},
      stdio: ["ignore", "ignore", "pipe", control, this.#listener ?? "ignore"],
    });
    let stderr = "";
    child.stderr?.on("data", (data: Buffer) => {
      stderr = (stderr + data.toString()).slice(-MAX_STDERR);
    });
    let over = false;
    const ended = (code: number | null, signal: string | null): void => {
      if (over) return;
      over = true;
      if (this.#child === child) this.#letGo();
      if (this.#closed) return;
      this.#events.onExited({
        pid: child.pid ?? 0,
        ...(code !== null && { code }),
        ...(signal !== null && { signal }),
        ...(stderr !== "" && { stderr }),
      });
      if (performance.now() - started > RESTART_FORGET) this.#delay = RESTART_FIRST;
      this.#startLater();
    };
    // "close" comes after "exit", with all that it has written.
    child.once("close", ended);
    child.once("error", (error) => {
      this.#events.onError(error);
      if (child.pid === undefined) ended(null, null);
    });
    return child;
  }

  #connect(fd: number): BridgeControl {
    let open = 0;
    const control = new BridgeControl(fd, this.#poller, {
      onConnection: (connection) => {
        this.#waiting.push(connection);
        if (this.#waiting.length > MAX_WAITING) this.#kill(control);
        else this.#next();
      },
      onRings: (sizes) => this.#events.onRings(sizes),
      onReport: (report) => this.#events.onReport(report),
      onPong() {
        open = 0;
      },
      onClose: () => this.#kill(control),
    });
    this.#pings = setInterval(() => {
      if (++open > PINGS_OPEN) this.#kill(control);
      else control.ping();
    }, PING_INTERVAL).unref();
    return control;
  }

  /** Serves the connection whose turn it is. */
  #next(): void {
    while (this.#current === undefined && !this.#closed) {
      const fd = this.#waiting.shift();
      if (fd === undefined) return;
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
  }

  /** The process is gone, says what it must not, or is stuck: in any case its end is what is waited for. */
  #kill(control: BridgeControl): void {
    if (this.#control === control) this.#child?.kill("SIGKILL");
  }

  /** Has nothing to do with the process any more. */
  #letGo(): void {
    clearInterval(this.#pings);
    const control = this.#control;
    this.#child = undefined;
    this.#control = undefined;
    control?.close();
    for (const fd of this.#waiting.splice(0)) closeFd(fd);
  }

  #startLater(): void {
    if (this.#closed) return;
    this.#restart = setTimeout(() => this.#start(), this.#delay);
    this.#delay = Math.min(this.#delay * 2, RESTART_MOST);
  }
}

/** The compiled file, from the sources too: Node 20 runs no TypeScript. */
function entry(): string {
  const file = import.meta.url.endsWith(".ts") ? "../../dist/server/guests/" : "./";
  return fileURLToPath(new URL(`${file}isolation-process.js`, import.meta.url));
}
