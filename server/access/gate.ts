import type { IncomingHttpHeaders } from "node:http";
import type { Config } from "../../schemas/index.ts";
import { HttpProblem } from "../problem.ts";
import { takeBearer } from "./bearer.ts";
import type { Entry } from "./credentials.ts";
import { Credentials, hashOf, kindOf, newTicket, newToken } from "./credentials.ts";
import type { Shown } from "./permit.ts";
import { Permit } from "./permit.ts";

/** Milliseconds that a ticket is good for, and one that is printed at the start. */
const TICKET_LIFE = 30_000;
const FIRST_TICKET_LIFE = 15 * 60_000;
/** Milliseconds that a session lasts. */
const SESSION_LIFE = 12 * 3_600_000;
/** Name of the token that is made at the start. */
const GENERATED = "generated";

const everywhere = ["*/*"];
const everything = {
  list: everywhere,
  read: everywhere,
  write: everywhere,
  announce: everywhere,
  admin: everywhere,
};

/** A credential that was given out, and when it ends, in milliseconds since 1970. */
interface Issued {
  readonly credential: string;
  readonly until: number;
}

type GateConfig = Pick<Config, "auth" | "tokens" | "readOnly" | "limits">;

/** A session or a ticket, by the name of its token; undefined for the one that was made at the start. */
interface IssuedSnapshot {
  readonly hash: Uint8Array;
  readonly token: string | undefined;
  readonly until: number;
  /** When what is opened with it ends. */
  readonly expires: number;
  readonly shown: Shown;
}

/** What was given out, for a hand-over: plain data, hashes only. */
export interface GateSnapshot {
  /** That of the token that was made at the start. */
  readonly made: Uint8Array | undefined;
  readonly sessions: readonly IssuedSnapshot[];
  readonly tickets: readonly IssuedSnapshot[];
}

/** Who may come in: what a request shows becomes its permit. */
export class Gate {
  readonly #readOnly: boolean;
  /** Most tickets, and most sessions, of a token: nobody's ends for those of others. */
  readonly #most: number;
  readonly #now: () => number;
  readonly #onFull: () => void;
  readonly #tokens = new Credentials();
  readonly #sessions = new Credentials();
  readonly #tickets = new Credentials();
  /** That of whoever shows nothing; undefined where a token is asked for. */
  #anybody: Permit | undefined;
  /** The token that was made at the start. */
  #made: Entry | undefined;
  readonly #inherited: GateSnapshot | undefined;

  /**
   * @param inherited what another bridge gave out: what is of tokens that are configured here is good here, too
   * @param now milliseconds since 1970
   * @param onFull a token has as many tickets, or sessions, as it may have, and wants one more
   */
  constructor(
    { auth, tokens, readOnly, limits }: GateConfig,
    inherited?: GateSnapshot,
    now: () => number = Date.now,
    onFull = () => {},
  ) {
    this.#readOnly = readOnly;
    this.#most = limits.connectionsPerToken;
    this.#inherited = inherited;
    this.#now = now;
    this.#onFull = onFull;
    if (auth === "none" || tokens.length === 0) this.#anybody = Permit.ofAll(readOnly);
    for (const { hash, ...token } of tokens) {
      const permit = Permit.ofToken(token, readOnly);
      const bytes = Buffer.from(hash.slice(hash.indexOf(":") + 1), "hex");
      this.#tokens.add({ hash: bytes, permit, until: permit.expires });
      this.#restore(token.name, permit);
    }
  }

  /** Everybody may come in. */
  get open(): boolean {
    return this.#anybody !== undefined;
  }

