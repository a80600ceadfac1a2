import type { ConnectionSnapshot, Poller, VhostUserMessage } from "../../rpmsg/index.ts";
import { CodedError, closeFd, VhostUserConnection } from "../../rpmsg/index.ts";

/**
 * What the bridge and the process of an isolated guest say to each other, framed as vhost-user messages are. Numbers
 * that vhost-user does not have.
 */
const id = {
  /** To the bridge: a frontend came; the descriptor is the bridge's end of the relay to it. */
  connection: 1001,
  /** To the bridge: `u32 response; u32 request`, the sizes of the guest's queues, which run now. */
  rings: 1002,
  /** To the bridge: a `Report` as JSON. The next one waits for `taken`. */
  report: 1003,
  taken: 1004,
  /** To the process, which answers with the same: it is not stuck. */
  ping: 1005,
  /** To the bridge: the frontend's memory can be truncated, which would kill the process. Once a frontend. */
  unsealed: 1006,
} as const;

/** What happened at the frontend's side, as often as `count` says since the last such report. */
export interface Report {
  event: "refused" | "closed" | "transport" | "broken";
  code: CodedError["code"] | "internal";
  reason: string;
  /** With "broken": the queue. */
  queue?: number;
  count: number;
}

/** A reason quotes numbers that a frontend sent; one that is longer says nothing more. */
const MAX_REASON = 500;

/** The bridge's end. */
export interface ControlEvents {
  /** Takes the descriptor. */
  onConnection(fd: number): void;
  onRings(sizes: { response: number; request: number }): void;
  onReport(report: Report): void;
  /** Memory came that the frontend can truncate. */
  onUnsealed(): void;
  onPong(): void;
  /** The process is gone. */
  onClose(): void;
}

export class BridgeControl {
  readonly #connection: VhostUserConnection;

  /** Takes the descriptor of a connected socket; or goes on as another bridge's end, after `resume`. */
  constructor(from: number | ConnectionSnapshot, poller: Poller, events: ControlEvents) {
    this.#connection = new VhostUserConnection(from, poller, {
      onMessage: (message) => this.#receive(message, events),
      onClose: () => events.onClose(),
    });
  }

  ping(): void {
    this.#connection.send(id.ping, 0, new Uint8Array());
  }

  pause(): void {
    this.#connection.pause();
  }

  resume(): void {
    this.#connection.resume();
  }

  /** Of a paused one: with what has come of a message that is not whole yet. */
  snapshot(): ConnectionSnapshot {
    return this.#connection.snapshot();
  }

  close(): void {
    this.#connection.close();
  }

  #receive(message: VhostUserMessage, events: ControlEvents): void {
    const { payload } = message;
    if (message.id === id.connection) {
      const fd = message.takeFd();
      if (fd !== undefined) events.onConnection(fd);
    } else if (message.id === id.rings) {
      events.onRings({ response: payload.getUint32(0, true), request: payload.getUint32(4, true) });
    } else if (message.id === id.report) {
      events.onReport(JSON.parse(new TextDecoder().decode(payload)) as Report);
      this.#connection.send(id.taken, 0, new Uint8Array());
    } else if (message.id === id.unsealed) {
      events.onUnsealed();
    } else if (message.id === id.ping) {
      events.onPong();
    }
  }
}

/** The end of the guest's process. */
export class ProcessControl {
  readonly #connection: VhostUserConnection;
  /** Reports that wait: one of a kind, so that nobody can fill the memory with them. */
  readonly #waiting = new Map<string, Report>();
  #reporting = false;

  /** @param onClose the bridge is gone, or wants no more of this guest */
  constructor(fd: number, poller: Poller, onClose: () => void) {
    this.#connection = new VhostUserConnection(fd, poller, {
      onMessage: (message) => this.#receive(message),
      onClose,
    });
  }

  /** Passes the bridge its end of a relay; takes the descriptor. */
  connection(fd: number): void {
    this.#connection.send(id.connection, 0, new Uint8Array(), [fd]);
    closeFd(fd);
  }

  rings({ response, request }: { response: number; request: number }): void {
    const payload = new DataView(new ArrayBuffer(8));
    payload.setUint32(0, response, true);
    payload.setUint32(4, request, true);
    this.#connection.send(id.rings, 0, new Uint8Array(payload.buffer));
  }

  unsealed(): void {
    this.#connection.send(id.unsealed, 0, new Uint8Array());
  }

  report(event: Report["event"], error: Error, queue?: number): void {
    const code = error instanceof CodedError ? error.code : "internal";
    const key = `${event} ${code} ${queue}`;
    const count = (this.#waiting.get(key)?.count ?? 0) + 1;
    const reason = error.message.slice(0, MAX_REASON);
    this.#waiting.set(key, { event, code, reason, count, ...(queue !== undefined && { queue }) });
    this.#next();
  }

  #next(): void {
    const [first] = this.#waiting;
    if (this.#reporting || first === undefined) return;
    const [key, report] = first;
    this.#waiting.delete(key);
    this.#reporting = true;
    this.#connection.send(id.report, 0, new TextEncoder().encode(JSON.stringify(report)));
  }

  #receive(message: VhostUserMessage): void {
    if (message.id === id.ping) {
      this.#connection.send(id.ping, 0, new Uint8Array());
    } else if (message.id === id.taken) {
      this.#reporting = false;
      this.#next();
    }
  }
}
