import { decodeBytes } from "../endpoint-path.ts";

/** The literal pieces between the `*` of one part of a pattern. */
type Pieces = readonly string[];

interface Pattern {
  readonly guest: Pieces;
  /** One character a byte. */
  readonly name: Pieces;
}

/** A list of patterns of endpoints, as `EndpointPattern` of the schemas has them. */
export class Patterns {
  readonly #patterns: readonly Pattern[];

  /** @throws RangeError for one that the schema would not take */
  constructor(texts: readonly string[]) {
    this.#patterns = texts.map(parse);
  }

  get isEmpty(): boolean {
    return this.#patterns.length === 0;
  }

  /** @param name one character a byte */
  match(guest: string, name: string): boolean {
    return this.#patterns.some((each) => fits(each.guest, guest) && fits(each.name, name));
  }

  /** Whether there may be an endpoint of this guest that matches. */
  matchGuest(guest: string): boolean {
    return this.#patterns.some((each) => fits(each.guest, guest));
  }

  /** Every endpoint of this guest matches one pattern. */
  matchAllOf(guest: string): boolean {
    return this.#patterns.some((each) => fits(each.guest, guest) && isAny(each.name));
  }

  /** Every endpoint of every guest matches one pattern. */
  get matchAll(): boolean {
    return this.#patterns.some(({ guest, name }) => isAny(guest) && isAny(name));
  }
}

function parse(text: string): Pattern {
  // Names of guests have no "/"; those of endpoints may.
  const slash = text.indexOf("/");
  // Before decoding, so that %2A is no wildcard.
  const name = text
    .slice(slash + 1)
    .split("*")
    .map(decodeBytes);
  if (slash < 1 || name.includes(undefined)) throw new RangeError(`"${text}" is no pattern of endpoints`);
  return { guest: text.slice(0, slash).split("*"), name: name as string[] };
}

/** Nothing but `*`. */
function isAny(pieces: Pieces): boolean {
  return pieces.length > 1 && pieces.every((piece) => piece === "");
}

/** The pieces one after the other, the first at the beginning, the last at the end: no text takes long. */
function fits(pieces: Pieces, text: string): boolean {
  const [first = ""] = pieces;
  if (pieces.length === 1) return text === first;
  const last = pieces.at(-1) as string;
  if (!text.startsWith(first)) return false;
  let at = first.length;
  for (const piece of pieces.slice(1, -1)) {
    const found = text.indexOf(piece, at);
    if (found === -1) return false;
    at = found + piece.length;
  }
  return text.length - last.length >= at && text.endsWith(last);
}
