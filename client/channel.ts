import type { ReconnectOptions } from "./backoff.ts";
import { Backoff } from "./backoff.ts";
import type { Bound } from "./bound.ts";
import type { ChannelEnd, ChannelEvents, ChannelState } from "./channel-events.ts";
import { errorOf, FINAL, GONE, RESTART, SLOW_READER } from "./close-codes.ts";
import type { ChannelFrame, ConnectionEnd } from "./connection.ts";
import { Connection } from "./connection.ts";
import type { Credit } from "./credit.ts";
import { Emitter } from "./emitter.ts";
import { RpmsgError } from "./errors.ts";
import type { Frame } from "./frames.ts";
import { Inbox } from "./inbox.ts";
import { Message } from "./message.ts";
import type { SendOptions } from "./outbox.ts";
import { Outbox } from "./outbox.ts";
import type { WebSocketLike } from "./web-socket.ts";

/** What a channel is made with. */
export interface ChannelSetup {
  /** Opens a WebSocket; with the session to go on with, where there is one, and the last `seq` of it. */
  dial: (resume: { session: string; after: number } | undefined) => WebSocketLike | Promise<WebSocketLike>;
  /** Finds out why no connection came about. */
  explain: () => Promise<RpmsgError>;
  reconnect: ReconnectOptions | false;
  timeout: number;
  pingInterval: number;
  window: Bound;
  queue: Bound;
  inbox: Bound;
  /** Undefined where any number of messages may come. */
  credit: Credit | undefined;
  signal: AbortSignal | undefined;
}

/**
 * A channel to one endpoint: an open line to one service of a guest. Messages that come wait for the first `message`
 * listener or loop over the channel.
 */
