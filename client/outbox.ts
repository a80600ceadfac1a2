import type { ClientFrameInput, MessageId } from "../schemas/index.ts";
import type { Bound } from "./bound.ts";
import { toBase64, utf8Bytes } from "./bytes.ts";
import type { ClientErrorCode } from "./errors.ts";
import { RpmsgError } from "./errors.ts";
import { Fifo } from "./fifo.ts";

/** Longest message that RPMsg can carry, in bytes; the guest's buffers are mostly shorter. */
const LONGEST = 65_519;
/** Milliseconds that a message may wait for the guest where the caller says nothing: the bridge's default. */
const TIMEOUT = 15_000;

export interface SendOptions {
  /** The address to send to; without it the endpoint's peer. The bridge takes addresses that have sent to the channel. */
  dst?: number;
  /** Milliseconds that the message may wait for the guest, or for a lost connection. Default 15,000. */
  timeout?: number;
  /** Takes the message back where it has not been written yet; otherwise only the promise ends. */
  signal?: AbortSignal | undefined;
}

interface Entry {
  readonly id: number;
  readonly frame: string;
  readonly bytes: number;
  readonly timeout: number;
  /** When the promise ends without an answer, in the time of `performance`; infinite while the bridge sees to it. */
  deadline: number;
  /** Ends the promise. */
  readonly settle: (error?: unknown) => void;
  /** For the promise's end nobody needs to listen. */
  readonly hush: () => void;
  settled: boolean;
}

/**
 * Messages to the guest, in order: those that wait to be written, and those that the bridge has yet to answer. A
 * message that is in the WebSocket's own buffer has no answer, so that the window bounds that buffer, too.
 */
export class Outbox {
  readonly #window: Bound;
  readonly #queue: Bound;
  /** Some may be settled already: their signals aborted. */
  readonly #waiting = new Fifo<Entry>();
  #waitingMessages = 0;
  #waitingBytes = 0;
  readonly #unanswered = new Map<MessageId, Entry>();
  #unansweredBytes = 0;
  #nextId = 1;
  /** Ids below were given out before the connection was lost. */
  #lost = 1;
  #write: ((frame: string) => boolean) | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #timerAt = Number.POSITIVE_INFINITY;
  #end: RpmsgError | undefined;

  /**
   * @param window what may be unanswered
   * @param queue what may wait besides
   */
  constructor(window: Bound, queue: Bound) {
    this.#window = window;
    this.#queue = queue;
  }

  send(data: string | Uint8Array, { dst, timeout, signal }: SendOptions): Promise<void> {
    if (signal?.aborted === true) return Promise.reject(signal.reason);
    if (this.#end !== undefined) return Promise.reject(this.#end);
    const bytes = (typeof data === "string" ? utf8Bytes(data) : data).length;
    if (bytes > LONGEST) {
      return refusal("too-large", `a message of ${bytes} bytes: the most is ${LONGEST}`);
    }
    if (this.#waitingMessages > 0 && !fits(this.#queue, this.#waitingMessages, this.#waitingBytes + bytes)) {
      return refusal("queue-full", "too many messages wait: wait for the results of earlier ones");
    }
    const id = this.#nextId++;
    const frame: ClientFrameInput = {
      type: "send",
      id,
      ...(typeof data === "string" ? { data } : { data: toBase64(data), encoding: "base64" }),
      dst,
      timeout,
    };
    const promise = new Promise<void>((resolve, reject) => {
      const onAbort = (): void => this.#abort(entry, signal?.reason);
      const entry: Entry = {
        id,
        frame: JSON.stringify(frame),
        bytes,
        timeout: timeout ?? TIMEOUT,
        deadline: Number.POSITIVE_INFINITY,
        settled: false,
        settle: (error) => {
          entry.settled = true;
          signal?.removeEventListener("abort", onAbort);
          if (error === undefined) resolve();
          else reject(error);
        },
        hush: () => void promise.catch(() => {}),
      };
      signal?.addEventListener("abort", onAbort);
      this.#waiting.push(entry);
      this.#waitingMessages++;
      this.#waitingBytes += bytes;
      this.#pump();
      if (this.#write === undefined) this.#expireLater(entry);
    });
    return promise;
  }

  /** A connection is there: what waits is written. */
  connected(write: (frame: string) => boolean): void {
    this.#write = write;
    this.#waiting.filter((entry) => {
      entry.deadline = Number.POSITIVE_INFINITY;
      return !entry.settled;
    });
    this.#pump();
  }

