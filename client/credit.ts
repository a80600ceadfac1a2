import type { ClientFrameInput } from "../schemas/index.ts";

/** How many messages the bridge may send before those that came were taken. What is more waits there. */
export class Credit {
  /** Messages that may be on their way here, or here and not taken. */
  readonly window: number;
  readonly #pace: (grant: () => void) => void;
  #write: (frame: string) => void = () => {};
  /** Messages of the connection before that are not taken yet: they cost this one nothing. */
  #old = 0;
  /** Messages that were taken, and not granted anew yet. */
  #taken = 0;
  #asked = false;

  /** @param pace calls back when more may come */
  constructor(window: number, pace: (grant: () => void) => void) {
    this.window = window;
    this.#pace = pace;
  }

  /**
   * A connection begins, with the whole window.
   * @param old messages that came before and are not taken yet
   */
  connected(write: (frame: string) => void, old: number): void {
    this.#write = write;
    this.#old = old;
    this.#taken = 0;
  }

  /** One message was taken, or is of no use. */
  took(): void {
    if (this.#old > 0) {
      this.#old--;
      return;
    }
    // A frame for each would cost more than it brings.
    if (++this.#taken < this.window / 2 || this.#asked) return;
    this.#asked = true;
    this.#pace(() => this.#grant());
  }

  #grant(): void {
    this.#asked = false;
    // Those before went with another connection.
    if (this.#taken < this.window / 2) return;
    const messages = this.#taken;
    this.#taken = 0;
    this.#write(JSON.stringify({ type: "credit", messages } satisfies ClientFrameInput));
  }
}
