import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import type { Permit } from "./permit.ts";

/** 256 random bits: there is nothing to guess, so that a plain hash of it is safe to keep. */
const BYTES = 32;
/** A token; another text is none, whatever hash is configured: nobody can choose a weak one. */
const TOKEN = /^rpmsg_[A-Za-z0-9_-]{43}$/;
/** A bearer that is good once. */
const TICKET = /^rpmsgt_[A-Za-z0-9_-]{43}$/;

/** A new token. It is kept nowhere but with who gets it. */
export function newToken(): string {
  return `rpmsg_${randomBytes(BYTES).toString("base64url")}`;
}

export function newTicket(): string {
  return `rpmsgt_${randomBytes(BYTES).toString("base64url")}`;
}

export function hashOf(credential: string): Buffer {
  return createHash("sha256").update(credential).digest();
}

export type CredentialKind = "token" | "ticket";

/** What a text may be, by its form alone. */
export function kindOf(credential: string): CredentialKind | undefined {
  if (TOKEN.test(credential)) return "token";
  return TICKET.test(credential) ? "ticket" : undefined;
}

/** A text of whoever, without the credentials that somebody may have put where none belongs, as into a path. */
export function withoutCredentials(text: string): string {
  return text.replaceAll(/(rpmsgt?_)[A-Za-z0-9_-]{43}/g, "$1...");
}

/** What one credential is good for. */
export interface Entry {
  readonly hash: Buffer;
  readonly permit: Permit;
  /** Until when it is taken, in milliseconds since 1970. */
  readonly until: number;
}

/** Credentials of one kind, by their hashes. */
export class Credentials {
  #entries: Entry[] = [];

  get entries(): readonly Entry[] {
    return this.#entries;
  }

  add(entry: Entry): void {
    this.#entries.push(entry);
  }

  /**
   * Forgets what has ended. The ticket that is printed at the start does not count.
   * @param most how many of a token there may be
   * @returns when a token may have one more; undefined: now
   */
  fullUntil(token: string | undefined, most: number, now: number): number | undefined {
    this.#entries = this.#entries.filter(({ until }) => until > now);
    const counted = this.#entries.filter(
      ({ permit }) => permit.name === token && permit.shown !== "first-ticket",
    );
    // All live as long as each other: what was made first ends first.
    return counted.at(-most)?.until;
  }

  /** All are compared, each in constant time: how long it takes tells nothing of them. */
  find(hash: Buffer): Entry | undefined {
    let found: Entry | undefined;
    for (const entry of this.#entries) if (timingSafeEqual(entry.hash, hash)) found = entry;
    return found;
  }

  remove(entry: Entry): void {
    this.#entries = this.#entries.filter((each) => each !== entry);
  }
}
