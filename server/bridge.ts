import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import type { Logger } from "pino";
import type { Config, Endpoint, Guest } from "../schemas/index.ts";
import { closeCode } from "../schemas/index.ts";
import { checkAccess } from "./access.ts";
import { BurstLog } from "./burst-log.ts";
import { marksOf } from "./channel/back-pressure.ts";
import { RawChannel } from "./channel/channel.ts";
import { FlushTurn } from "./channel/frame-writer.ts";
import { accept, checkSubprotocols, parseUpgrade, rawWebSocketServer, refuse } from "./channel/upgrade.ts";
import { Directory } from "./directory.ts";
import type { EndpointPort } from "./endpoint-port.ts";
import type { Attachment } from "./guests/attachment.ts";
import { openGuest } from "./guests/open-guest.ts";
import { HttpProblem } from "./problem.ts";

/** The composition root: guests on one side, channels on the other, the directory between them. */
export class Bridge {
  readonly config: Config;
  readonly #log: Logger;
  readonly #directory = new Directory();
  readonly #guests = new Map<string, Attachment>();
  readonly #channels = new Set<RawChannel>();
  readonly #turn = new FlushTurn();
  readonly #webSockets = rawWebSocketServer();
  #liveness: NodeJS.Timeout | undefined;
  #pongCheck: NodeJS.Timeout | undefined;
  #state: "new" | "ready" | "draining" | "closed" = "new";
  #onChannelsGone: (() => void) | undefined;

  constructor(config: Config, log: Logger) {
    this.config = config;
    this.#log = log;
  }

  get ready(): boolean {
    return this.#state === "ready";
  }

  /**
   * Starts every guest of the configuration.
   * @throws ConfigError, SystemError
   */
  async start(): Promise<void> {
    const events = {
      onAdded: (endpoint: EndpointPort) => this.#directory.add(endpoint),
      onRemoved: (endpoint: EndpointPort) => this.#directory.remove(endpoint),
    };
    for (const [name, config] of Object.entries(this.config.guests)) {
      const log = new BurstLog(this.#log.child({ guest: name }));
      this.#guests.set(name, await openGuest(name, config, this.config.limits, log, events));
    }
    const { pingInterval, pongTimeout } = this.config.limits;
    this.#liveness = setInterval(() => {
      // Where answers may take longer than the interval, the next ping waits for the check of this one.
      if (this.#pongCheck !== undefined) return;
      for (const channel of this.#channels) channel.ping();
      this.#pongCheck = setTimeout(() => {
        this.#pongCheck = undefined;
        for (const channel of this.#channels) channel.checkPong();
      }, pongTimeout).unref();
    }, pingInterval).unref();
    this.#state = "ready";
  }

  guests(): Guest[] {
    return [...this.#guests.values()].map((guest) => guest.describe());
  }

  /** @throws HttpProblem guest-unknown */
  guest(name: string): Guest {
    const guest = this.#guests.get(name);
    if (guest === undefined) throw new HttpProblem("guest-unknown", `there is no guest "${name}"`);
    return guest.describe();
  }

  endpoints(guest?: string): Endpoint[] {
    return this.#directory.list(guest);
  }

  /** Logs a mistake of the bridge itself. */
  report(error: unknown): void {
    this.#log.error({ event: "internal-error", err: error });
  }

  /** Takes an upgrade of the HTTP server: a channel, or an error before the upgrade. */
  upgrade(request: IncomingMessage, stream: Duplex, head: Buffer): void {
    stream.on("error", () => stream.destroy());
    try {
      this.#upgrade(request, stream, head);
    } catch (error) {
      if (!(error instanceof HttpProblem)) this.report(error);
      refuse(
        stream,
        error instanceof HttpProblem ? error : new HttpProblem("internal", "the upgrade failed"),
      );
    }
  }

  /**
   * Ends in good order: no new channels, clients told, what they have sent delivered, then the guests stopped. After
   * the configured time what is left is cut off.
   */
  async drain(): Promise<void> {
    if (this.#state === "draining" || this.#state === "closed") return;
    this.#state = "draining";
    const { drainTimeout } = this.config.limits;
    const deadline = performance.now() + drainTimeout;
    for (const channel of this.#channels) channel.close(closeCode.drain, "the bridge is stopping");
    await this.#channelsGone(drainTimeout * CLIENTS_SHARE);
    await Promise.all([...this.#guests.values()].map((guest) => guest.drained(deadline - performance.now())));
    this.close();
  }

  /** Ends at once. */
  close(): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    clearInterval(this.#liveness);
    clearTimeout(this.#pongCheck);
    for (const channel of this.#channels) channel.terminate();
    for (const guest of this.#guests.values()) guest.close();
    this.#webSockets.close();
  }

  #upgrade(request: IncomingMessage, stream: Duplex, head: Buffer): void {
    checkAccess(request.headers, this.config);
    if (!this.ready) throw new HttpProblem("draining", "the bridge is stopping");
    const { guest, reference, query } = parseUpgrade(request);
    if (!this.#guests.has(guest)) throw new HttpProblem("guest-unknown", `there is no guest "${guest}"`);
    const endpoint = this.#directory.find(guest, reference);
    if (endpoint === undefined) {
      throw new HttpProblem(
        "endpoint-unknown",
        `guest "${guest}" has no such endpoint: see /api/v1/endpoints`,
      );
    }
    checkSubprotocols(request.headers["sec-websocket-protocol"]);
    const share = query.share ?? (endpoint.origin === "guest" ? "private" : "shared");
    const { limits } = this.config;
    const channel = new RawChannel(stream, this.#turn, limits);
    // Opened before the handshake, so that a refusal is an HTTP answer.
    const { most, resume } = marksOf(limits);
    const port = endpoint.open(
      { share, local: query.local, queueBytes: most, lowBytes: resume, timeout: limits.sendTimeout },
      channel,
    );
    if (port === "local-in-use")
      throw new HttpProblem("local-in-use", `local address ${query.local} is in use`);
    if (port === "no-address") throw new HttpProblem("no-address", "no local address can be had");
    const socket = accept(this.#webSockets, request, stream, head);
    if (socket === undefined) {
      port.close();
      return;
    }
    this.#channels.add(channel);
    channel.serve(socket, port, () => {
      this.#channels.delete(channel);
      if (this.#channels.size === 0) this.#onChannelsGone?.();
    });
  }

  async #channelsGone(timeout: number): Promise<void> {
    if (this.#channels.size === 0) return;
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.#onChannelsGone = resolve;
      timer = setTimeout(resolve, timeout);
    });
    clearTimeout(timer);
  }
}

/** How much of the drain's time clients get to close. */
const CLIENTS_SHARE = 0.7;