  /** The connection is lost: nobody but us sees to the deadlines now. */
  disconnected(): void {
    this.#write = undefined;
    this.#lost = this.#nextId;
    for (const entry of this.#unanswered.values()) this.#expireLater(entry);
    this.#waiting.filter((entry) => {
      this.#expireLater(entry);
      return true;
    });
  }

  /** The session is over: what came before the loss of its connection is given up, written or not. */
  giveUp(code: "guest-gone" | "endpoint-gone" | "connection-lost", why: string): void {
    this.#discard((entry) => entry.id < this.#lost, code, why);
  }

  /** What the bridge said of a message. @returns false where no answer was awaited */
  answered(id: MessageId, error?: RpmsgError): boolean {
    const entry = this.#unanswered.get(id);
    if (entry === undefined) return false;
    this.#forget(entry);
    entry.settle(error);
    this.#pump();
    return true;
  }

  /** Takes no more. Where the caller wanted it so, results that nobody looks at are no errors that nobody caught. */
  close(error: RpmsgError): void {
    this.#end ??= error;
    this.#write = undefined;
    if (error.code === "closed") {
      for (const { hush } of this.#unanswered.values()) hush();
      this.#waiting.filter(({ hush }) => {
        hush();
        return true;
      });
    }
    this.#discard(() => true, error.code, error.message);
    clearTimeout(this.#timer);
  }

  #pump(): void {
    while (this.#write !== undefined) {
      const entry = this.#waiting.first();
      if (entry === undefined) return;
      if (!entry.settled) {
        const { size } = this.#unanswered;
        if (size > 0 && !fits(this.#window, size, this.#unansweredBytes + entry.bytes)) return;
        if (!this.#write(entry.frame)) return;
        this.#waitingMessages--;
        this.#waitingBytes -= entry.bytes;
        this.#unanswered.set(entry.id, entry);
        this.#unansweredBytes += entry.bytes;
      }
      this.#waiting.shift();
    }
  }

  #abort(entry: Entry, reason: unknown): void {
    entry.settle(reason);
    // What was written is answered still, and fills the window until then.
    if (this.#unanswered.has(entry.id)) return;
    this.#waitingMessages--;
    this.#waitingBytes -= entry.bytes;
    if (this.#waitingMessages * 2 < this.#waiting.size) this.#waiting.filter((each) => !each.settled);
  }

  #forget(entry: Entry): void {
    this.#unanswered.delete(entry.id);
    this.#unansweredBytes -= entry.bytes;
  }

  #discard(where: (entry: Entry) => boolean, code: RpmsgError["code"], why: string): void {
    for (const entry of [...this.#unanswered.values()]) {
      if (!where(entry)) continue;
      this.#forget(entry);
      entry.settle(new RpmsgError(code, `${why}: it is not known whether the message was delivered`));
    }
    this.#waiting.filter((entry) => {
      if (entry.settled) return false;
      if (!where(entry)) return true;
      this.#waitingMessages--;
      this.#waitingBytes -= entry.bytes;
      entry.settle(new RpmsgError(code, `${why}: the message was not sent`));
      return false;
    });
  }

  #expireLater(entry: Entry): void {
    if (entry.deadline === Number.POSITIVE_INFINITY) entry.deadline = performance.now() + entry.timeout;
    if (entry.deadline >= this.#timerAt) return;
    clearTimeout(this.#timer);
    this.#timerAt = entry.deadline;
    this.#timer = setTimeout(() => this.#expire(), Math.max(0, entry.deadline - performance.now()));
  }

  #expire(): void {
    this.#timerAt = Number.POSITIVE_INFINITY;
    // Timers of browsers are up to a millisecond early.
    const now = performance.now() + 1;
    const why = "the connection was lost, and the message's time is over";
    this.#discard((entry) => entry.deadline <= now, "connection-lost", why);
    for (const entry of this.#unanswered.values()) this.#again(entry);
    this.#waiting.filter((entry) => {
      this.#again(entry);
      return true;
    });
    this.#pump();
  }

  #again(entry: Entry): void {
    if (entry.deadline < Number.POSITIVE_INFINITY) this.#expireLater(entry);
  }
}

/** Whether one more message fits, with which there are so many bytes. */
function fits(bound: Bound, messages: number, bytes: number): boolean {
  return messages < bound.messages && bytes <= bound.bytes;
}

function refusal(code: Exclude<RpmsgError["code"], ClientErrorCode>, message: string): Promise<never> {
  return Promise.reject(new RpmsgError(code, message));
}