export class Channel implements AsyncIterable<Message> {
  /** Resolves when the channel is open; rejects when it came to its end before. */
  readonly opened: Promise<this>;
  /** Resolves when the channel is over. */
  readonly closed: Promise<ChannelEnd>;
  readonly #setup: ChannelSetup;
  readonly #events = new Emitter<ChannelEvents>();
  readonly #inbox: Inbox;
  readonly #outbox: Outbox;
  readonly #backoff: Backoff;
  #state: ChannelState = { connection: "reconnecting", guestState: "waiting", endpointState: "declared" };
  #connection: Connection | undefined;
  /** The one before, which was lost. */
  #previous: Connection | undefined;
  #hello: Frame<"hello"> | undefined;
  #openedAt = 0;
  /** The session may go on. */
  #resumable = false;
  #seq = 0;
  #failures = 0;
  #retry: ReturnType<typeof setTimeout> | undefined;
  /** Somebody takes from the inbox. */
  #taken = false;
  #draining = false;
  #open!: (channel: this) => void;
  #refuse!: (error: unknown) => void;
  #close!: (end: ChannelEnd) => void;
  readonly #onAbort = (): void => {
    this.#refuse(this.#setup.signal?.reason);
    this.close();
  };

  constructor(setup: ChannelSetup) {
    this.#setup = setup;
    this.#inbox = new Inbox(setup.inbox, () => setup.credit?.took());
    this.#outbox = new Outbox(setup.window, setup.queue);
    this.#backoff = new Backoff(setup.reconnect === false ? {} : setup.reconnect);
    this.opened = new Promise((resolve, reject) => {
      this.#open = resolve;
      this.#refuse = reject;
    });
    this.closed = new Promise((resolve) => {
      this.#close = resolve;
    });
    setup.signal?.addEventListener("abort", this.#onAbort);
    if (setup.signal?.aborted === true) this.#onAbort();
    else this.#dial();
  }

  /** The guest's name. */
  get guest(): string {
    return this.#hello?.guest ?? "";
  }

  /** The endpoint's name. */
  get endpoint(): string {
    return this.#hello?.endpoint ?? "";
  }

  /** The channel's own address. It may change with a new session. */
  get local(): number {
    return this.#hello?.local ?? 0;
  }

  /** Number of the guest's attachment: it grows with every reset. */
  get generation(): number {
    return this.#hello?.generation ?? 0;
  }

  /** Longest message, in bytes. */
  get mtu(): number {
    return this.#hello?.mtu ?? 0;
  }

  get state(): ChannelState {
    return this.#state;
  }

  /**
   * Sends a message: a string as its UTF-8 bytes. Messages go out in the order of the calls; a bounded number is on
   * its way at a time, and a bounded number waits.
   * @returns resolves when the message is in the guest's queue
   * @throws RpmsgError `too-large`, `no-peer`, `no-buffer`, `guest-gone`, `endpoint-gone`, `forbidden`: the bridge's
   * answer; `queue-full`: too many wait; `connection-lost`: its fate is not known; `closed`. The reason of `signal`.
   */
  send(data: string | Uint8Array, options: SendOptions = {}): Promise<void> {
    return this.#outbox.send(data, options);
  }

  /**
   * The next message that nobody has taken.
   * @throws RpmsgError when the channel has ended; `closed` where it was closed here
   */
  async receive(): Promise<Message> {
    const { done, value } = await this.#take();
    if (done === true) throw closedHere();
    return value;
  }

  /**
   * Messages as they come. The loop ends when the channel is closed here, and throws where it ends otherwise. A loop
   * that is left may be entered again; of two at a time each gets a part.
   */
  [Symbol.asyncIterator](): AsyncIterator<Message, undefined> {
    return { next: () => this.#take() };
  }

  /**
   * Listens.
   * @returns a function that ends it
   */
  on<Type extends keyof ChannelEvents>(
    type: Type,
    listener: (event: ChannelEvents[Type]) => void,
  ): () => void {
    const off = this.#events.on(type, listener);
    if (type === "message" && !this.#taken && !this.#draining && this.#inbox.size > 0) {
      this.#draining = true;
      // Not at once: the caller does not have its `off` yet.
      queueMicrotask(() => this.#drain());
    }
    return off;
  }

  /** Ends the channel. Messages that were not answered yet are given up: wait for their promises before. */
  close(): void {
    this.#finish({ code: 1000, reason: "", error: undefined });
  }

  // ---- connections ----

  #dial(): void {
    const session = this.#resumable ? this.#hello?.session : undefined;
    const resume = session === undefined ? undefined : { session, after: this.#seq };
    try {
      const opening = this.#setup.dial(resume);
      if (opening instanceof Promise) {
        opening.then(
          (socket) => this.#use(socket, resume !== undefined),
          (cause: unknown) => this.#failed({ code: 1006, reason: "", error: asError(cause) }),
        );
      } else this.#use(opening, resume !== undefined);
    } catch (cause) {
      // A page from https: may not open ws:, for one.
      const error = new RpmsgError("unreachable", `no WebSocket can be opened: ${String(cause)}`, { cause });
      this.#finish({ code: 1006, reason: "", error });
    }
  }

  #use(socket: WebSocketLike, resume: boolean): void {
    // Closed while a ticket was fetched.
    if (this.#state.connection === "closed") {
      socket.close(1000);
      return;
    }
    const { timeout, pingInterval } = this.#setup;
    let up = false;
    const connection = new Connection(
      socket,
      {
        onHello: (hello) => {
          up = true;
          this.#connected(connection, hello, resume && hello.resumed);
        },
        onFrame: (frame) => this.#frame(frame),
        onBadFrame: (error) => this.#events.emit("error", error),
        onEnd: (end) => (up ? this.#lost(end) : void this.#failed(end)),
      },
      { timeout, pingInterval },
    );
    this.#connection = connection;
  }

  #connected(connection: Connection, hello: Frame<"hello">, resumed: boolean): void {
    this.#previous?.close();
    this.#previous = undefined;
    const previous = this.#hello;
    this.#hello = hello;
    this.#openedAt = performance.now();
    this.#failures = 0;
    this.#resumable = true;
    if (!resumed) this.#seq = 0;
    this.#setup.credit?.connected((frame) => connection.write(frame), this.#inbox.size);
    if (previous !== undefined) {
      const reset = previous.generation !== hello.generation || previous.instance !== hello.instance;
      if (!resumed) {
        this.#outbox.giveUp(reset ? "guest-gone" : "connection-lost", "the session could not be resumed");
      }
      if (!resumed || reset) {
        const { generation } = hello;
        this.#events.emit("generation", { previous: previous.generation, current: generation, resumed });
      }
    }
    const { guestState, endpointState } = hello;
    this.#change({ connection: "open", guestState, endpointState });
    this.#open(this);
    this.#outbox.connected((frame) => connection.write(frame));
  }

  /** The connection ended. */
  #lost(end: ConnectionEnd): void {
    // Not closed yet where it went silent: a close frame that comes through would end the session.
    this.#previous = this.#connection;
    this.#connection = undefined;
    this.#outbox.disconnected();
    this.#backoff.lasted(performance.now() - this.#openedAt);
    const gone = GONE[end.code];
    if (gone !== undefined) {
      this.#resumable = false;
      this.#outbox.giveUp(gone, gone === "guest-gone" ? "the guest was reset" : "the endpoint was withdrawn");
    }
    // The bridge had more to write than it keeps.
    if (end.code === SLOW_READER) this.#events.emit("dropped", { count: undefined, by: "bridge" });
    if (FINAL.includes(end.code) || this.#setup.reconnect === false) {
      this.#finish({ ...end, error: end.error ?? errorOf(end) });
      return;
    }
    this.#change({ ...this.#state, connection: "reconnecting" });
    if (end.code === RESTART) this.#retry = setTimeout(() => this.#dial(), 0);
    else this.#later();
  }

  /** A connection did not come about. */
  async #failed(end: ConnectionEnd): Promise<void> {
    this.#connection = undefined;
    this.#failures++;
    const { reconnect, explain } = this.#setup;
    const { initial = false, attempts = Number.POSITIVE_INFINITY } = reconnect === false ? {} : reconnect;
    const goesOn = (this.#hello !== undefined || initial) && this.#failures < attempts;
    // A token that is not taken now is not taken later.
    if (goesOn && end.error?.code !== "unauthorized") {
      this.#later();
      return;
    }
    const error = end.error ?? (await explain());
    this.#finish({ ...end, error });
  }

  #later(): void {
    if (this.#state.connection === "closed") return;
    this.#retry = setTimeout(() => this.#dial(), this.#backoff.next());
  }

  #finish(end: ChannelEnd): void {
    if (this.#state.connection === "closed") return;
    clearTimeout(this.#retry);
    this.#setup.signal?.removeEventListener("abort", this.#onAbort);
    this.#connection?.close();
    this.#previous?.close();
    this.#outbox.close(end.error ?? closedHere());
    this.#inbox.close(end.error);
    this.#refuse(end.error ?? closedHere());
    this.#change({ ...this.#state, connection: "closed" });
    this.#events.emit("close", end);
    this.#close(end);
  }

  // ---- frames ----

  #frame(frame: ChannelFrame): void {
    switch (frame.type) {
      case "message":
        this.#message(frame);
        break;
      case "sent":
        this.#outbox.answered(frame.id);
        break;
      case "error": {
        const error = new RpmsgError(frame.code, frame.message);
        const answered = frame.id !== undefined && this.#outbox.answered(frame.id, error);
        // After `sent` it is about a message that the guest may not have read when it was reset. Any other result of an
        // answered message has come a second time, after a connection that broke.
        if (frame.id === undefined || (!answered && frame.code === "guest-gone")) {
          this.#events.emit("error", error);
        }
        break;
      }
      case "dropped":
        this.#events.emit("dropped", { count: frame.count, by: "bridge" });
        break;
      case "state": {
        const { guestState, endpointState, reason } = frame;
        this.#change({
          connection: "open",
          guestState,
          endpointState,
          ...(reason !== undefined && { reason }),
        });
        break;
      }
    }
  }

  #message(frame: Frame<"message">): void {
    // It came before the connection was lost.
    if (frame.seq <= this.#seq) {
      this.#setup.credit?.took();
      return;
    }
    this.#seq = frame.seq;
    const message = Message.from(frame);
    if (message === undefined) {
      this.#setup.credit?.took();
      this.#events.emit(
        "error",
        new RpmsgError("bad-frame", `message ${frame.seq} is not ${frame.encoding}`),
      );
      return;
    }
    const heard = this.#events.has("message") && !this.#draining;
    if (!heard || this.#taken) {
      const count = this.#inbox.push(message);
      if (count > 0) this.#events.emit("dropped", { count, by: "client" });
    } else this.#setup.credit?.took();
    if (heard) this.#events.emit("message", message);
  }

  #take(): Promise<IteratorResult<Message, undefined>> {
    this.#taken = true;
    return this.#inbox.receive();
  }

  /** What came before there was a listener. */
  #drain(): void {
    while (this.#events.has("message")) {
      const message = this.#inbox.shift();
      if (message === undefined) break;
      this.#events.emit("message", message);
    }
    this.#draining = false;
  }

  #change(state: ChannelState): void {
    this.#state = state;
    this.#events.emit("state", state);
  }
}

function asError(cause: unknown): RpmsgError {
  if (cause instanceof RpmsgError) return cause;
  return new RpmsgError("unreachable", `no ticket can be had: ${String(cause)}`, { cause });
}

function closedHere(): RpmsgError {
  return new RpmsgError("closed", "the channel was closed");
}
