import type { IncomingMessage } from "node:http";
import { isIP } from "node:net";
import type { Config } from "../../schemas/index.ts";
import { HttpProblem } from "../problem.ts";
import type { Peer } from "./peer.ts";
import { authorityOf, hostName } from "./target.ts";

/**
 * Checks who a request says it is for, and which page it comes from. The name guards against pages that point their
 * own name at this machine (DNS rebinding), the origin against pages of others. What a trusted proxy says of the name
 * is checked besides the name that it uses itself: a page that has rebound its name may send any header to its own
 * origin. A page is the bridge's own where its origin is what the request is for; one that came without TLS is not that
 * of a bridge with TLS: anybody on the way may have written it.
 * @throws HttpProblem bad-request, host-unknown, origin-forbidden
 */
export function checkAccess(
  request: IncomingMessage,
  config: Pick<Config, "hosts" | "origins">,
  peer: Pick<Peer, "host" | "protocol">,
): void {
  const { headers, rawHeaders, httpVersion } = request;
  // RFC 9112, 3.2
  const hosts = rawHeaders.filter((field, i) => i % 2 === 0 && field.toLowerCase() === "host").length;
  if (hosts > 1 || (hosts === 0 && httpVersion === "1.1")) {
    throw new HttpProblem("bad-request", `want one Host header field, not ${hosts}`);
  }
  const named = authorityOf(request, peer.protocol) ?? headers.host ?? "";
  checkHost(named, config);
  if (peer.host !== undefined) checkHost(peer.host, config);
  const host = (peer.host ?? named).toLowerCase();
  const { origin } = headers;
  if (origin === undefined || config.origins.includes(origin)) return;
  const page = origin.toLowerCase();
  if (page === `https://${host}` || (page === `http://${host}` && peer.protocol !== "https")) return;
  throw new HttpProblem("origin-forbidden", `pages of ${origin} may not use the bridge: add it to "origins"`);
}

function checkHost(host: string, config: Pick<Config, "hosts">): void {
  const name = hostName(host);
  if (name !== "localhost" && isIP(name) === 0 && !config.hosts.includes(name)) {
    throw new HttpProblem(
      "host-unknown",
      `the bridge is not known as "${name}": use localhost or an address, or add the name to "hosts"`,
    );
  }
}
