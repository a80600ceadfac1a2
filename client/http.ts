import { problemError, RpmsgError } from "./errors.ts";

export interface RequestOptions {
  /** Bearer token, or a ticket for one request. */
  token?: string | undefined;
  /** Ends the request. */
  signal?: AbortSignal | undefined;
}

/**
 * An answer of the bridge that is good.
 * @throws RpmsgError with the bridge's code, or unreachable; the reason of `signal`
 */
export async function request(
  url: URL,
  { token, signal }: RequestOptions,
  headers: Record<string, string> = {},
  method: "GET" | "POST" = "GET",
): Promise<Response> {
  const all = { ...headers, ...authorization(token) };
  const init = { method, headers: all, signal: signal ?? null, cache: "no-store" as const };
  let response: Response;
  try {
    response = await fetch(url, init);
  } catch (error) {
    if (signal?.aborted === true) throw signal.reason;
    const { cause, message } = error as Error & { cause?: Error };
    // A browser says no more to a page of another origin.
    const { location } = globalThis as { location?: { origin: string } };
    const foreign = location !== undefined && location.origin !== url.origin;
    const hint = foreign ? `, or it does not take requests from ${location.origin}` : "";
    const text = `cannot reach the bridge at ${url.origin}${hint}: ${cause?.message ?? message}`;
    throw new RpmsgError("unreachable", text, { cause: error });
  }
  if (!response.ok) throw problemError(response.status, await response.text());
  return response;
}

export function authorization(token: string | undefined): Record<string, string> {
  return token === undefined ? {} : { authorization: `Bearer ${token}` };
}
