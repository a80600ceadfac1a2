import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { BlockList } from "node:net";
import type { Config } from "../../schemas/index.ts";
import { addressKey, canonicalAddress, isLoopback } from "./address.ts";
import type { Hop } from "./forwarded.ts";
import { lastEntry, parseForwarded, parseForwardedFor } from "./forwarded.ts";

/** Who a request is from, as far as it can be known. */
export interface Peer {
  /** An IP address in its one spelling; `unix` for a peer of a Unix socket, `unknown` where the connection has gone. */
  readonly address: string;
  /** What caps count by: the address, or its network of IPv6. */
  readonly key: string;
  /** It came over loopback or a Unix socket, and no proxy says that it is from elsewhere. */
  readonly local: boolean;
  /** `Host` as the client has sent it to a trusted proxy, where that tells. */
  readonly host: string | undefined;
  /**
   * How the client came to that proxy, where that tells; else how it came here. Undefined: without TLS, if nobody who is
   * not known has taken it off.
   */
  readonly protocol: "http" | "https" | undefined;
}

/** What is known of a connection: Node says of TLS that it is `encrypted`. */
type Connection = Pick<Socket, "remoteAddress"> & { readonly encrypted?: boolean };

/** The address of whoever comes over a Unix socket. */
export const UNIX = "unix";
const UNKNOWN = "unknown";

/**
 * Finds the peer of a request behind trusted proxies. From the nearest on, everybody who is trusted is believed who
 * came before; whoever is not trusted is the peer, whatever it says itself. What an untrusted peer has in these headers
 * is not looked at.
 *
 * A client that a trusted proxy does not name so that it is understood counts as the proxy, and never as local. So does
 * one where `Forwarded` and `X-Forwarded-For` say different things: most proxies add to one of them and pass on what
 * the client has sent in the other.
 */
export class Peers {
  readonly #unixListener: boolean;
  readonly #trustsUnix: boolean;
  readonly #trustsLoopback: boolean;
  readonly #trusted = new BlockList();

  constructor({ listen, trustedProxies }: Pick<Config, "listen" | "trustedProxies">) {
    this.#unixListener = listen.startsWith("unix:");
    this.#trustsUnix = trustedProxies.includes("unix");
    this.#trustsLoopback = trustedProxies.includes("loopback");
    for (const entry of trustedProxies) {
      if (entry === "unix" || entry === "loopback") continue;
      const [network = "", bits] = entry.split("/");
      // A network of IPv4 may be written as its mapped addresses; it is compared as what it is.
      const address = canonicalAddress(network) ?? network;
      const family = address.includes(":") ? "ipv6" : "ipv4";
      const mapped = family === "ipv4" && network.includes(":");
      if (bits === undefined) this.#trusted.addAddress(address, family);
      else this.#trusted.addSubnet(address, mapped ? Math.max(0, Number(bits) - 96) : Number(bits), family);
    }
  }

  /** The address at the other end of a connection itself. */
  nearest(socket: { readonly remoteAddress?: string | undefined }): string {
    if (this.#unixListener) return UNIX;
    // A connection that was reset has none any more: it must not pass for another kind.
    return canonicalAddress(socket.remoteAddress ?? "") ?? UNKNOWN;
  }

  /** Whether it is to be believed what somebody at this address says of who came before. */
  trusts(address: string): boolean {
    if (address === UNIX) return this.#trustsUnix;
    if (address === UNKNOWN) return false;
    if (this.#trustsLoopback && isLoopback(address)) return true;
    return this.#trusted.check(address, address.includes(":") ? "ipv6" : "ipv4");
  }

  of({ socket, headers }: Pick<IncomingMessage, "headers"> & { readonly socket: Connection }): Peer {
    const nearest = this.nearest(socket);
    const protocol = socket.encrypted === true ? "https" : undefined;
    const local = nearest === UNIX || isLoopback(nearest);
    if (!this.trusts(nearest)) {
      return { address: nearest, key: addressKey(nearest), local, host: undefined, protocol };
    }
    const { forwarded } = headers;
    const forwardedFor = joined(headers["x-forwarded-for"]);
    const ways: Way[] = [];
    if (forwarded !== undefined) ways.push(this.#walk(nearest, parseForwarded(forwarded) ?? []));
    if (forwardedFor !== undefined) ways.push(this.#walk(nearest, parseForwardedFor(forwardedFor)));
    const [first, second = first] = ways;
    const address = first !== undefined && first.address === second?.address ? first.address : nearest;
    return {
      address,
      key: addressKey(address),
      local: local && first === undefined,
      host: first?.hop?.host ?? lastEntry(headers["x-forwarded-host"]),
      protocol: protocolOf(first?.hop?.protocol ?? lastEntry(headers["x-forwarded-proto"])) ?? protocol,
    };
  }

  /** Goes from hop to hop, nearest first, for as long as they are trusted and known. */
  #walk(nearest: string, hops: readonly Hop[]): Way {
    let address = nearest;
    for (const hop of hops.toReversed()) {
      if (hop.address === undefined) return { address, hop };
      address = hop.address;
      if (!this.trusts(address)) return { address, hop };
    }
    return { address, hop: hops[0] };
  }
}

/** Where a walk has ended, and what was told of whoever is there. */
interface Way {
  readonly address: string;
  readonly hop: Hop | undefined;
}

function joined(header: string | string[] | undefined): string | undefined {
  return Array.isArray(header) ? header.join(",") : header;
}

function protocolOf(text: string | undefined): Peer["protocol"] {
  const protocol = text?.toLowerCase();
  return protocol === "http" || protocol === "https" ? protocol : undefined;
}