  /**
   * Asks for a token from now on, one that is made here, or that another bridge has made.
   * @returns the token, and a ticket for whoever starts the bridge: this is the only time that they can be had;
   *   undefined for one that is known already
   */
  close(): { token: string; ticket: string } | undefined {
    const permit = Permit.ofToken({ name: GENERATED, rights: everything }, this.#readOnly);
    const known = this.#inherited?.made;
    const token = newToken();
    this.#made = {
      hash: known === undefined ? hashOf(token) : Buffer.from(known),
      permit,
      until: permit.expires,
    };
    this.#tokens.add(this.#made);
    this.#anybody = undefined;
    if (known === undefined) {
      const first = permit.shownAs("first-ticket");
      return { token, ticket: this.#issue(this.#tickets, newTicket(), first, FIRST_TICKET_LIFE).credential };
    }
    this.#restore(undefined, permit);
    return undefined;
  }

  /**
   * What a request may do. A ticket is used up by it.
   * @throws HttpProblem unauthorized
   */
  admit(headers: IncomingHttpHeaders): Permit {
    const bearer = takeBearer(headers);
    if (this.#anybody !== undefined) return this.#anybody;
    if (bearer === undefined) throw unauthorized('want "Authorization: Bearer TOKEN"');
    const kind = kindOf(bearer);
    // Of what has not even the form no hash is made.
    if (kind === undefined) throw unauthorized("what came as a bearer is no token", true);
    const hash = hashOf(bearer);
    const known = kind === "ticket" ? [this.#tickets] : [this.#tokens, this.#sessions];
    for (const credentials of known) {
      const entry = credentials.find(hash);
      if (entry === undefined) continue;
      if (kind === "ticket") credentials.remove(entry);
      if (entry.until > this.#now()) return entry.permit;
      throw unauthorized(`the ${kind} has expired`, true);
    }
    throw unauthorized(`the ${kind} is not known${kind === "ticket" ? " any more" : ""}`, true);
  }

  /**
   * A ticket for these rights.
   * @throws HttpProblem forbidden: a ticket gets none; rate-limited: the token has too many
   */
  issueTicket(permit: Permit): Issued {
    if (permit.shown !== "token")
      throw new HttpProblem("forbidden", "a ticket gets no other: ask with a token");
    this.#demandRoom(this.#tickets, "tickets", permit);
    return this.#issue(this.#tickets, newTicket(), permit.shownAs("ticket"), TICKET_LIFE);
  }

  /**
   * A token for these rights that ends by itself.
   * @throws HttpProblem forbidden: only the ticket that is printed at the start gets one; rate-limited: the token has
   *   too many
   */
  issueSession(permit: Permit): Issued {
    if (permit.shown === "ticket") {
      throw new HttpProblem(
        "forbidden",
        "a ticket gets no session, but for the one that is printed at the start",
      );
    }
    this.#demandRoom(this.#sessions, "sessions", permit);
    const session = permit.shownAs("token", this.#now() + SESSION_LIFE);
    return this.#issue(this.#sessions, newToken(), session, SESSION_LIFE);
  }

  snapshot(): GateSnapshot {
    const made = this.#made;
    const issued = ({ hash, permit: { name, expires, shown }, until }: Entry): IssuedSnapshot => {
      // A configured token may have the name of the one that was made: but then none was.
      return { hash, token: made === undefined ? name : undefined, until, expires, shown };
    };
    return {
      made: made?.hash,
      sessions: this.#sessions.entries.map(issued),
      tickets: this.#tickets.entries.map(issued),
    };
  }

  /** What another bridge has given out for a token. */
  #restore(token: string | undefined, permit: Permit): void {
    const { sessions = [], tickets = [] } = this.#inherited ?? {};
    for (const [from, to] of [
      [sessions, this.#sessions],
      [tickets, this.#tickets],
    ] as const) {
      for (const { hash, token: name, until, expires, shown } of from) {
        if (name !== token) continue;
        const own = permit.shownAs(shown, expires);
        to.add({ hash: Buffer.from(hash), permit: own, until: Math.min(until, own.expires) });
      }
    }
  }

  /** @throws HttpProblem rate-limited */
  #demandRoom(credentials: Credentials, what: string, { name }: Permit): void {
    const now = this.#now();
    const until = credentials.fullUntil(name, this.#most, now);
    if (until === undefined) return;
    this.#onFull();
    throw new HttpProblem(
      "rate-limited",
      `token "${name}" has ${this.#most} ${what}, the most there may be`,
      {
        "retry-after": String(Math.ceil((until - now) / 1000)),
      },
    );
  }

  /** @param life milliseconds */
  #issue(credentials: Credentials, credential: string, permit: Permit, life: number): Issued {
    const until = Math.min(this.#now() + life, permit.expires);
    // Where everybody may come in nothing is asked for, so that nothing is to be known again.
    if (!this.open) credentials.add({ hash: hashOf(credential), permit, until });
    return { credential, until };
  }
}

function unauthorized(detail: string, shown = false): HttpProblem {
  // RFC 6750, 3: what was shown is wrong, or nothing was.
  const challenge = `Bearer realm="rpmsg-bridge"${shown ? ', error="invalid_token"' : ""}`;
  return new HttpProblem("unauthorized", detail, { "www-authenticate": challenge });
}
