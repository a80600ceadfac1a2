import type { IncomingMessage } from "node:http";
import type { Server, Socket } from "node:net";
import { Server as TlsServer } from "node:tls";
import type { Limits } from "../../schemas/index.ts";
import type { CountedLimit } from "../counted-limits.ts";
import { descriptorOf, mostDescriptors } from "../descriptors.ts";
import { HttpProblem } from "../problem.ts";
import type { Tally } from "../tally.ts";
import { addressKey, isLoopback } from "./address.ts";
import type { AddressEntry } from "./address-table.ts";
import { AddressTable } from "./address-table.ts";
import type { Peer, Peers } from "./peer.ts";
import { UNIX } from "./peer.ts";
import type { TokenBucket } from "./token-bucket.ts";

/** Connections beyond a cap that still get an answer which says so; the others are cut off. */
const ANSWERED = 64;

/**
 * Of the process's descriptors, clients do not get the last ones: guests need some to attach, and so do files that are
 * read late. As many before them are for answers that say so.
 */
const KEPT = Math.min(64, Math.floor(mostDescriptors / 8));

type ConnectionLimit = "connections" | "connectionsPerAddress" | "connectionsPerToken" | "descriptors";

/**
 * Who is let in: connections are counted in all, for an address and for a token, and so is how often an address comes.
 * Behind a trusted proxy a connection is the client's from its upgrade on; without one, from its beginning.
 */
export class Admission {
  readonly #peers: Peers;
  readonly #limits: Limits;
  readonly #counters: Tally<CountedLimit>;
  readonly #onShort: () => void;
  readonly #addresses: AddressTable;
  readonly #tokens = new Map<string, number>();
  /** Connections that are one too many, and for which limit. */
  readonly #refused = new Map<unknown, ConnectionLimit>();
  /** Connections that count for their address already. */
  readonly #counted = new Set<unknown>();
  /** Connections begin with a handshake of TLS. */
  #isSecure = false;
  /** Open connections. */
  connections = 0;
  /** Open streams of events. */
  eventStreams = 0;

  /** @param onShort a client is refused because the process has hardly a descriptor left */
  constructor(peers: Peers, limits: Limits, counters: Tally<CountedLimit>, onShort = () => {}) {
    this.#peers = peers;
    this.#limits = limits;
    this.#counters = counters;
    this.#onShort = onShort;
    this.#addresses = new AddressTable(limits);
  }

