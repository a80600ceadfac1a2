import type { Right, TokenConfig } from "../../schemas/index.ts";
import { rights } from "../../schemas/index.ts";
import { HttpProblem } from "../problem.ts";
import { Patterns } from "./patterns.ts";

/** Of these `--read-only` leaves nothing: they change what a guest sees. */
const CHANGING: ReadonlySet<Right> = new Set(["write", "announce"]);

/**
 * What a client has shown: a token, or a session, which is one; a ticket; the ticket that is printed at the start. It
 * says what may be made of it: what can be used once, and got out, must not become something that lives longer.
 */
export type Shown = "token" | "ticket" | "first-ticket";

/** Why something may not be done: a code of errors. */
export type Refusal = "forbidden" | "read-only";

/** An endpoint, there or not. */
export interface Named {
  readonly guest: string;
  /** One character a byte. */
  readonly name: string;
}

/** What a client may do: requests and connections are judged by it once, when they begin. */
export class Permit {
  /** The token's name; undefined where none is asked for: then nobody is told from others. */
  readonly name: string | undefined;
  /** When it ends, in milliseconds since 1970. */
  readonly expires: number;
  readonly shown: Shown;
  readonly #readOnly: boolean;
  /** By right; undefined: all of everything. */
  readonly #patterns: ReadonlyMap<Right, Patterns> | undefined;

  private constructor(
    readOnly: boolean,
    name?: string,
    patterns?: ReadonlyMap<Right, Patterns>,
    expires = Number.POSITIVE_INFINITY,
    shown: Shown = "token",
  ) {
    this.name = name;
    this.expires = expires;
    this.shown = shown;
    this.#readOnly = readOnly;
    this.#patterns = patterns;
  }

  /** That of everybody, where no token is asked for. */
  static ofAll(readOnly: boolean): Permit {
    return new Permit(readOnly);
  }

  static ofToken({ name, rights: granted, expires }: Omit<TokenConfig, "hash">, readOnly: boolean): Permit {
    const patterns = new Map(rights.map((right) => [right, new Patterns(granted[right] ?? [])]));
    return new Permit(readOnly, name, patterns, expires);
  }

  /** The same for something that is made of it, which may end earlier. */
  shownAs(shown: Shown, expires = Number.POSITIVE_INFINITY): Permit {
    return new Permit(this.#readOnly, this.name, this.#patterns, Math.min(expires, this.expires), shown);
  }

  /** Nothing is sent to guests, whoever asks. */
  get readOnly(): boolean {
    return this.#readOnly;
  }

  /** Why it may not be done; undefined where it may. */
  refusal(right: Right, { guest, name }: Named): Refusal | undefined {
    return this.#refusal(right, (patterns) => patterns.match(guest, name));
  }

  may(right: Right, endpoint: Named): boolean {
    return this.refusal(right, endpoint) === undefined;
  }

  /** What may be done with an endpoint. */
  rightsTo(endpoint: Named): Right[] {
    return rights.filter((right) => this.may(right, endpoint));
  }

  /** What may be done with some endpoint that this guest, or any guest, has or could have. */
  rightsToSome(guest?: string): Right[] {
    const some = (patterns: Patterns) =>
      guest === undefined ? !patterns.isEmpty : patterns.matchGuest(guest);
    return rights.filter((right) => this.#refusal(right, some) === undefined);
  }

  /** @throws HttpProblem forbidden, read-only */
  demand(right: Right, endpoint: Named, what: string): void {
    const refusal = this.refusal(right, endpoint);
    if (refusal !== undefined) throw this.#problem(refusal, right, what);
  }

  /** Whether it has the right to every endpoint that the guest has, or could have. */
  mayAll(right: Right, guest: string): boolean {
    const patterns = this.#patterns;
    return patterns === undefined || patterns.get(right)?.matchAllOf(guest) === true;
  }

  /** For what shows as much as may be seen of these guests. @throws HttpProblem forbidden: it would be nothing */
  demandSome(right: Right, guests: readonly string[], what: string): void {
    const own = this.#patterns?.get(right);
    if (this.#patterns === undefined || guests.some((guest) => own?.matchGuest(guest) === true)) return;
    throw this.#problem("forbidden", right, what);
  }

  /** For what concerns all guests. @throws HttpProblem forbidden */
  demandAdmin(what: string): void {
    if (this.#patterns?.get("admin")?.matchAll !== false) return;
    throw new HttpProblem("forbidden", `${what} needs the right "admin" for "*/*": ${this.#whose}`);
  }

  /** Whether it has a right to an endpoint that the guest has, or could have. */
  sees(guest: string): boolean {
    const patterns = this.#patterns;
    return patterns === undefined || [...patterns.values()].some((each) => each.matchGuest(guest));
  }

  /**
   * Messages may go to any address of the guest. Without tokens nobody has this right: it is not needed for anything
   * usual, and guards those who do not think of it.
   */
  isAdmin(endpoint: Named): boolean {
    return this.#patterns !== undefined && this.may("admin", endpoint);
  }

  #refusal(right: Right, matches: (patterns: Patterns) => boolean): Refusal | undefined {
    const patterns = this.#patterns;
    const own = patterns?.get(right);
    // Whoever may do anything with an endpoint may see it.
    const granted =
      patterns === undefined ||
      (own !== undefined && matches(own)) ||
      (right === "list" && [...patterns.values()].some(matches));
    if (!granted) return "forbidden";
    return this.#readOnly && CHANGING.has(right) ? "read-only" : undefined;
  }

  get #whose(): string {
    return `token "${this.name}" does not have it`;
  }

  #problem(refusal: Refusal, right: Right, what: string): HttpProblem {
    if (refusal === "read-only") return new HttpProblem("read-only", `${what}: the bridge is read-only`);
    return new HttpProblem("forbidden", `${what} needs the right "${right}": ${this.#whose}`);
  }
}
