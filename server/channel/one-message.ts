import { errorAdvice } from "../../schemas/index.ts";
import type { ChannelEvents, ChannelPort, EndReason, UndeliveredCode } from "../endpoint-port.ts";
import type { ProblemCode } from "../problem.ts";
import { HttpProblem } from "../problem.ts";

/** A message that came back. */
export interface Reply {
  readonly src: number;
  readonly bytes: Buffer;
}

/** One message to an endpoint and, if wanted, the first one that comes back. */
export class OneMessage implements ChannelEvents<true> {
  /** Settles when the message is sent. */
  readonly sent: Promise<void>;
  /** The first message after it. */
  readonly reply: Promise<Reply>;
  #resolveSent: () => void = () => {};
  #resolveReply: (reply: Reply) => void = () => {};
  #rejectSent: (error: HttpProblem) => void = () => {};
  #rejectReply: (error: HttpProblem) => void = () => {};
  #port: ChannelPort<true> | undefined;
  #isSent = false;

  constructor() {
    this.sent = new Promise((resolve, reject) => {
      this.#resolveSent = resolve;
      this.#rejectSent = reject;
    });
    this.reply = new Promise((resolve, reject) => {
      this.#resolveReply = resolve;
      this.#rejectReply = reject;
    });
    // Whoever does not wait for one of them does not hear of its failure.
    this.sent.catch(() => {});
    this.reply.catch(() => {});
  }

  /** @param timeout milliseconds that it may wait for the guest */
  send(port: ChannelPort<true>, bytes: Uint8Array, timeout: number | undefined): void {
    this.#port = port;
    if (bytes.length > port.mtu) {
      this.#fail("too-large", `message of ${bytes.length} bytes, the most is ${port.mtu}`);
      return;
    }
    const code = port.send(undefined, bytes, 0, bytes.length, true, timeout);
    if (code === "sent") this.onSent();
    else if (code !== "queued") {
      const problem = code === "address-invalid" ? "bad-request" : code;
      this.#fail(problem, errorAdvice[problem]);
    }
  }

  /** Waits at most so many milliseconds for the reply. */
  async replyWithin(milliseconds: number): Promise<Reply> {
    const timer = setTimeout(() => this.#fail("no-reply", errorAdvice["no-reply"]), milliseconds);
    try {
      return await this.reply;
    } finally {
      clearTimeout(timer);
    }
  }

  /** It is over: whoever waits for something of it waits no longer. */
  close(): void {
    this.#port?.close();
    this.#fail("no-reply", "the client has left");
  }

  onMessage(src: number, bytes: Uint8Array, offset: number, length: number): void {
    // On an address that is shared others may have asked before.
    if (this.#isSent) this.#resolveReply({ src, bytes: Buffer.copyBytesFrom(bytes, offset, length) });
  }

  onWritable(): void {}

  onSent(): void {
    this.#isSent = true;
    this.#resolveSent();
  }

  onUndelivered(code: UndeliveredCode): void {
    this.#fail(code, errorAdvice[code]);
  }

  onUnconfirmed(): void {
    this.#fail("guest-gone", "the guest was reset and may not have read the message");
  }

  onChanged(): void {}

  onEnd(reason: EndReason): void {
    if (reason === "withdrawn") this.#fail("endpoint-gone", errorAdvice["endpoint-gone"]);
    else if (reason === "overloaded") this.#fail("overloaded", "too much waits for the guests");
    else if (reason === "replaced") this.#fail("endpoint-in-use", "another client took the endpoint over");
    else this.#fail("guest-gone", errorAdvice["guest-gone"]);
  }

  #fail(code: ProblemCode, detail: string): void {
    const problem = new HttpProblem(code, detail);
    this.#rejectSent(problem);
    this.#rejectReply(problem);
  }
}
