import type { ChildProcess } from "node:child_process";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { Socket } from "node:net";
import { fileURLToPath } from "node:url";
import type { ConnectionSnapshot, Poller } from "../../rpmsg/index.ts";
import { closeFd, socketPair } from "../../rpmsg/index.ts";
import type { ControlEvents } from "./isolation-control.ts";
import { BridgeControl } from "./isolation-control.ts";
import type { IsolationOptions } from "./isolation-process.ts";

/** How often a process is asked whether it is stuck, and how many questions it may leave open. */
const PING_INTERVAL = 5000;
const PINGS_OPEN = 3;
/** Milliseconds that a process has to end when it is told so. */
const STOP_TIMEOUT = 2000;
/** Bytes of its last words that are kept. */
const MAX_STDERR = 2000;

/** Neither code nor signal is known of a process that another bridge had started. */
export interface Ending {
  pid: number;
  code?: number;
  signal?: string;
  stderr?: string;
}

export interface ChildEvents
  extends Pick<ControlEvents, "onConnection" | "onRings" | "onReport" | "onUnsealed"> {
  /** Once, unless it was stopped: it is gone. Not while it is paused. */
  onEnded(how: Ending): void;
  onError(error: Error): void;
}

/** For a hand-over: plain data, with descriptors of the process that gives it. */
export interface ChildSnapshot {
  readonly pid: number;
  /** When it started, in the kernel's words: with it the number means this process and no later one. */
  readonly startTime: string;
  readonly control: ConnectionSnapshot;
  /** The other end of its standard error, and what it has said so far. */
  readonly output: number;
  readonly words: string;
}

/** What a process is started with. */
export interface Start {
  readonly options: IsolationOptions;
  readonly listener: number | undefined;
}

/**
 * The process of an isolated guest: one of ours, or one that another bridge had started. The other ends of two sockets
 * are in that process and nowhere else: at the end of its standard error it is gone, whosever child it is.
 */
export class IsolatedChild {
  readonly #events: ChildEvents;
  readonly #pingInterval: number;
  readonly #pid: number;
  readonly #startTime: string | undefined;
  readonly #control: BridgeControl;
  readonly #outputFd: number;
  /** Reads there, from the first `resume` on. */
  #output: Socket | undefined;
  #words = "";
  /** Where it is one of ours. */
  readonly #process: ChildProcess | undefined;
  #exit: Pick<Ending, "code" | "signal"> | undefined;
  #silent = false;
  #controlled = true;
  #paused = true;
  #stopping = false;
  #over = false;
  /** Questions that it has not answered. */
  #open = 0;
  #pings: NodeJS.Timeout | undefined;
  #killing: NodeJS.Timeout | undefined;

