import type { Bound } from "./bound.ts";
import { Fifo } from "./fifo.ts";
import type { Message } from "./message.ts";

interface Receiver {
  resolve: (result: IteratorResult<Message, undefined>) => void;
  reject: (reason: unknown) => void;
}

/** Messages that wait to be taken: so many, and then the oldest are dropped. */
export class Inbox {
  readonly #bound: Bound;
  readonly #messages = new Fifo<Message>();
  #bytes = 0;
  /** Who waits for messages; there are no messages then. */
  readonly #receivers = new Fifo<Receiver>();
  readonly #onLeave: () => void;
  #end: { error: unknown } | undefined;

  /** @param onLeave told of each message that is taken or dropped */
  constructor(bound: Bound, onLeave: () => void) {
    this.#bound = bound;
    this.#onLeave = onLeave;
  }

  get size(): number {
    return this.#messages.size;
  }

  /** @returns how many were dropped for it */
  push(message: Message): number {
    const receiver = this.#receivers.shift();
    if (receiver !== undefined) {
      receiver.resolve({ done: false, value: message });
      this.#onLeave();
      return 0;
    }
    this.#messages.push(message);
    this.#bytes += message.cost;
    let dropped = 0;
    // The newest stays, however long it is.
    while (this.size > 1 && (this.size > this.#bound.messages || this.#bytes > this.#bound.bytes)) {
      this.shift();
      dropped++;
    }
    return dropped;
  }

  shift(): Message | undefined {
    const message = this.#messages.shift();
    if (message === undefined) return undefined;
    this.#bytes -= message.cost;
    this.#onLeave();
    return message;
  }

  /** The next message; after the end what is left, and then the end. */
  receive(): Promise<IteratorResult<Message, undefined>> {
    const value = this.shift();
    if (value !== undefined) return Promise.resolve({ done: false, value });
    return new Promise((resolve, reject) => {
      const receiver = { resolve, reject };
      if (this.#end === undefined) this.#receivers.push(receiver);
      else finish(receiver, this.#end.error);
    });
  }

  /** @param error what receivers get; undefined for a good end */
  close(error: unknown): void {
    this.#end ??= { error };
    for (let receiver = this.#receivers.shift(); receiver; receiver = this.#receivers.shift()) {
      finish(receiver, error);
    }
  }
}

function finish({ resolve, reject }: Receiver, error: unknown): void {
  if (error === undefined) resolve({ done: true, value: undefined });
  else reject(error);
}
