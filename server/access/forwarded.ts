import { isIP } from "node:net";
import { canonicalAddress } from "./address.ts";

/** What one proxy says of the request that it got. Undefined is what it does not say, or not so that it is understood. */
export interface Hop {
  /** Canonical. */
  readonly address: string | undefined;
  readonly host: string | undefined;
  readonly protocol: string | undefined;
}

/** A token or a quoted string (RFC 9110, 5.6); sticky, so that a header is read once from left to right. */
const PAIR =
  /[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)=(?:([!#$%&'*+\-.^_`|~0-9A-Za-z]+)|"((?:[^"\\]|\\.)*)")[ \t]*/y;
const EMPTY = /[ \t]*/y;

/**
 * Reads a Forwarded header (RFC 7239, 4).
 * @returns a hop for each element, nearest last; undefined where the header breaks the syntax: then none of it counts
 */
export function parseForwarded(header: string): Hop[] | undefined {
  const hops: Hop[] = [];
  let pairs = new Map<string, string>();
  let at = 0;
  for (;;) {
    PAIR.lastIndex = at;
    const pair = PAIR.exec(header);
    if (pair === null) {
      // Elements and pairs may be empty (RFC 9110, 5.6.1).
      EMPTY.lastIndex = at;
      EMPTY.exec(header);
      at = EMPTY.lastIndex;
    } else {
      const [, name = "", token, quoted = ""] = pair;
      const key = name.toLowerCase();
      // Each parameter at most once in an element.
      if (pairs.has(key)) return undefined;
      pairs.set(key, token ?? quoted.replaceAll(/\\(.)/g, "$1"));
      at = PAIR.lastIndex;
    }
    const next = header[at];
    if (next !== ";") {
      if (pairs.size > 0) hops.push(hopOf(pairs));
      if (next === undefined) return hops;
      if (next !== ",") return undefined;
      pairs = new Map();
    }
    at++;
  }
}

/** Reads an X-Forwarded-For header: a hop for each entry, nearest last. */
export function parseForwardedFor(header: string): Hop[] {
  return header
    .split(",")
    .map((entry) => ({ address: nodeAddress(entry.trim()), host: undefined, protocol: undefined }));
}

/** The last entry of a list: what the nearest proxy says. */
export function lastEntry(header: string | string[] | undefined): string | undefined {
  const text = Array.isArray(header) ? header.at(-1) : header;
  const entry = text?.slice(text.lastIndexOf(",") + 1).trim();
  return entry === "" ? undefined : entry;
}

function hopOf(pairs: ReadonlyMap<string, string>): Hop {
  const node = pairs.get("for");
  return {
    address: node === undefined ? undefined : nodeAddress(node),
    host: pairs.get("host"),
    protocol: pairs.get("proto")?.toLowerCase(),
  };
}

/** The address of a node with or without a port (RFC 7239, 6); `unknown` and names that a proxy made up have none. */
function nodeAddress(text: string): string | undefined {
  const [, bracketed, plain] =
    /^(?:\[([^\]]{2,45})\](?::[\w.-]{1,64})?|([\d.]{7,15}):[\w.-]{1,64})$/.exec(text) ?? [];
  if (bracketed !== undefined) return isIP(bracketed) === 6 ? canonicalAddress(bracketed) : undefined;
  // No address is longer than one of IPv6 that ends as one of IPv4, and a zone names an interface of the proxy.
  if (plain === undefined && (text.length > 45 || text.includes("%"))) return undefined;
  return canonicalAddress(plain ?? text);
}
