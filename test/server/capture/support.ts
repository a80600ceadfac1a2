import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import { get } from "node:http";
import { onTestFinished } from "vitest";
import type { ReadMessage } from "../../../server/capture/message.ts";
import { readMessage } from "../../../server/capture/message.ts";
import type { CapturedItem, CapturedMessage } from "../../../server/capture/pcapng-reader.ts";
import { PcapngReader } from "../../../server/capture/pcapng-reader.ts";

/** A capture that is read as it comes. */
export class Captured {
  readonly items: CapturedItem[] = [];
  /** The connection is over. */
  ended = false;
  /** It ended between two blocks. */
  whole = false;
  readonly #response: IncomingMessage;
  readonly #reader = new PcapngReader();
  #wake: () => void = () => {};

  private constructor(response: IncomingMessage) {
    this.#response = response;
    response.on("data", (part: Buffer) => {
      this.items.push(...this.#reader.read(part));
      this.#wake();
    });
    response.on("error", () => {});
    response.once("close", () => {
      this.ended = true;
      this.whole = response.complete;
      if (this.whole) this.#reader.end();
      this.#wake();
    });
  }

  /** From the time on at which this returns, everything is captured. */
  static async start(url: string, query = "", headers: Record<string, string> = {}): Promise<Captured> {
    const [response] = (await once(
      get(`${url}/api/v1/capture?${query}`, { agent: false, headers }),
      "response",
    )) as [IncomingMessage];
    if (response.statusCode !== 200) throw new Error(`status ${response.statusCode}`);
    onTestFinished(() => void response.destroy());
    return new Captured(response);
  }

  get captured(): CapturedMessage[] {
    return this.items.flatMap((item) => (item.kind === "message" ? [item.message] : []));
  }

  get messages(): ReadMessage[] {
    return this.captured.flatMap((each) => readMessage(each) ?? []);
  }

  /** What the file says last of each interface, by name. */
  get statistics(): Record<string, { received: number; dropped: number }> {
    return Object.fromEntries(
      this.items.flatMap((item) =>
        item.kind === "statistics"
          ? [[item.interface.name, { received: item.received ?? -1, dropped: item.dropped ?? -1 }]]
          : [],
      ),
    );
  }

  /** Waits until it holds. */
  async until(what: string, probe: () => boolean): Promise<void> {
    while (!probe()) {
      if (this.ended) throw new Error(`the capture ended before ${what}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  async end(): Promise<void> {
    while (!this.ended) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  pause(): void {
    this.#response.pause();
  }

  resume(): void {
    this.#response.resume();
  }

  leave(): void {
    this.#response.destroy();
  }
}
