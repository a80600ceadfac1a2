import type { ServerFrame } from "../../schemas/index.ts";
import { explain } from "./advice.ts";
import type { Channel } from "./channel.ts";
import { CommandError } from "./command-error.ts";
import { count, printable } from "./terminal.ts";

/** Milliseconds without a message after which replies to piped input are over. */
const LINGER = 500;

/** What all ways to talk to an endpoint have in common: output that may be slow, notes for people, and the end. */
export class Talk {
  readonly channel: Channel;
  /** The terminal is in raw mode: it does not return the carriage by itself. */
  raw = false;
  #failures = 0;
  #lastFailure = "";
  #full = false;
  #quiet: NodeJS.Timeout | undefined;

  constructor(channel: Channel) {
    this.channel = channel;
  }

  /** Writes to standard output. While it takes no more, the bridge keeps what comes. */
  show(data: string | Uint8Array): void {
    this.#quiet?.refresh();
    if (process.stdout.write(data) || this.#full) return;
    this.#full = true;
    this.channel.pause();
    process.stdout.once("drain", () => {
      this.#full = false;
      this.channel.resume();
    });
  }

  /** Says on a terminal that it may be typed now, and which key leaves. */
  greet(key: string): void {
    const { guest, endpoint } = this.channel.hello;
    if (!process.stdin.isTTY) return;
    this.#tellPeople(`connected to ${guest}/${printable(endpoint)}, ${key} leaves`);
  }

  /** A line for people, on standard error. */
  note(text: string): void {
    this.#tellPeople(`rpmsg-bridge: ${text}`);
  }

  /** A message was not delivered, or could not be sent at all. */
  countFailure(): void {
    this.#failures++;
  }

  /** The same, told to people. Why is not said again for each message. */
  failed(text: string): void {
    this.countFailure();
    if (text !== this.#lastFailure) this.note(text);
    this.#lastFailure = text;
  }

  /** Sends a message and tells if it does not arrive. */
  send(data: Buffer): void {
    this.channel.send(data).then(
      (failure) => {
        if (failure !== undefined) this.failed(failure);
        else this.#lastFailure = "";
        this.#quiet?.refresh();
      },
      // The end of the connection is told once, by whoever waits for it.
      () => {},
    );
  }

  /** Shows messages, and tells people of everything else. */
  listen(onMessage: (bytes: Buffer) => void): void {
    this.channel.listen((frame) => {
      if (frame?.type === "message") onMessage(Buffer.from(frame.data, frame.encoding));
      else if (frame !== undefined) this.#tell(frame);
    });
  }

  /**
   * Ends the conversation. What was asked by a pipe may still be answered: then not before it is known what became of
   * all messages, and no more answers come.
   * @throws CommandError where messages were not delivered
   */
  async finish(unsettled: () => number): Promise<void> {
    if (process.stdin.isTTY || !this.channel.open) return this.channel.close();
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => {
        if (unsettled() === 0) resolve();
        else timer.refresh();
      }, LINGER);
      this.#quiet = timer;
      this.channel.closed.then(resolve, resolve);
    });
    clearTimeout(this.#quiet);
    this.#quiet = undefined;
    this.channel.close();
    if (this.#failures > 0) throw new CommandError(`${count(this.#failures, "message")} not delivered`);
  }

  #tellPeople(line: string): void {
    process.stderr.write(line + (this.raw ? "\r\n" : "\n"));
  }

  #tell(frame: ServerFrame): void {
    const { guest } = this.channel.hello;
    if (frame.type === "error") this.failed(explain(frame.message, frame.code));
    else if (frame.type === "dropped") this.note(`${count(frame.count, "message")} dropped: read faster`);
    else if (frame.type === "state" && frame.state === "down") {
      this.note(`the endpoint is down: ${frame.reason}, guest ${guest} is at generation ${frame.generation}`);
    } else if (frame.type === "state") {
      const { endpointState, guestState, generation } = frame;
      this.note(
        `guest ${guest} is ${guestState}, generation ${generation}; the endpoint is ${endpointState}`,
      );
    }
  }
}
