import { signal } from "@preact/signals";
import type { Channel, Message } from "../client/index.ts";
import { connect } from "../client/index.ts";
import { History } from "./history.ts";
import { withPicture } from "./pace.ts";
import { bridge, credentials } from "./session.ts";
import type { Trouble } from "./trouble.ts";
import { troubleOf } from "./trouble.ts";

/** Milliseconds between two looks at what came. */
const LOOK = 100;
/**
 * Messages that may be on their way to this page: so many come with a picture, at most, since the browser hands them
 * to it one by one, and a click waits for those before it.
 */
const AHEAD = 256;

/** The page's channel to an endpoint, and what went over it. */
export class Talk {
  readonly path: string;
  readonly history = new History();
  readonly connection = signal<"connecting" | "open" | "reconnecting" | "closed">("connecting");
  /** Longest message, in bytes, and the channel's own address; 0 before it is open. */
  readonly mtu = signal(0);
  readonly local = signal(0);
  /** Why it is closed. */
  readonly trouble = signal<Trouble | undefined>(undefined);
  /** What became of the last message that failed. */
  readonly failure = signal<Trouble | undefined>(undefined);
  /** Messages that never came: the bridge had more than this page takes. */
  readonly dropped = signal(0);
  /** Grows when `history` has changed, a few times a second. */
  readonly changes = signal(0);
  /** Whether the guest was asked for what it does not say by itself; false again where it does not know of it any more. */
  readonly asked = signal(false);
  readonly #listeners = new Set<(message: Message) => void>();
  readonly #abort = new AbortController();
  #channel: Channel | undefined;
  #said = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @param path of the endpoint, as it is listed */
  constructor(path: string) {
    this.path = path;
    void this.open();
  }

  /** Connects, again where it has failed. */
  async open(): Promise<void> {
    this.connection.value = "connecting";
    this.trouble.value = undefined;
    try {
      const url = new URL(this.path.replace(/^\//, ""), bridge);
      // Of more than a page shows the bridge sends a sample, and tells how many are left out; nobody is held up.
      const options = { slow: "drop-oldest", credit: AHEAD, pace: withPicture } as const;
      this.#use(await connect(url, { ...credentials(), ...options, signal: this.#abort.signal }));
    } catch (error) {
      if (this.#abort.signal.aborted) return;
      this.trouble.value = troubleOf(error);
      this.connection.value = "closed";
    }
  }

  /** @returns once the message is in the guest's queue, and whether it is */
  async send(data: string | Uint8Array): Promise<boolean> {
    const channel = this.#channel;
    if (channel === undefined) {
      this.failure.value = { text: "There is no connection.", code: "closed", advice: "Connect first." };
      return false;
    }
    try {
      const taken = channel.send(data);
      this.#said = true;
      await taken;
      this.failure.value = undefined;
      const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
      this.history.add("to", Date.now(), undefined, () => bytes);
      this.changed();
      return true;
    } catch (error) {
      if (!this.#abort.signal.aborted) this.failure.value = troubleOf(error);
      return false;
    }
  }

  /** Calls it with every message, those that the history does not keep too. @returns ends that */
  onMessage(listener: (message: Message) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Says something to the guest that nobody typed, once. */
  async ask(text: string): Promise<void> {
    if (this.asked.value) return;
    this.asked.value = true;
    await this.send(text);
  }

  /** Says the last thing to the guest, if anything was said to it. It is written at once: the page may be gone then. */
  async leave(text: string): Promise<void> {
    if (this.#said) await this.#channel?.send(text).catch(() => {});
  }

  /** @param last is said to the guest before, if anything was said to it */
  async close(last?: string): Promise<void> {
    if (last !== undefined) await this.leave(last);
    clearTimeout(this.#timer);
    this.#abort.abort();
    this.#channel?.close();
  }

  changed(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.changes.value++;
    }, LOOK);
  }

  #use(channel: Channel): void {
    this.#channel = channel;
    const facts = (): void => {
      this.mtu.value = channel.mtu;
      this.local.value = channel.local;
      this.connection.value = channel.state.connection;
    };
    const note = (text: string): void => {
      this.history.note(Date.now(), text);
      this.changed();
    };
    channel.on("message", (message) => {
      this.history.add("from", Date.now(), message.src, () => message.data);
      for (const listener of this.#listeners) listener(message);
      this.changed();
    });
    channel.on("state", ({ connection, reason }) => {
      facts();
      if (connection === "reconnecting")
        note(`the connection is lost${reason ? ` (${reason})` : ""}: connecting again`);
    });
    channel.on("generation", ({ previous, current, resumed }) => {
      if (!resumed || previous !== current) {
        this.#said = false;
        this.asked.value = false;
      }
      const lost = resumed ? "" : "; messages in between are lost";
      note(previous === current ? `a new session${lost}` : `generation ${previous} → ${current}${lost}`);
    });
    channel.on("dropped", ({ count, by }) => {
      this.dropped.value += count ?? 0;
      const many = count === undefined ? "messages" : `${count} messages`;
      note(
        by === "bridge"
          ? `the bridge left ${many} out: more than this page takes`
          : `this page dropped ${many}`,
      );
    });
    channel.on("error", (error) => note(`${error.message} (${error.code})`));
    channel.on("close", ({ error }) => {
      if (this.#abort.signal.aborted) return;
      this.#channel = undefined;
      this.connection.value = "closed";
      if (error !== undefined) this.trouble.value = troubleOf(error);
    });
    facts();
  }
}
