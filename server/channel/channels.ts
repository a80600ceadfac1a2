import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import type { WebSocket, WebSocketServer } from "ws";
import type { z } from "zod";
import type { ChannelProtocol, JsonQuery as JsonQueryType, Limits, Rate } from "../../schemas/index.ts";
import {
  channelProtocols,
  closeCode,
  JsonAnnounceQuery,
  JsonQuery,
  muxProtocol,
  RawAnnounceQuery,
  RawQuery,
} from "../../schemas/index.ts";
import { atExpiry } from "../access/expiry.ts";
import type { Permit } from "../access/permit.ts";
import { guestUnknown } from "../access/view.ts";
import type { BurstLog } from "../burst-log.ts";
import type { ClientCounts, ProtocolName } from "../client-counts.ts";
import { isFault } from "../client-counts.ts";
import type { Directory, EndpointReference } from "../directory.ts";
import { parseChannelPath } from "../endpoint-path.ts";
import type { ChannelEvents, ChannelPort, EndpointPort, SendBounds } from "../endpoint-port.ts";
import type { Histogram } from "../histogram.ts";
import { MemoryBudget } from "../memory-budget.ts";
import { Notice } from "../notice.ts";
import { HttpProblem } from "../problem.ts";
import { frameBytes, marksOf } from "./back-pressure.ts";
import type { ConnectionHandler } from "./connection.ts";
import { Connection } from "./connection.ts";
import { FlushTurn } from "./frame-writer.ts";
import { InflowLine } from "./inflow.ts";
import type { SessionSnapshot } from "./json.ts";
import { JsonChannel } from "./json.ts";
import { MessageEncoder } from "./message-encoder.ts";
import { MuxConnection } from "./mux.ts";
import type { Allowed, Opening } from "./opening.ts";
import { isSame, judge } from "./opening.ts";
import { RawChannel } from "./raw.ts";
import type { OpenChannel } from "./subscription.ts";
import { UnwritablePort } from "./unwritable-port.ts";
import { accept, checkHandshake, chooseSubprotocol, parseQuery, webSocketServer } from "./upgrade.ts";
import { WaitingSessions } from "./waiting-sessions.ts";

/** Milliseconds until a connection that is cut off has ended. */
const CUT_OFF = 500;
const NOTHING = Buffer.alloc(0);

type Protocol = ChannelProtocol | typeof muxProtocol;

/** What channels need of the bridge. */
export interface ChannelHost {
  readonly instance: string;
  readonly limits: Limits;
  readonly counts: ClientCounts;
  readonly log: BurstLog;
  readonly directory: Directory;
  /**
   * Adds a service of the host.
   * @throws HttpProblem
   */
  announce(guest: string, name: string, address: number | undefined): EndpointPort;
  withdraw(endpoint: EndpointPort): void;
  /** @throws HttpProblem guest-unknown */
  isAttached(guest: string): boolean;
}

/** Who is on the other side of a connection. */
interface Client {
  readonly connection: Connection;
  readonly permit: Permit;
}

/** All WebSockets of the bridge: what an upgrade asks for is opened, and ends when the bridge does. */
export class Channels {
  /** Of the bytes that wait for all clients. */
  readonly budget: MemoryBudget;
  readonly #host: ChannelHost;
  readonly #connections = new Set<Connection>();
  readonly #muxes = new Set<MuxConnection>();
  readonly #sessions = new Map<string, JsonChannel>();
  readonly #turn = new FlushTurn();
  readonly #line = new InflowLine();
  readonly #encoder = new MessageEncoder();
  readonly #servers: Readonly<Record<Protocol, WebSocketServer>>;
  readonly #waiting = new WaitingSessions();
  /** Not while everything is handed over, or has been and is not ours yet. */
  #isReachable = true;
  #liveness: NodeJS.Timeout | undefined;
  #pongCheck: NodeJS.Timeout | undefined;
  /** The last connection is gone. */
  readonly #gone = new Notice();

