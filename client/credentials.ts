import type { Session, Ticket } from "../schemas/index.ts";
import { RpmsgError } from "./errors.ts";
import type { RequestOptions } from "./http.ts";
import { request } from "./http.ts";
import { baseOf } from "./target.ts";

/**
 * Changes a token, or the ticket of the address that the bridge prints at the start, for a token that ends by itself.
 * @param target URL of the bridge, or of anything on it; in a browser it may be relative to the page
 * @returns the token, and when it ends
 * @throws RpmsgError `unauthorized` where the ticket is not good any more
 */
export async function openSession(
  target: string | URL,
  options: RequestOptions & { token: string },
): Promise<Session> {
  return post(target, "sessions", options, ({ token }: Partial<Session>) => token);
}

/** A ticket in place of the token, good once. @throws RpmsgError */
export async function ticketOf(target: string | URL, options: RequestOptions): Promise<string> {
  const { ticket } = await post(target, "tickets", options, (answer: Partial<Ticket>) => answer.ticket);
  return ticket;
}

async function post<T>(
  target: string | URL,
  path: string,
  options: RequestOptions,
  credential: (answer: Partial<T>) => string | undefined,
): Promise<T> {
  const response = await request(new URL(`api/v1/${path}`, baseOf(target)), options, {}, "POST");
  const answer = (await response.json().catch(() => ({}))) as Partial<T>;
  if (typeof credential(answer) === "string") return answer as T;
  throw new RpmsgError("unreachable", "what answers is no rpmsg-bridge");
}
