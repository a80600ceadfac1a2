import type { ServerFrame } from "../schemas/index.ts";
import { fromText, utf8Bytes, utf8Text } from "./bytes.ts";

type MessageFrame = Extract<ServerFrame, { type: "message" }>;

/** A message of the guest. */
export class Message {
  /** Counts the channel's messages from 1 on; a gap is what was dropped. It starts again with a new session. */
  readonly seq: number;
  /** The address that it came from. */
  readonly src: number;
  #data: Uint8Array | undefined;
  #text: string | undefined;

  private constructor({ seq, src }: MessageFrame) {
    this.seq = seq;
    this.src = src;
  }

  /** @returns undefined where the data are not in their encoding */
  static from(frame: MessageFrame): Message | undefined {
    const message = new Message(frame);
    if (frame.encoding === "utf8") message.#text = frame.data;
    else {
      message.#data = fromText(frame.data, frame.encoding);
      if (message.#data === undefined) return undefined;
    }
    return message;
  }

  /** The payload. */
  get data(): Uint8Array {
    this.#data ??= utf8Bytes(this.#text ?? "");
    return this.#data;
  }

  /** The payload as text; bytes that are not UTF-8 become U+FFFD. */
  get text(): string {
    this.#text ??= utf8Text(this.data);
    return this.#text;
  }

  /** About what it takes in memory, in bytes. */
  get cost(): number {
    return (this.#data?.length ?? 0) + (this.#text?.length ?? 0);
  }
}
