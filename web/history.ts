import type { PayloadView } from "./payload.ts";
import { lineOf } from "./payload.ts";

/** Entries that are kept, and bytes of theirs. */
export const MOST_KEPT = 5000;
export const MOST_BYTES = 16 * 1024 * 1024;
/** Messages that are kept of those that come in a window of so many milliseconds; the others are only counted. */
export const WINDOW = 100;
export const KEPT_A_WINDOW = 50;

/** from: a message of the guest; to: one to it; note: what happened to the channel. */
export type EntryKind = "from" | "to" | "note";

/** A message of a channel, or a note on it. */
export class Entry {
  /** Of all entries, notes too. */
  readonly serial: number;
  /** Counts all messages, those that are not kept too; a note has that of the message before it. */
  readonly number: number;
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly kind: EntryKind;
  /** Where it came from; undefined for all but messages of the guest. */
  readonly source: number | undefined;
  readonly data: Uint8Array;
  /** As it was shown last: of a list that is searched every entry has one. */
  #shown: readonly [view: PayloadView, line: string] | undefined;

  constructor(
    serial: number,
    number: number,
    at: number,
    kind: EntryKind,
    source: number | undefined,
    data: Uint8Array,
  ) {
    this.serial = serial;
    this.number = number;
    this.at = at;
    this.kind = kind;
    this.source = source;
    this.data = data;
  }

  /** In one line. */
  line(view: PayloadView): string {
    const wanted = this.kind === "note" ? "text" : view;
    const [shown, known] = this.#shown ?? [];
    if (shown === wanted && known !== undefined) return known;
    const line = lineOf(this.data, wanted);
    this.#shown = [wanted, line];
    return line;
  }
}

/** What a channel said and heard: the latest messages, and of very many a sample, so that a page can show them. */
export class History {
  #entries: Entry[] = [];
  #bytes = 0;
  #made = 0;
  #total = 0;
  #sampledOut = 0;
  #gone = 0;
  #window = Number.NEGATIVE_INFINITY;
  #inWindow = 0;

  /** Messages, kept or not. */
  get total(): number {
    return this.#total;
  }

  /** Messages that were only counted, since they came too fast. */
  get sampledOut(): number {
    return this.#sampledOut;
  }

  /** Messages that were kept, and had to go when newer ones came. */
  get gone(): number {
    return this.#gone;
  }

  /** A copy of those that are kept, the oldest first. */
  entries(): readonly Entry[] {
    return this.#entries.slice();
  }

  /**
   * @param at milliseconds since 1970
   * @param data asked for only where the message is kept
   */
  add(kind: "from" | "to", at: number, source: number | undefined, data: () => Uint8Array): void {
    this.#total++;
    if (at - this.#window >= WINDOW || at < this.#window) {
      this.#window = at;
      this.#inWindow = 0;
    }
    if (++this.#inWindow > KEPT_A_WINDOW) this.#sampledOut++;
    else this.#keep(at, kind, source, data());
  }

  note(at: number, text: string): void {
    this.#keep(at, "note", undefined, new TextEncoder().encode(text));
  }

  clear(): void {
    this.#entries = [];
    this.#bytes = 0;
    this.#total = 0;
    this.#sampledOut = 0;
    this.#gone = 0;
  }

  #keep(at: number, kind: EntryKind, source: number | undefined, data: Uint8Array): void {
    this.#entries.push(new Entry(this.#made++, this.#total, at, kind, source, data));
    this.#bytes += data.length;
    while (this.#entries.length > MOST_KEPT || this.#bytes > MOST_BYTES) {
      const oldest = this.#entries.shift();
      if (oldest === undefined) break;
      this.#bytes -= oldest.data.length;
      if (oldest.kind !== "note") this.#gone++;
    }
  }
}

/** Entries in which a text is, in their line of this view, in upper or lower case. */
export function found(entries: readonly Entry[], text: string, view: PayloadView): readonly Entry[] {
  const wanted = text.trim().toLowerCase();
  if (wanted === "") return entries;
  return entries.filter((entry) => entry.line(view).toLowerCase().includes(wanted));
}

/** Entries as lines of JSON. */
export function saved(entries: readonly Entry[]): string {
  const lines = entries.map(({ number, at, kind, source, data }) => {
    const text = new TextDecoder().decode(data);
    const base64 = btoa(Array.from(data, (byte) => String.fromCharCode(byte)).join(""));
    const what = kind === "note" ? { note: text } : { source, length: data.length, base64, text };
    return JSON.stringify({ number, time: new Date(at).toISOString(), kind, ...what });
  });
  return lines.map((line) => `${line}\n`).join("");
}
