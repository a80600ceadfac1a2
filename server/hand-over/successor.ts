import { closeFd, connectUnix, errnoName, Poller, RecordSocket } from "../../rpmsg/index.ts";
import type { Inheritance } from "./bridge-state.ts";
import type { Message, State } from "./messages.ts";
import { decode, encode, HAND_OVER_VERSION, monotonic } from "./messages.ts";

/** Milliseconds in which the predecessor has to send its state: the most that it may give itself, and some. */
const STATE_TIMEOUT = 90_000;

/** Why a hand-over did not come about; the predecessor goes on. */
export class HandOverError extends Error {}

/** What a running bridge hands over, up to the moment at which it is ours. */
export class Succession implements Inheritance {
  readonly #socket: RecordSocket;
  readonly #poller: Poller;
  readonly #messages: Message[] = [];
  #end: string | undefined;
  #wake: () => void = () => {};
  #state: State | undefined;
  #fds: number[] = [];
  readonly #left = new Map<number, number>();

  private constructor(fd: number) {
    this.#poller = new Poller();
    this.#socket = new RecordSocket(fd, this.#poller, {
      onRecord: (payload, fds) => {
        this.#fds.push(...fds);
        this.#messages.push(decode(payload));
        this.#wake();
      },
      onClose: (error) => {
        this.#end = error?.message ?? "the connection was closed";
        this.#wake();
      },
    });
  }

  /**
   * Asks the running bridge for everything, and waits until it stands still.
   * @param path its `handover` socket
   * @throws HandOverError
   */
  static async begin(path: string): Promise<Succession> {
    const fd = connectUnix(path);
    if (fd < 0) throw new HandOverError(`cannot connect to ${path}: ${errnoName(fd)}`);
    const succession = new Succession(fd);
    try {
      await succession.#receiveState(path);
      return succession;
    } catch (error) {
      succession.giveUp();
      throw error;
    }
  }

  get state(): State["bridge"] {
    return (this.#state as State).bridge;
  }

  /** Whether the predecessor listens there. */
  listens(listen: string): boolean {
    return (this.#state as State).listen.text === listen;
  }

  /** The predecessor's listening socket, where it listens there. */
  listener(listen: string): number | undefined {
    return this.listens(listen) ? this.take((this.#state as State).listen.fd) : undefined;
  }

  take(fd: number): number {
    const own = this.#left.get(fd);
    if (own === undefined) throw new HandOverError(`the state names descriptor ${fd}, which did not come`);
    this.#left.delete(fd);
    return own;
  }

  /**
   * Everything is prepared: waits until the predecessor has let go. From then on all is this process's.
   * @throws HandOverError it goes on by itself
   */
  async complete(): Promise<void> {
    this.#socket.send(encode({ type: "ready" }));
    const answer = await this.#next();
    const { deadline } = this.#state as State;
    // Had it gone on by itself it would have said so, or its time be over: it ended while it stood still.
    const orphaned = answer === undefined && monotonic() < deadline;
    if (answer?.type !== "yours" && !orphaned) throw new HandOverError(this.#why(answer));
    this.#finish();
  }

  /** Closes all that came. */
  giveUp(): void {
    this.#finish();
  }

  #finish(): void {
    this.#socket.close();
    this.#poller.close();
    for (const fd of this.#left.values()) closeFd(fd);
    this.#left.clear();
  }

  async #receiveState(path: string): Promise<void> {
    this.#socket.send(
      encode({ type: "hello", protocol: "rpmsg-bridge-hand-over", version: HAND_OVER_VERSION }),
    );
    const timer = setTimeout(() => this.#socket.close(new Error("no answer came")), STATE_TIMEOUT);
    const answer = await this.#next();
    clearTimeout(timer);
    if (answer?.type !== "state") {
      for (const fd of this.#fds) closeFd(fd);
      if (answer === undefined) {
        throw new HandOverError(`${path} is not the hand-over socket of a running bridge: ${this.#end}`);
      }
      throw new HandOverError(this.#why(answer));
    }
    this.#state = answer;
    for (const [index, fd] of answer.descriptors.entries()) {
      const own = this.#fds[index];
      if (own !== undefined) this.#left.set(fd, own);
    }
  }

  #why(answer: Message | undefined): string {
    if (answer?.type === "refused") return `the running bridge refuses: ${answer.reason}`;
    if (answer === undefined) return `the running bridge has gone: ${this.#end}`;
    return `the running bridge said "${answer.type}"`;
  }

  /** The next message; undefined at the end. */
  async #next(): Promise<Message | undefined> {
    while (this.#messages.length === 0 && this.#end === undefined) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.#messages.shift();
  }
}
