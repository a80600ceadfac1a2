import type { Logger } from "pino";
import { withoutCredentials } from "./access/credentials.ts";
import type { LogEventName, LogFields } from "./log-events.ts";
import { logEvents } from "./log-events.ts";

/** Most characters of a field: whoever makes the text may be hostile. */
const MOST_TEXT = 512;
/** Those of a mistake of our own. */
const MOST_STACK = 8192;

/** Writes the bridge's events: no others, and with the level and the fields that they have. */
export class Log {
  readonly #logger: Logger;

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  /** As this one, with a guest in every line. */
  forGuest(guest: string): Log {
    return new Log(this.#logger.child({ guest }));
  }

  isEnabled(event: LogEventName): boolean {
    return this.#logger.isLevelEnabled(logEvents[event].level);
  }

  /** @param more fields that all events may have */
  write<Name extends LogEventName>(
    event: Name,
    fields: LogFields<Name>,
    more?: { readonly repeated: number },
  ): void {
    if (!this.isEnabled(event)) return;
    const line: Record<string, string | number> = { event };
    for (const [name, value] of Object.entries<string | number>({ ...fields, ...more })) {
      line[name] =
        typeof value === "string" ? legible(value, name === "stack" ? MOST_STACK : MOST_TEXT) : value;
    }
    this.#logger[logEvents[event].level](line);
  }
}

/**
 * A text of whoever, for those who read logs: bounded, without credentials, and what would steer a terminal, turn the reading direction or
 * not be seen is written as `\u{202e}`. Line ends of a stack stay; JSON escapes them.
 */
function legible(text: string, most: number): string {
  const told = withoutCredentials(text);
  const short = told.length > most ? `${told.slice(0, most)}...` : told;
  return short.replaceAll(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (character) =>
    character === "\n" && most === MOST_STACK ? character : `\\u{${character.codePointAt(0)?.toString(16)}}`,
  );
}
