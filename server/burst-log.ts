import type { Logger } from "pino";
import type { Rate } from "../schemas/index.ts";
import { TokenBucket } from "./access/token-bucket.ts";
import type { CountedLimit } from "./counted-limits.ts";
import type { Tally } from "./tally.ts";

/** Milliseconds in which the same event is one burst. */
const BURST = 10_000;

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

type Fields = Readonly<Record<string, string | number>>;

/**
 * A log for what guests and clients cause: of a burst of the same event only the first is written, and at its end how
 * many there were. Nobody can fill a disk with it.
 */
export class BurstLog {
  readonly #logger: Logger;
  readonly #lines: LineRate;
  readonly #bursts = new Map<string, { repeated: number; timer: NodeJS.Timeout }>();

  /** @param lines the bound that it has together with others */
  constructor(logger: Logger, lines: LineRate) {
    this.#logger = logger;
    this.#lines = lines;
  }

  info(event: string, fields: Fields): void {
    this.#write("info", event, fields);
  }

  warn(event: string, fields: Fields): void {
    this.#write("warn", event, fields);
  }

  #write(level: "info" | "warn", event: string, fields: Fields): void {
    // The fields that are from small sets tell events apart.
    const key = `${event} ${fields["code"] ?? fields["state"] ?? ""}`;
    const burst = this.#bursts.get(key);
    if (burst !== undefined) {
      burst.repeated++;
      return;
    }
    this.#line(level, { event, ...fields });
    const timer = setTimeout(() => {
      const { repeated = 0 } = this.#bursts.get(key) ?? {};
      this.#bursts.delete(key);
      if (repeated > 0) this.#line(level, { event, ...fields, repeated });
    }, BURST).unref();
    this.#bursts.set(key, { repeated: 0, timer });
  }

  #line(level: "info" | "warn", fields: Fields): void {
    if (!this.#lines.take()) return;
    const lines = this.#lines.takeLeft();
    if (lines > 0) this.#logger.warn({ event: "log-lines-left-out", lines });
    this.#logger[level](fields);
  }
}
