import type { Rate } from "../schemas/index.ts";
import { TokenBucket } from "./access/token-bucket.ts";
import type { CountedLimit } from "./counted-limits.ts";
import type { Log } from "./log.ts";
import type { LogEventName, LogFields } from "./log-events.ts";
import { logEvents } from "./log-events.ts";
import type { Tally } from "./tally.ts";

/** Milliseconds in which the same event is one burst. */
const BURST = 10_000;
/** Most bursts at a time that are told apart. */
const MOST_BURSTS = 256;

/** How many lines all logs of a bridge may write for what guests and clients cause, whatever it is. */
export class LineRate {
  readonly #bucket: TokenBucket;
  readonly #counters: Tally<CountedLimit>;
  #left = 0;

  constructor(rate: Rate, counters: Tally<CountedLimit>, now?: () => number) {
    this.#bucket = new TokenBucket(rate, now);
    this.#counters = counters;
  }

  /** @returns whether a line may be written; else it counts as left out */
  take(): boolean {
    if (this.#bucket.take() === 0) return true;
    this.#left++;
    this.#counters.add("logRate");
    return false;
  }

  /** Lines that were left out since it was asked last. */
  takeLeft(): number {
    const left = this.#left;
    this.#left = 0;
    return left;
  }
}

/**
 * A log for what guests and clients cause: of a burst of the same event only the first is written, and at its end how
 * many there were. Nobody can fill a disk with it, unless somebody asks for what every client does (debug).
 */
export class BurstLog {
  readonly #log: Log;
  readonly #lines: LineRate;
  readonly #bursts = new Map<string, { repeated: number; timer: NodeJS.Timeout }>();

  /** @param lines the bound that it has together with others */
  constructor(log: Log, lines: LineRate) {
    this.#log = log;
    this.#lines = lines;
  }

  write<Name extends LogEventName>(event: Name, fields: LogFields<Name>): void {
    if (!this.#log.isEnabled(event)) return;
    if (logEvents[event].level === "debug") {
      this.#log.write(event, fields);
      return;
    }
    const { code, state, reason }: Partial<Record<string, string | number>> = fields;
    // The fields that are from small sets tell events apart; mistakes of our own are few.
    const kind = code ?? state ?? reason ?? "";
    const key = this.#bursts.size < MOST_BURSTS ? `${event} ${kind}` : event;
    const burst = this.#bursts.get(key);
    if (burst !== undefined) {
      burst.repeated++;
      return;
    }
    this.#line(event, fields);
    const timer = setTimeout(() => {
      const { repeated = 0 } = this.#bursts.get(key) ?? {};
      this.#bursts.delete(key);
      if (repeated > 0) this.#line(event, fields, { repeated });
    }, BURST).unref();
    this.#bursts.set(key, { repeated: 0, timer });
  }

  #line<Name extends LogEventName>(event: Name, fields: LogFields<Name>, more?: { repeated: number }): void {
    // What others cause is no reason to leave out a mistake of the bridge.
    if (logEvents[event].level !== "error") {
      if (!this.#lines.take()) return;
      const lines = this.#lines.takeLeft();
      if (lines > 0) this.#log.write("log-lines-left-out", { lines });
    }
    this.#log.write(event, fields, more);
  }
}
