import type { Limits, MuxServerFrame } from "../../schemas/index.ts";
import { closeCode, errorAdvice, MuxClientFrame, muxHeader } from "../../schemas/index.ts";
import { HttpProblem } from "../problem.ts";
import type { Connection, ConnectionHandler } from "./connection.ts";
import { parseFrame } from "./frame-parser.ts";
import type { Multiplexer, OpenChannel } from "./subscription.ts";
import { Subscription } from "./subscription.ts";

/** Opens what the path of a channel names. */
export type OpenPath = (path: string) => OpenChannel;

/** `rpmsg.v1.mux`: many endpoints over one connection. Control frames are JSON text, messages are binary frames. */
export class MuxConnection implements ConnectionHandler, Multiplexer {
  readonly protocol = "mux";
  readonly connection: Connection;
  readonly #limits: Limits;
  readonly #open: OpenPath;
  readonly #subscriptions = new Map<number, Subscription>();
  /** Those of them that are down. */
  readonly #waiting = new Set<Subscription>();
  #retryScheduled = false;
  /** Bytes of answers since the client had taken everything. */
  #answered = 0;
  #closed = false;
  emptied = 0;

  /** @param open throws HttpProblem where the path is none that can be opened */
  constructor(connection: Connection, limits: Limits, open: OpenPath) {
    this.connection = connection;
    this.#limits = limits;
    this.#open = open;
  }

  get pendingBytes(): number {
    const { pendingBytes } = this.connection;
    if (pendingBytes === 0) {
      this.emptied++;
      this.#answered = 0;
    }
    return pendingBytes;
  }

  /** Guests or endpoints changed: what was down may be up again, where `where` says so. */
  retry(where: (subscription: Subscription) => boolean): void {
    if (this.#retryScheduled || ![...this.#waiting].some(where)) return;
    this.#retryScheduled = true;
    // After everything that the change brings with it.
    setImmediate(() => {
      this.#retryScheduled = false;
      for (const subscription of [...this.#waiting]) {
        // One before it may have ended the connection.
        if (!this.#waiting.has(subscription)) continue;
        if (subscription.retry()) this.#waiting.delete(subscription);
      }
    });
  }

  onText(data: Buffer): void {
    if (this.#endDeaf()) return;
    const parsed = parseFrame(MuxClientFrame, data);
    if ("problem" in parsed) {
      this.tell({ type: "error", code: "bad-frame", message: parsed.problem });
      return;
    }
    const { frame } = parsed;
    if (frame.type === "ping") this.tell({ type: "pong" });
    else if (frame.type === "subscribe") this.#subscribe(frame);
    else if (frame.type === "credit") this.#subscription(frame.sub)?.grant(frame.bytes);
    else this.#subscription(frame.sub)?.unsubscribe();
  }

  onBinary(bytes: Buffer, offset: number, length: number): void {
    if (this.#endDeaf()) return;
    const { size } = muxHeader;
    if (length < size) {
      this.tell({ type: "error", code: "bad-frame", message: `want at least ${size} bytes` });
      return;
    }
    const number = bytes.readUInt32LE(offset + muxHeader.number);
    const subscription = this.#subscription(bytes.readUInt32LE(offset + muxHeader.subscription), number);
    const address = bytes.readUInt32LE(offset + muxHeader.address);
    subscription?.send(address, number, bytes, offset + size, length - size);
  }

  onDrained(): void {
    for (const subscription of [...this.#subscriptions.values()]) subscription.drained();
  }

  onTick(): void {}

  onTooMuch(reason: string): void {
    this.onClosed();
    this.connection.close(closeCode.slowReader, reason);
  }

  onClosed(): void {
    this.#closed = true;
    for (const subscription of this.#subscriptions.values()) subscription.close();
    this.#subscriptions.clear();
    this.#waiting.clear();
  }

  forget(sub: number): void {
    const subscription = this.#subscriptions.get(sub);
    this.#subscriptions.delete(sub);
    if (subscription !== undefined) this.#waiting.delete(subscription);
  }

  waits(subscription: Subscription): void {
    this.#waiting.add(subscription);
    // What it waits for may be there already.
    this.retry((each) => each === subscription);
  }

  tell(frame: MuxServerFrame, isAnswer = true): void {
    const { rejected } = this.connection.counts;
    if (frame.type === "error") rejected.frame.add(frame.code);
    else if (frame.type === "unsubscribed" && frame.code !== undefined) rejected.subscription.add(frame.code);
    const text = JSON.stringify(frame);
    if (isAnswer) this.#answered += text.length;
    this.connection.text(text);
  }

  #subscribe({ sub, path, credit }: Extract<MuxClientFrame, { type: "subscribe" }>): void {
    const refuse = (code: "subscription-in-use" | "too-many-subscriptions") =>
      this.tell({ type: "error", sub, code, message: errorAdvice[code] });
    if (this.#subscriptions.has(sub)) {
      refuse("subscription-in-use");
      return;
    }
    if (this.#subscriptions.size >= this.#limits.subscriptions) {
      refuse("too-many-subscriptions");
      return;
    }
    try {
      const subscription = new Subscription(this, sub, this.#open(path), this.#limits, credit);
      this.#subscriptions.set(sub, subscription);
      subscription.open();
      // To tell of it may have ended the connection.
      if (this.#closed) subscription.close();
    } catch (error) {
      this.#subscriptions.delete(sub);
      if (!(error instanceof HttpProblem)) throw error;
      this.tell({ type: "error", sub, code: error.code, message: error.message });
    }
  }

  /** Ends a client that asks and does not read the answers. */
  #endDeaf(): boolean {
    const deaf = Math.min(this.pendingBytes, this.#answered) > 2 * this.#limits.slowReaderBytes;
    if (deaf) this.onTooMuch("slow reader: too many answers wait");
    return deaf;
  }

  #subscription(sub: number, id = 0): Subscription | undefined {
    const subscription = this.#subscriptions.get(sub);
    if (subscription === undefined) {
      const code = "subscription-unknown";
      this.tell({ type: "error", sub, ...(id !== 0 && { id }), code, message: errorAdvice[code] });
    }
    return subscription;
  }
}
