import type { ServiceContext } from "./service.ts";

/** What a message costs besides its bytes, so that empty ones count too. */
const MESSAGE_COST = 16;

/** Messages of a service that wait for buffers, in order. */
export class OutputQueue {
  readonly #context: Pick<ServiceContext, "send">;
  readonly #messages: { dst: number; bytes: Uint8Array }[] = [];
  #cost = 0;

  constructor(context: Pick<ServiceContext, "send">) {
    this.#context = context;
  }

  /** Messages that wait. */
  get length(): number {
    return this.#messages.length;
  }

  /** Bytes that wait, and a few for each message. */
  get cost(): number {
    return this.#cost;
  }

  /** Sends as soon as all before it is sent. The bytes are not copied. */
  push(dst: number, bytes: Uint8Array): void {
    this.#messages.push({ dst, bytes });
    this.#cost += bytes.length + MESSAGE_COST;
    if (this.#messages.length === 1) this.flush();
  }

  /** @returns whether nothing waits any more */
  flush(): boolean {
    for (let first = this.#messages[0]; first !== undefined; first = this.#messages[0]) {
      if (!this.#context.send(first.dst, first.bytes)) return false;
      this.#cost -= first.bytes.length + MESSAGE_COST;
      this.#messages.shift();
    }
    return true;
  }

  clear(): void {
    this.#messages.length = 0;
    this.#cost = 0;
  }
}
