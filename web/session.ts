import { signal } from "@preact/signals";
import { openSession } from "../client/index.ts";
import type { Trouble } from "./trouble.ts";
import { troubleOf } from "./trouble.ts";

const KEY = "token";

/** Where the bridge is: this page's own folder. */
export const bridge = new URL(".", document.baseURI);

/** The session's token; undefined where the bridge asks for none, or none was given yet. */
export const token = signal<string | undefined>(sessionStorage.getItem(KEY) ?? undefined);

/** Takes the ticket out of the address, and of the history, before anything else. */
export function takeTicket(): string | undefined {
  const ticket = new URLSearchParams(location.hash.slice(1)).get("ticket");
  if (ticket === null) return undefined;
  history.replaceState(null, "", location.pathname + location.search);
  return ticket;
}

/**
 * Changes a ticket, or a token, for a session, which is all that is kept.
 * @returns why it was not taken
 */
export async function enter(bearer: string): Promise<Trouble | undefined> {
  try {
    const session = await openSession(bridge, { token: bearer });
    sessionStorage.setItem(KEY, session.token);
    token.value = session.token;
    return undefined;
  } catch (error) {
    return troubleOf(error);
  }
}

export function forget(): void {
  sessionStorage.removeItem(KEY);
  token.value = undefined;
}

/** What requests are made with. */
export function credentials(): { token?: string } {
  return token.value === undefined ? {} : { token: token.value };
}