  /**
   * Starts a process; or goes on with that of another bridge, after `resume`.
   * @throws Error it cannot be started
   */
  constructor(
    from: Start | ChildSnapshot,
    poller: Poller,
    events: ChildEvents,
    pingInterval = PING_INTERVAL,
  ) {
    this.#events = events;
    this.#pingInterval = pingInterval;
    const ours = "options" in from ? start(from) : undefined;
    const { pid, startTime, control, output, words } = ours ?? (from as ChildSnapshot);
    this.#pid = pid;
    this.#startTime = startTime;
    this.#outputFd = output;
    this.#words = words;
    this.#process = ours?.child;
    if (ours !== undefined) this.#watch(ours.child);
    try {
      this.#control = new BridgeControl(control, poller, {
        onConnection: (fd) => events.onConnection(fd),
        onRings: (sizes) => events.onRings(sizes),
        onReport: (report) => events.onReport(report),
        onUnsealed: () => events.onUnsealed(),
        onPong: () => {
          this.#open = 0;
        },
        onClose: () => {
          this.#controlled = false;
          if (!this.#stopping) this.kill();
        },
      });
    } catch (error) {
      // It ends with its control socket.
      closeFd(output);
      throw error;
    }
    if (ours !== undefined) this.resume();
  }

  /** Neither reads what it says nor tells of its end, until `resume`. */
  pause(): void {
    this.#paused = true;
    clearInterval(this.#pings);
    this.#control.pause();
    this.#output?.pause();
  }

  resume(): void {
    this.#paused = false;
    this.#control.resume();
    this.#open = 0;
    this.#pings = setInterval(() => {
      if (++this.#open > PINGS_OPEN) this.kill();
      else this.#control.ping();
    }, this.#pingInterval).unref();
    this.#output ??= this.#listen();
    this.#output.resume();
    this.#ended();
  }

  /** What there is to know of a paused one; undefined where it is at its end. */
  snapshot(): ChildSnapshot | undefined {
    if (!this.#controlled || this.#over || this.#startTime === undefined) return undefined;
    return {
      pid: this.#pid,
      startTime: this.#startTime,
      control: this.#control.snapshot(),
      output: this.#outputFd,
      words: this.#words,
    };
  }

  /** It is gone, says what it must not, or is stuck: in any case its end is what is waited for. */
  kill(): void {
    if (this.#over) return;
    if (this.#process !== undefined) {
      this.#process.kill("SIGKILL");
    } else if (!killProcess(this.#pid, this.#startTime)) {
      // Gone, or not to be reached from here, as in another container: that one ends with its control socket.
      this.#control.close();
      this.#output?.destroy();
    }
  }

  /** Has it end, and tells nothing of it. This process stays until that one is gone. */
  stop(): void {
    this.#stopping = true;
    if (this.#paused) this.resume();
    clearInterval(this.#pings);
    if (this.#over) return;
    this.#control.close();
    this.#killing = setTimeout(() => this.kill(), STOP_TIMEOUT);
  }

  /** Leaves one that was never gone on with to the bridge that has it. */
  release(): void {
    this.#over = true;
    this.#control.close();
    closeFd(this.#outputFd);
  }

  #watch(child: ChildProcess): void {
    child.once("exit", (code, signal) => {
      this.#exit = { ...(code !== null && { code }), ...(signal !== null && { signal }) };
      this.#ended();
    });
    child.once("error", (error) => {
      this.#events.onError(error);
      if (child.pid === undefined) this.#exit = {};
      this.#ended();
    });
  }

  #listen(): Socket {
    const output = new Socket({ fd: this.#outputFd, readable: true, writable: false });
    output.on("data", (data: Buffer) => {
      this.#words = (this.#words + data.toString()).slice(-MAX_STDERR);
    });
    // What comes after an error is the end, too.
    output.on("error", () => {});
    output.once("close", () => {
      this.#silent = true;
      this.#ended();
    });
    return output;
  }

  #ended(): void {
    const known = this.#process === undefined || this.#exit !== undefined;
    if (this.#over || this.#paused || !this.#silent || !known) return;
    this.#over = true;
    clearInterval(this.#pings);
    clearTimeout(this.#killing);
    this.#control.close();
    if (this.#stopping) return;
    const words = this.#words;
    this.#events.onEnded({ pid: this.#pid, ...this.#exit, ...(words !== "" && { stderr: words }) });
  }
}

function start({ options, listener }: Start) {
  const opened: number[] = [];
  const pair = (): [number, number] => {
    const ends = socketPair();
    opened.push(...ends);
    return ends;
  };
  let kept: number[] = [];
  try {
    const [control, itsControl] = pair();
    const [output, itsOutput] = pair();
    // Nothing of our environment and our arguments: it is to know no secret. A session of its own: Ctrl-C and a terminal
    // that is closed are for the bridge, whose drain needs this process.
    const child = spawn(process.execPath, [entry(), JSON.stringify(options)], {
      detached: true,
      env: {},
      stdio: ["ignore", "ignore", itsOutput, itsControl, listener ?? "ignore"],
    });
    kept = [control, output];
    const pid = child.pid ?? 0;
    return { child, pid, startTime: startTimeOf(pid), control, output, words: "" };
  } finally {
    for (const fd of opened) if (!kept.includes(fd)) closeFd(fd);
  }
}

/** @returns false where this number does not mean that process, or not for us */
function killProcess(pid: number, startTime: string | undefined): boolean {
  try {
    return startTimeOf(pid) === startTime && process.kill(pid, "SIGKILL");
  } catch {
    return false;
  }
}

/** Field 22 of /proc/PID/stat (proc_pid_stat(5)); undefined where there is no such process. */
function startTimeOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The second field, a name in parentheses, may have anything in it.
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    return undefined;
  }
}

/** The compiled file, from the sources too: Node 20 runs no TypeScript. */
function entry(): string {
  const file = import.meta.url.endsWith(".ts") ? "../../dist/server/guests/" : "./";
  return fileURLToPath(new URL(`${file}isolation-process.js`, import.meta.url));
}
