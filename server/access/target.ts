import type { IncomingMessage } from "node:http";
import { HttpProblem } from "../problem.ts";
import type { Peer } from "./peer.ts";

/** Scheme and authority of a URL, and its path and query; any of them may be empty but the scheme. */
const ABSOLUTE = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)(.*)$/is;

/** What a target in absolute form says beside its path and query. */
interface Origin {
  /** In small letters. */
  readonly scheme: string;
  readonly authority: string;
}

/** Of the requests whose target was in absolute form. */
const origins = new WeakMap<IncomingMessage, Origin>();

/**
 * The target of a request as all other code wants it: path and query. Clients of proxies send a whole URL, which every
 * server has to take (RFC 9112, 3.2.2); what else is in it, maybe a password, is kept for `authorityOf` alone. `*` is
 * what it is, and that of CONNECT, which nobody wants, becomes it: a password may be in it, too. It may be called again
 * with what it gave.
 */
export function takeTarget(request: IncomingMessage): string {
  const { method, url = "" } = request;
  if (method === "CONNECT") return "*";
  if (url.startsWith("/")) return url;
  const [, scheme, authority = "", rest = ""] = ABSOLUTE.exec(url) ?? [];
  if (scheme === undefined) return url;
  origins.set(request, { scheme: scheme.toLowerCase(), authority });
  return rest.startsWith("/") ? rest : `/${rest}`;
}

/**
 * Whom the target of a request names, where it was in absolute form: this counts, and not `Host` (RFC 9112, 3.2.2).
 * @param protocol how the client came
 * @throws HttpProblem bad-request; it repeats nothing of what may be a password
 */
export function authorityOf(request: IncomingMessage, protocol: Peer["protocol"]): string | undefined {
  const origin = origins.get(request);
  if (origin === undefined) return undefined;
  const { scheme, authority } = origin;
  // Of a WebSocket as well (RFC 6455, 4.1).
  if (scheme !== "http" && scheme !== "https") throw problem(`is of ${scheme}: want http, https or a path`);
  // RFC 9110, 4.2.4: who is named there is to mislead.
  if (authority.includes("@")) throw problem("has a user: want the host alone");
  if (hostName(authority) === "") throw problem("names no host");
  // RFC 9110, 7.4
  if (scheme === "https" && protocol !== "https") throw problem("is of https, and it came without TLS");
  return authority;
}

function problem(what: string): HttpProblem {
  return new HttpProblem("bad-request", `the target of the request ${what}`);
}

/** The name of a Host header without its port, and without the brackets of an IPv6 address; "" where it has none. */
export function hostName(host: string): string {
  const [, bracketed, plain] = /^(?:\[([^\]]*)\]|([^:]*))(?::\d*)?$/.exec(host) ?? [];
  return (bracketed ?? plain ?? "").toLowerCase();
}
