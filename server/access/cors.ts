import type { IncomingMessage } from "node:http";

/** Header fields of answers that a page of another origin may read, besides those that it always may. */
const EXPOSED = "location, retry-after, www-authenticate";
/** What a page of another origin may ask for. */
const PREFLIGHT = {
  "access-control-allow-methods": "GET, HEAD, POST, DELETE",
  "access-control-allow-headers": "authorization, content-type, last-event-id",
  "access-control-max-age": "600",
};

/**
 * What a browser is told where the request is from a page of another origin, one of the configuration.
 * @returns the header fields, and whether that is all: the browser has only asked whether the page may ask
 */
export function crossOrigin(
  { method, headers }: Pick<IncomingMessage, "method" | "headers">,
  origins: readonly string[],
): { fields: Record<string, string>; preflight: boolean } {
  const { origin } = headers;
  if (origins.length === 0) return { fields: {}, preflight: false };
  if (origin === undefined || !origins.includes(origin))
    return { fields: { vary: "origin" }, preflight: false };
  const preflight = method === "OPTIONS" && headers["access-control-request-method"] !== undefined;
  // No credentials of the browser's own: tokens come in a header.
  const fields = {
    vary: "origin",
    "access-control-allow-origin": origin,
    "access-control-expose-headers": EXPOSED,
    ...(preflight && PREFLIGHT),
  };
  return { fields, preflight };
}