  constructor(host: ChannelHost) {
    this.#host = host;
    const { limits, counts } = host;
    this.budget = new MemoryBudget(limits.clientBytes, () => counts.limits.add("clientBytes"));
    // What fits the guest's buffers is checked for each message.
    const framePayload = frameBytes(limits);
    this.#servers = {
      "rpmsg.v1.raw": webSocketServer("rpmsg.v1.raw", limits.payloadBytes, limits),
      "rpmsg.v1.json": webSocketServer("rpmsg.v1.json", framePayload, limits),
      "rpmsg.v1.mux": webSocketServer(muxProtocol, framePayload, limits),
    };
  }

  /** Sessions whose clients are away. */
  get waitingSessions(): number {
    return this.#waiting.size;
  }

  /** How long messages took from the guest to the socket, in seconds. */
  get latency(): Histogram {
    return this.#turn.probe.histogram;
  }

  /** How many connections there are of each subprotocol. */
  get openCounts(): Record<ProtocolName, number> {
    const open = { raw: 0, json: 0, mux: 0 };
    for (const { protocol } of this.#connections) if (protocol !== undefined) open[protocol]++;
    return open;
  }

  /** Begins to look after the clients. */
  start(): void {
    const { pingInterval, pongTimeout } = this.#host.limits;
    this.#liveness = setInterval(() => {
      // Where answers may take longer than the interval, the next ping waits for the check of this one.
      if (this.#pongCheck !== undefined) return;
      for (const connection of this.#connections) connection.ping();
      // After a look at the sockets: had this process itself stood still, the answers would have come meanwhile.
      const check = (): void => {
        this.#pongCheck = undefined;
        for (const connection of this.#connections) connection.checkPong();
      };
      this.#pongCheck = setTimeout(() => setImmediate(check), pongTimeout).unref();
    }, pingInterval).unref();
  }

  /** An endpoint came or has no clients any more, or a guest is another one: who waits for it is tried again. */
  changed(guest: string, name?: string): void {
    for (const mux of this.#muxes) mux.retry((subscription) => subscription.waitsFor(guest, name));
  }

  /**
   * Takes an upgrade.
   * @param peer the client's address
   * @param messageRate how often the client may send; undefined without a bound
   * @throws HttpProblem: nothing was written to the stream
   */
  upgrade(
    request: IncomingMessage,
    stream: Duplex,
    head: Buffer,
    permit: Permit,
    peer: string,
    messageRate?: Rate,
  ): void {
    const [path, query] = splitUrl(request.url ?? "");
    const target = parseChannelPath(path);
    if (target === undefined) throw new HttpProblem("not-found", "want /ws/v1/{guest}/{endpoint}, or /ws/v1");
    const offered = request.headers["sec-websocket-protocol"];
    checkHandshake(request);
    const { limits, counts } = this.#host;
    const facts = { peer, path };
    const [turn, line] = [this.#turn, this.#line];
    const connection = new Connection(
      stream,
      head,
      turn,
      line,
      counts,
      facts,
      limits,
      this.budget,
      messageRate,
    );
    // The head comes with everything else that the client sends.
    const take = (protocol: Protocol) => accept(this.#servers[protocol], request, stream, NOTHING);
    const client = { connection, permit };
    if (target.kind === "mux") {
      chooseSubprotocol(offered, [muxProtocol]);
      if (query !== "") throw new HttpProblem("bad-request", "query: /ws/v1 takes none");
      const socket = take(muxProtocol);
      if (socket !== undefined) this.#serveMux(client, socket);
      return;
    }
    // Of a guest that is unknown nothing else needs to be right.
    this.#seen(target.guest, permit);
    const protocol = chooseSubprotocol(offered, channelProtocols);
    if (target.kind === "guest") {
      this.#upgradeService(target.guest, protocol, query, client, () => take(protocol));
      return;
    }
    const endpoint = (origin: EndpointReference["origin"]) =>
      this.#find(target.guest, { ...target.reference, ...(origin && { origin }) }, permit);
    if (protocol === "rpmsg.v1.raw") {
      const opening = parseQuery(RawQuery, query);
      this.#openRaw(endpoint(opening.origin), opening, client, () => take(protocol));
    } else {
      const opening = parseQuery(JsonQuery, query);
      this.#openJson(endpoint(opening.origin), opening, client, () => take(protocol));
    }
  }

  /**
   * Opens an endpoint, for a client without a connection of its own.
   * @throws HttpProblem endpoint-in-use, local-in-use, no-address, forbidden, read-only
   */
  open<Ticket>(
    endpoint: EndpointPort,
    opening: Opening,
    permit: Permit,
    events: ChannelEvents<Ticket>,
  ): ChannelPort<Ticket> {
    return this.#open(endpoint, opening, judge(permit, endpoint, opening), events);
  }

  /** @throws HttpProblem endpoint-in-use, local-in-use, no-address */
  #open<Ticket>(
    endpoint: EndpointPort,
    opening: Opening,
    { listens, sendRefusal }: Allowed,
    events: ChannelEvents<Ticket>,
  ): ChannelPort<Ticket> {
    const port = endpoint.open(
      {
        share: opening.share,
        takeover: opening.takeover === "1",
        replaceable: opening.isService !== true,
        listens,
        local: opening.local,
        ...sendBounds(this.#host.limits),
      },
      events,
    );
    if (typeof port === "object") {
      return sendRefusal === undefined ? port : new UnwritablePort(port, sendRefusal);
    }
    const detail = {
      "local-in-use": "the local address is in use",
      "no-address": "no local address can be had",
      "endpoint-in-use": "the endpoint has another client",
    }[port];
    throw new HttpProblem(port, detail);
  }

  /**
   * Tells all clients that the bridge stops, and waits for them to close, at most `timeout` milliseconds.
   * @returns whether some have not
   */
  async drain(timeout: number): Promise<boolean> {
    await this.#closeAll(closeCode.drain, "the bridge is stopping", timeout);
    return this.#connections.size > 0;
  }

  /**
   * Sends all clients away to come back at once, and waits for them to go, at most `timeout` milliseconds; then they are
   * cut off. JSON sessions go on.
   */
  async restart(timeout: number): Promise<void> {
    this.#isReachable = false;
    for (const session of this.#waiting) session.awaitReturn(undefined);
    await this.#closeAll(closeCode.restart, "the bridge goes on in another process", timeout);
    if (this.#connections.size === 0) return;
    const gone = this.#gone.within(CUT_OFF);
    for (const connection of this.#connections) connection.terminate();
    await gone;
  }

  /** Clients can come back. */
  resume(): void {
    this.#isReachable = true;
    for (const session of this.#waiting) session.awaitReturn(this.#host.limits.sessionTimeout);
  }

  /** Sessions of clients that are away; the guests stand still. */
  snapshot(): SessionSnapshot[] {
    return [...this.#sessions.values()].flatMap((session) => session.snapshot() ?? []);
  }

  /**
   * Sessions of another process go on here.
   * @param find the endpoint with this id
   */
  restore(sessions: readonly SessionSnapshot[], find: (id: string) => EndpointPort | undefined): void {
    this.#isReachable = false;
    const bounds = sendBounds(this.#host.limits);
    for (const snapshot of sessions) {
      const endpoint = find(snapshot.endpoint);
      if (endpoint === undefined) continue;
      const channel = this.#makeSession(snapshot);
      channel.restore(snapshot, (events) => {
        const { sendRefusal } = snapshot.allowed;
        const port = endpoint.restore(snapshot.channel, bounds, events);
        return sendRefusal === undefined ? port : new UnwritablePort(port, sendRefusal);
      });
      this.#sessions.set(channel.session, channel);
    }
  }

  async #closeAll(code: number, reason: string, timeout: number): Promise<void> {
    for (const connection of this.#connections) connection.close(code, reason);
    if (this.#connections.size > 0) await this.#gone.within(timeout);
  }

  close(): void {
    clearInterval(this.#liveness);
    clearTimeout(this.#pongCheck);
    for (const connection of this.#connections) connection.terminate();
    for (const channel of [...this.#sessions.values()]) channel.close(closeCode.drain, "");
    for (const server of Object.values(this.#servers)) server.close();
  }

  /**
   * Whether the guest is attached.
   * @throws HttpProblem guest-unknown, also where the client may not see it
   */
  #seen(guest: string, permit: Permit): boolean {
    if (!permit.sees(guest)) throw guestUnknown(guest);
    return this.#host.isAttached(guest);
  }

  /** @throws HttpProblem endpoint-unknown */
  #find(guest: string, reference: EndpointReference, permit: Permit): EndpointPort {
    const endpoint = this.#host.directory.find(guest, reference);
    if (endpoint !== undefined && permit.may("list", endpoint)) return endpoint;
    throw new HttpProblem("endpoint-unknown", `guest "${guest}" has no such endpoint: see /api/v1/endpoints`);
  }

  #openRaw(
    endpoint: EndpointPort,
    query: z.infer<typeof RawQuery> & Opening,
    client: Client,
    take: () => WebSocket | undefined,
    withdraw = (): void => {},
  ): void {
    const channel = new RawChannel(client.connection, query.slow, this.#host.limits, withdraw);
    // Opened before the handshake, so that a refusal is an HTTP answer.
    const port = this.open<undefined>(endpoint, query, client.permit, channel);
    channel.bind(port);
    const socket = take();
    if (socket === undefined) channel.onClosed();
    else this.#serve(client, socket, channel, () => {});
  }

  #openJson(
    endpoint: EndpointPort,
    query: JsonQueryType & Opening,
    client: Client,
    take: () => WebSocket | undefined,
    withdraw?: () => void,
  ): void {
    const session = query.resume === undefined ? undefined : this.#sessions.get(query.resume);
    const { connection, permit } = client;
    const allowed = judge(permit, endpoint, query);
    if (session?.endpoint === endpoint && session.owner === permit.name) {
      if (isSame(session.allowed, allowed)) {
        const socket = take();
        if (socket === undefined) return;
        this.#serve(client, socket, session, () => {});
        this.#waiting.taken(session, connection.client.peer);
        session.attach(connection, query.credit, query.after ?? 0);
        return;
      }
      // Rights may be others after a hand-over: the client goes on with those that it has now, in a session of its own.
      session.close(closeCode.restart, "");
    }
    const facts = { policy: query.slow, encoding: query.encoding, owner: permit.name, allowed };
    const channel = this.#makeSession(facts, withdraw);
    const port = this.#open(endpoint, query, allowed, channel);
    channel.bind(port, this.#host.directory.idOf(endpoint));
    const socket = take();
    if (socket === undefined) {
      port.close();
      withdraw?.();
      return;
    }
    if (withdraw === undefined) this.#sessions.set(channel.session, channel);
    this.#serve(client, socket, channel, () => {});
    this.#waiting.taken(channel, connection.client.peer);
    channel.attach(connection, query.credit);
  }

  #makeSession(
    facts: Pick<SessionSnapshot, "policy" | "encoding" | "owner" | "allowed">,
    withdraw?: () => void,
  ): JsonChannel {
    const { instance, limits, counts } = this.#host;
    return new JsonChannel({
      policy: facts.policy,
      encoding: facts.encoding,
      owner: facts.owner,
      allowed: facts.allowed,
      limits,
      encoder: this.#encoder,
      counts,
      instance,
      resumable: withdraw === undefined,
      budget: this.budget,
      onAway: (away) => this.#away(away),
      onEnd: (ended) => {
        this.#waiting.delete(ended);
        this.#sessions.delete(ended.session);
        withdraw?.();
      },
    });
  }

  /** A session waits for its client. */
  #away(session: JsonChannel): void {
    this.#waiting.add(session);
    session.awaitReturn(this.#isReachable ? this.#host.limits.sessionTimeout : undefined);
    const { limits, counts } = this.#host;
    if (this.#waiting.size <= limits.waitingSessions) return;
    counts.limits.add("waitingSessions");
    this.#waiting.surplus?.close(closeCode.slowReader, "");
  }

  /** The client is a service of the host, for as long as it is there. */
  #upgradeService(
    guest: string,
    protocol: ChannelProtocol,
    text: string,
    client: Client,
    take: () => WebSocket | undefined,
  ): void {
    const json = protocol === "rpmsg.v1.json";
    const query = json ? parseQuery(JsonAnnounceQuery, text) : parseQuery(RawAnnounceQuery, text);
    const named = { guest, name: Buffer.from(query.announce).toString("latin1") };
    client.permit.demand("announce", named, "to be a service");
    if (query.local !== undefined) client.permit.demand("admin", named, "local=");
    const endpoint = this.#host.announce(guest, query.announce, query.local);
    const withdraw = () => this.#host.withdraw(endpoint);
    const opening = { share: "exclusive", slow: query.slow, isService: true } as const;
    try {
      if (!json) this.#openRaw(endpoint, opening, client, take, withdraw);
      else this.#openJson(endpoint, { ...query, ...opening, local: undefined }, client, take, withdraw);
    } catch (error) {
      withdraw();
      throw error;
    }
  }

  #serveMux(client: Client, socket: WebSocket): void {
    const { instance, limits } = this.#host;
    const mux = new MuxConnection(client.connection, limits, (path) => this.#way(path, client.permit));
    this.#muxes.add(mux);
    this.#serve(client, socket, mux, () => this.#muxes.delete(mux));
    mux.tell({ type: "hello", protocol: muxProtocol, instance });
  }

  /**
   * What the path of a channel names.
   * @throws HttpProblem
   */
  #way(url: string, permit: Permit): OpenChannel {
    const [path, text] = splitUrl(url);
    const target = parseChannelPath(path);
    if (target?.kind !== "endpoint") {
      throw new HttpProblem("not-found", "path: want /ws/v1/{guest}/{endpoint}");
    }
    const query = parseQuery(RawQuery, text);
    const { guest } = target;
    const host = this.#host;
    const reference = { ...target.reference, ...(query.origin && { origin: query.origin }) };
    this.#seen(guest, permit);
    // What it names may come later, and be another one then; its name is the same.
    const named = { guest, name: reference.name ?? "" };
    const known = reference.id === undefined ? named : host.directory.find(guest, reference);
    return {
      policy: query.slow,
      anywhere: known !== undefined && permit.isAdmin(known),
      get attached() {
        return host.isAttached(guest);
      },
      mayBe: (changed, name) =>
        changed === guest && (name === undefined || reference.name === undefined || reference.name === name),
      open: (events, again) => {
        const endpoint = this.#find(guest, reference, permit);
        const opening = again ? { ...query, takeover: "0" } : query;
        return { port: this.open(endpoint, opening, permit, events), id: host.directory.idOf(endpoint) };
      },
    };
  }

  #serve(
    { connection, permit }: Client,
    socket: WebSocket,
    handler: ConnectionHandler,
    onEnd: () => void,
  ): void {
    this.#connections.add(connection);
    const cancel = atExpiry(permit, () => connection.end(closeCode.policy, "unauthorized"));
    const { log } = this.#host;
    const about = { protocol: handler.protocol, ...connection.client };
    log.write("client-connected", about);
    connection.open(socket, handler, (cause) => {
      cancel();
      if (isFault(cause)) log.write("client-closed", { code: cause, ...about });
      else log.write("client-gone", { cause, ...about });
      this.#connections.delete(connection);
      onEnd();
      if (this.#connections.size === 0) this.#gone.give();
    });
  }
}

/** Bounds of what a channel sends. */
export function sendBounds(limits: Limits): SendBounds {
  const { most, resume } = marksOf(limits);
  return { queueBytes: most, lowBytes: resume, timeout: limits.sendTimeout };
}

function splitUrl(url: string): [path: string, query: string] {
  const mark = url.indexOf("?");
  return mark === -1 ? [url, ""] : [url.slice(0, mark), url.slice(mark + 1)];
}