  /** Counts the connections of a server. */
  guard(server: Server): void {
    this.#isSecure = server instanceof TlsServer;
    server.maxConnections = this.#limits.connections + ANSWERED;
    server.on("drop", () => this.#counters.add("connections"));
    server.on("connection", (socket: Socket) => this.#connected(socket));
  }

  /** Whether what holds for one address does not hold for this one. */
  isExempt({ local }: Pick<Peer, "local">): boolean {
    return local && !this.#limits.limitLocal;
  }

  /**
   * A request that is no upgrade.
   * @throws HttpProblem overloaded, too-many-connections, rate-limited
   */
  request({ socket }: Pick<IncomingMessage, "socket">, peer: Peer): void {
    this.#check(socket);
    if (!this.isExempt(peer)) this.#rate("requestRate", this.#addresses.get(peer.key).requests);
  }

  /**
   * A request for an upgrade.
   * @throws HttpProblem overloaded, too-many-connections, rate-limited
   */
  upgrade({ socket }: Pick<IncomingMessage, "socket">, peer: Peer): void {
    this.#check(socket);
    if (this.isExempt(peer)) return;
    // With TLS it was taken for the connection itself, which has one upgrade at most.
    if (this.#isSecure && this.#counted.has(identityOf(socket))) return;
    this.#rate("connectRate", this.#addresses.get(peer.key).connects);
  }

  /**
   * A connection that stays, a WebSocket or a stream of events, until its socket closes.
   * @param token name of the token with which it came
   * @throws HttpProblem too-many-connections
   */
  stay(socket: Socket, peer: Peer, token?: string): void {
    const { connectionsPerAddress, connectionsPerToken } = this.#limits;
    const counts = !this.#counted.has(identityOf(socket)) && !this.isExempt(peer);
    const entry = counts ? this.#addresses.get(peer.key) : undefined;
    if (entry !== undefined && entry.connections >= connectionsPerAddress) {
      throw this.#tooMany("connectionsPerAddress");
    }
    if (token !== undefined) {
      const count = this.#tokens.get(token) ?? 0;
      if (count >= connectionsPerToken) throw this.#tooMany("connectionsPerToken");
      this.#tokens.set(token, count + 1);
      socket.once("close", () => {
        const left = (this.#tokens.get(token) ?? 1) - 1;
        if (left > 0) this.#tokens.set(token, left);
        else this.#tokens.delete(token);
      });
    }
    if (entry !== undefined) this.#count(socket, entry);
  }

  #connected(socket: Socket): void {
    this.connections++;
    const identity = identityOf(socket);
    socket.once("close", () => {
      this.connections--;
      this.#refused.delete(identity);
    });
    if (this.connections > this.#limits.connections) this.#refused.set(identity, "connections");
    const free = mostDescriptors - descriptorOf(socket);
    if (free <= 2 * KEPT) {
      this.#onShort();
      this.#refused.set(identity, "descriptors");
    }
    if (free <= KEPT) {
      this.#counters.add("descriptors");
      socket.destroy();
      return;
    }
    const nearest = this.#peers.nearest(socket);
    const local = nearest === UNIX || isLoopback(nearest);
    // Of a proxy nobody knows yet who its clients are.
    if (this.#peers.trusts(nearest) || this.isExempt({ local })) return;
    const entry = this.#addresses.get(addressKey(nearest));
    // A handshake costs more than any answer: it is not begun.
    if (this.#isSecure && entry.connects.take() > 0) {
      this.#counters.add("connectRate");
      socket.destroy();
      return;
    }
    this.#count(socket, entry);
    const beyond = entry.connections - this.#limits.connectionsPerAddress;
    if (beyond > 0) this.#refused.set(identity, "connectionsPerAddress");
    if (beyond > ANSWERED) {
      this.#counters.add("connectionsPerAddress");
      socket.destroy();
    }
  }

  #count(socket: Socket, entry: AddressEntry): void {
    const identity = identityOf(socket);
    this.#counted.add(identity);
    entry.connections++;
    socket.once("close", () => {
      this.#counted.delete(identity);
      entry.connections--;
    });
  }

  #check(socket: Socket): void {
    const limit = this.#refused.get(identityOf(socket));
    if (limit !== undefined) throw this.#tooMany(limit);
  }

  #rate(limit: "connectRate" | "requestRate", bucket: TokenBucket): void {
    const wait = bucket.take();
    if (wait === 0) return;
    this.#counters.add(limit);
    const text = `more than ${this.#limits[limit].perSecond} in a second from one address`;
    throw new HttpProblem("rate-limited", text, { "retry-after": String(Math.ceil(wait / 1000)) });
  }

  #tooMany(limit: ConnectionLimit): HttpProblem {
    this.#counters.add(limit);
    const later = { "retry-after": "1" };
    if (limit === "descriptors") {
      return new HttpProblem("overloaded", "the bridge has hardly a file descriptor left", later);
    }
    const most = this.#limits[limit];
    if (limit === "connections") {
      return new HttpProblem("overloaded", `there are ${most} connections, the most there may be`, later);
    }
    const whose = limit === "connectionsPerAddress" ? "the address" : "the token";
    const text = `${whose} has ${most} connections, the most there may be`;
    return new HttpProblem("too-many-connections", text);
  }
}

/**
 * What is the same for a connection and for the TLS that is spoken over it, which are two sockets to Node: the former,
 * to which there is no public way from the latter.
 */
function identityOf(socket: Socket): unknown {
  return (socket as { _parent?: Socket | null })._parent ?? socket;
}
