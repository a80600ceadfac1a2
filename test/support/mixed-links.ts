import { WebSocket } from "ws";
import { ServerFrame } from "../../schemas/index.ts";
import { kind, TO_GUEST } from "./mixed-guest.ts";
import type { Account, Inbox, Sender } from "./mixed-inbox.ts";
import { count } from "./mixed-inbox.ts";

/** What a client of a mixed run needs of it. */
export interface LinkOptions {
  /** The Unix socket of the bridge. */
  readonly socketPath: string;
  /** The endpoint's path and query. */
  readonly path: string;
  readonly sender: Sender;
  readonly inbox: Inbox;
  readonly account: Account;
  readonly problems: string[];
}

/** A client's way to an endpoint, over one of the subprotocols. */
export abstract class Link {
  readonly options: LinkOptions;
  /** How it ended: a close code, or that of `unsubscribed`. */
  readonly ended: Promise<string>;
  isUp = false;
  isOver = false;
  /** It broke and goes on: results may come twice. */
  isResumed = false;
  #end: (reason: string) => void = () => {};
  #waiters: (() => void)[] = [];

  constructor(options: LinkOptions) {
    this.options = options;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  /** Sends a message of so many bytes, its header not counted. @returns false where it may not now */
  send(length: number, what: number = kind.data): boolean {
    const { sender } = this.options;
    if (!this.isUp || this.isOver || !this.mayCarry(TO_GUEST + length)) return false;
    const payload = Buffer.alloc(TO_GUEST + length, sender.sent);
    payload.writeUInt32LE(sender.number, 0);
    payload.writeUInt32LE(sender.sent, 4);
    payload.writeUInt8(what, 8);
    this.carry(payload, sender.sent++);
    return true;
  }

  /** So many bytes more may come, where that is bounded. */
  grant(_bytes: number): void {}

  /** Waits until something has come, or it is over. */
  news(): Promise<void> {
    return this.isOver ? Promise.resolve() : new Promise((resolve) => this.#waiters.push(resolve));
  }

  abstract pause(): void;
  abstract resume(): void;
  /** Says good-bye. */
  abstract leave(): void;
  /** Is gone without a word. */
  abstract vanish(): void;

  protected abstract carry(payload: Buffer, number: number): void;

  protected mayCarry(_length: number): boolean {
    return true;
  }

  protected heard(): void {
    for (const waiter of this.#waiters.splice(0)) waiter();
  }

  protected over(reason: string): void {
    if (this.isOver) return;
    this.isOver = true;
    this.isUp = false;
    count(this.options.account.ends, reason);
    this.#end(reason);
    this.heard();
  }

  /** A message was sent, or not. */
  protected result(number: number, code: string): void {
    const { sender, account, problems } = this.options;
    const before = sender.results.get(number);
    if (before === undefined) {
      sender.results.set(number, code);
      count(account.results, code);
    } else if (before === "sent" && code === "guest-gone") {
      sender.results.set(number, "unread");
      account.unconfirmed++;
    } else if (before !== code || !this.isResumed) {
      problems.push(`sender ${sender.number}: message ${number} was ${before}, then ${code}`);
    }
    this.heard();
  }

  protected connect(path: string, protocol: string): WebSocket {
    const { account, socketPath } = this.options;
    account.connections++;
    const socket = new WebSocket(`ws+unix:${socketPath}:${path}`, [protocol], { perMessageDeflate: false });
    socket.on("error", () => {});
    return socket;
  }
}

/** `rpmsg.v1.raw` */
export class RawLink extends Link {
  readonly #socket: WebSocket;

  constructor(options: LinkOptions) {
    super(options);
    this.#socket = this.connect(options.path, "rpmsg.v1.raw");
    this.#socket.on("open", () => {
      options.inbox.begin();
      this.isUp = true;
      this.heard();
    });
    this.#socket.on("message", (data: Buffer) => {
      options.inbox.message(data);
      this.heard();
    });
    this.#socket.on("unexpected-response", (_request, { statusCode }) => this.over(`HTTP ${statusCode}`));
    this.#socket.on("close", (code) => this.over(`${code}`));
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  leave(): void {
    this.#socket.close(1000);
  }

  vanish(): void {
    this.#socket.terminate();
  }

  protected carry(payload: Buffer): void {
    this.#socket.send(payload);
  }
}

/** `rpmsg.v1.json`: every message has an id; a connection that broke is resumed. */
export class JsonLink extends Link {
  #socket: WebSocket;
  #session = "";
  #broken = false;
  #timeouts: () => number | undefined;

  /** @param timeouts how long the next message may wait; undefined for the usual time */
  constructor(options: LinkOptions, timeouts: () => number | undefined = () => undefined) {
    super(options);
    options.sender.isAnswered = true;
    this.#timeouts = timeouts;
    this.#socket = this.#open();
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  leave(): void {
    this.#socket.close(1000);
  }

  vanish(): void {
    this.#broken = false;
    this.#socket.terminate();
  }

  /** Breaks the connection and comes back for what it missed. */
  break(): void {
    this.#broken = true;
    this.isUp = false;
    this.#socket.terminate();
  }

  protected carry(payload: Buffer, id: number): void {
    const timeout = this.#timeouts();
    const data = payload.toString("base64");
    this.#socket.send(
      JSON.stringify({
        type: "send",
        id,
        data,
        encoding: "base64",
        ...(timeout !== undefined && { timeout }),
      }),
    );
  }

  #open(resume = ""): WebSocket {
    const { path } = this.options;
    const socket = this.connect(
      `${path}${path.includes("?") ? "&" : "?"}encoding=base64${resume}`,
      "rpmsg.v1.json",
    );
    socket.on("message", (data: Buffer) => {
      if (socket === this.#socket) this.#frame(ServerFrame.parse(JSON.parse(data.toString())));
    });
    socket.on("unexpected-response", (_request, { statusCode }) => this.over(`HTTP ${statusCode}`));
    socket.on("close", (code) => {
      if (!this.#broken) {
        this.over(`${code}`);
        return;
      }
      this.#broken = false;
      this.isResumed = true;
      this.options.sender.endedEarly = true;
      this.#socket = this.#open(`&resume=${this.#session}&after=${this.options.inbox.lastSeq}`);
    });
    return socket;
  }

  #frame(frame: ServerFrame): void {
    const { inbox } = this.options;
    if (frame.type === "hello") {
      this.#session = frame.session;
      if (!frame.resumed) inbox.begin(frame.local, frame.generation);
      this.isUp = true;
    } else if (frame.type === "message") {
      inbox.message(Buffer.from(frame.data, "base64"), frame.seq);
    } else if (frame.type === "dropped") {
      inbox.dropped(frame.count);
    } else if (frame.type === "sent") {
      this.result(Number(frame.id), "sent");
    } else if (frame.type === "error") {
      if (frame.id === undefined) this.options.problems.push(`an error without an id: ${frame.message}`);
      else this.result(Number(frame.id), frame.code);
    }
    this.heard();
  }
}
