import type { Logger } from "pino";

/** Milliseconds in which the same event is one burst. */
const BURST = 10_000;

type Fields = Readonly<Record<string, string | number>>;

/**
 * A log for what guests and clients cause: of a burst of the same event only the first is written, and at its end how
 * many there were. Nobody can fill a disk with it.
 */
export class BurstLog {
  readonly #logger: Logger;
  readonly #bursts = new Map<string, { repeated: number; timer: NodeJS.Timeout }>();

  constructor(logger: Logger) {
    this.#logger = logger;
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
    this.#logger[level]({ event, ...fields });
    const timer = setTimeout(() => {
      const { repeated = 0 } = this.#bursts.get(key) ?? {};
      this.#bursts.delete(key);
      if (repeated > 0) this.#logger[level]({ event, ...fields, repeated });
    }, BURST).unref();
    this.#bursts.set(key, { repeated: 0, timer });
  }
}
