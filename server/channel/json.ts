import { randomBytes } from "node:crypto";
import type {
  ClientFrame as ClientFrameType,
  Encoding,
  ErrorCode,
  Limits,
  MessageId,
  ServerFrame,
  SlowPolicy,
} from "../../schemas/index.ts";
import { ClientFrame, closeCode, errorAdvice } from "../../schemas/index.ts";
import type { ClientCounts } from "../client-counts.ts";
import { displayName } from "../directory.ts";
import type {
  ChannelEvents,
  ChannelPort,
  ChannelSnapshot,
  DropCause,
  EndReason,
  UndeliveredCode,
} from "../endpoint-port.ts";
import type { MemoryBudget } from "../memory-budget.ts";
import type { Marks } from "./back-pressure.ts";
import { marksOf } from "./back-pressure.ts";
import type { Connection, ConnectionHandler } from "./connection.ts";
import { endOf } from "./connection.ts";
import { Destinations } from "./destinations.ts";
import { parseFrame } from "./frame-parser.ts";
import type { LatencyProbe } from "./latency-probe.ts";
import type { MessageEncoder } from "./message-encoder.ts";
import { decodeText } from "./message-encoder.ts";
import type { Allowed } from "./opening.ts";
import type { OutflowSink } from "./outflow.ts";
import { IN_MESSAGES, Outflow } from "./outflow.ts";
import type { ReplaySnapshot } from "./replay-log.ts";
import { ReplayLog } from "./replay-log.ts";

export interface JsonOptions {
  readonly policy: SlowPolicy;
  readonly encoding: Encoding | undefined;
  readonly limits: Limits;
  readonly encoder: MessageEncoder;
  readonly counts: ClientCounts;
  /** Of the bytes that wait for all clients. */
  readonly budget: MemoryBudget;
  /** The bridge. */
  readonly instance: string;
  /** Name of the token of the client; only who has that may come back. */
  readonly owner: string | undefined;
  /** What the client may do. */
  readonly allowed: Allowed;
  /** A client whose connection broke may come back. */
  readonly resumable: boolean;
  /** The client is away, and the session waits for its return. */
  readonly onAway: (channel: JsonChannel) => void;
  /** The session is over. */
  readonly onEnd: (channel: JsonChannel) => void;
}

/** A session whose client is away, to be handed over: plain data. */
export interface SessionSnapshot {
  readonly session: string;
  /** Id of the endpoint. */
  readonly endpoint: string;
  readonly policy: SlowPolicy;
  readonly encoding: Encoding | undefined;
  readonly owner: string | undefined;
  readonly allowed: Allowed;
  readonly channel: ChannelSnapshot<MessageId>;
  readonly log: ReplaySnapshot;
  readonly results: ReplaySnapshot;
  /** Where the client may send. */
  readonly seen: readonly number[];
  readonly missed: number;
  readonly told: number;
  readonly counted: number;
  readonly state: string;
}

/**
 * `rpmsg.v1.json`: text frames with a type. A session outlives a connection that broke: for a while its client may
 * come back and gets what it missed.
 */
export class JsonChannel implements ChannelEvents<MessageId>, ConnectionHandler, OutflowSink {
  readonly protocol = "json";
  session = randomBytes(16).toString("base64url");
  readonly #options: JsonOptions;
  readonly #marks: Marks;
  readonly #outflow: Outflow;
  readonly #log: ReplayLog;
  /** `sent` and `error` frames, by the last message before them. */
  readonly #results: ReplayLog;
  readonly #destinations: Destinations;
  #port: ChannelPort<MessageId> | undefined;
  /** Id of the endpoint. */
  #id = "";
  /** Undefined while the client is away. */
  #connection: Connection | undefined;
  #away: NodeJS.Timeout | undefined;
  /** Messages since the connection ended. */
  #missed = 0;
  /** The last message that was written, or told of as dropped. */
  #told = 0;
  /** Messages up to this one that were forgotten before the client had them are counted as dropped. */
  #counted = 0;
  /** Bytes of missed messages that a client which came back has yet to take. */
  #backlog = 0;
  #state = "";
  #ended = false;

  constructor(options: JsonOptions) {
    this.#options = options;
    this.#marks = marksOf(options.limits);
    this.#outflow = new Outflow(this, options.policy, options.limits, undefined, IN_MESSAGES);
    this.#log = new ReplayLog(options.limits, options.budget);
    this.#results = new ReplayLog(options.limits, options.budget);
    this.#destinations = new Destinations(options.allowed.anywhere);
  }

  get endpoint(): unknown {
    return this.#port?.endpoint;
  }

  get owner(): string | undefined {
    return this.#options.owner;
  }

  get allowed(): Allowed {
    return this.#options.allowed;
  }

  /** The endpoint is open. */
  bind(port: ChannelPort<MessageId>, id: string): void {
    this.#port = port;
    this.#id = id;
  }

  /**
   * A client is there.
   * @param credit messages that it takes over this connection, those that it missed included; undefined without a bound
   * @param after the last message that it got, where it resumes the session
   */
  attach(connection: Connection, credit?: number, after?: number): void {
    const port = this.#port;
    if (port === undefined) return;
    clearTimeout(this.#away);
    this.#connection?.abandon();
    this.#connection = connection;
    const { endpoint } = port;
    const { endpointState, guestState } = this.#states(port);
    this.#tell({
      type: "hello",
      protocol: "rpmsg.v1.json",
      guest: endpoint.guest,
      endpoint: displayName(endpoint.name),
      id: this.#id,
      local: port.local,
      endpointState,
      guestState,
      generation: endpoint.generation,
      mtu: port.mtu,
      instance: this.#options.instance,
      session: this.session,
      resumed: after !== undefined,
    });
    const missed = after === undefined ? 0 : this.#replay(after);
    this.#backlog = connection.pendingBytes;
    this.#missed = 0;
    this.#outflow.allow(credit === undefined ? undefined : credit - missed);
    // What waits for the guest does so still: this connection is to bring no more than the one before.
    if (port.pendingBytes >= this.#marks.pause) connection.pauseReading();
  }

  /** Whoever is away has so long to come back from now on; without a bound while the bridge itself cannot be reached. */
  awaitReturn(milliseconds: number | undefined): void {
    clearTimeout(this.#away);
    if (milliseconds === undefined) return;
    this.#away = setTimeout(() => {
      this.#options.counts.limits.add("sessionTimeout");
      this.#end();
    }, milliseconds).unref();
  }

  /** For a session whose client is away, while the guest stands still. */
  snapshot(): SessionSnapshot | undefined {
    const port = this.#port;
    if (port === undefined || this.#ended || this.#connection !== undefined) return undefined;
    return {
      session: this.session,
      endpoint: this.#id,
      policy: this.#options.policy,
      encoding: this.#options.encoding,
      owner: this.#options.owner,
      allowed: this.#options.allowed,
      channel: port.snapshot(),
      log: this.#log.snapshot(),
      results: this.#results.snapshot(),
      seen: this.#destinations.seen,
      missed: this.#missed,
      told: this.#told,
      counted: this.#counted,
      state: this.#state,
    };
  }

  /** Goes on as the session of another process: its client is away, and has the whole time to come back. */
  restore(snapshot: SessionSnapshot, open: (channel: this) => ChannelPort<MessageId>): void {
    this.session = snapshot.session;
    this.#id = snapshot.endpoint;
    this.#log.restore(snapshot.log);
    this.#results.restore(snapshot.results);
    for (const address of snapshot.seen) this.#destinations.saw(address);
    this.#outflow.goOn(snapshot.told);
    this.#missed = snapshot.missed;
    this.#told = snapshot.told;
    this.#counted = snapshot.counted;
    this.#state = snapshot.state;
    this.#port = open(this);
    this.onClosed(true);
  }

  /** Says good-bye to a client, and ends its session. */
  close(code: number, reason: string): void {
    this.#end();
    this.#connection?.close(code, reason);
  }

  // ---- guest to client ----

  onMessage(src: number, bytes: Uint8Array, offset: number, length: number, serial: number): void {
    this.#destinations.saw(src);
    this.#outflow.offer(src, bytes, offset, length, serial);
  }

  get probe(): LatencyProbe | undefined {
    return this.#connection?.probe;
  }

  get budget(): MemoryBudget {
    return this.#options.budget;
  }

  get counts(): ClientCounts {
    return this.#options.counts;
  }

  get pendingBytes(): number {
    const pending = this.#connection?.pendingBytes ?? 0;
    // Nobody is a slow reader for what came while there was no connection.
    this.#backlog = Math.min(this.#backlog, pending);
    return pending - this.#backlog;
  }

  write(seq: number, src: number, bytes: Uint8Array, offset: number, length: number, serial: number): void {
    const tail = this.#options.encoder.tail(src, bytes, offset, length, serial, this.#options.encoding);
    if (this.#options.resumable) this.#log.push(seq, tail);
    // Not known yet is whether the client comes back to a connection that ends.
    if (this.#connection?.isOpen !== true) this.#missed++;
    this.#told = seq;
    this.#writeMessage(seq, tail);
  }

  writeDropped(count: number): void {
    // Whoever is away is told on its return, in its place.
    this.#told += count;
    this.#tell({ type: "dropped", count });
  }

  notifyDrained(): void {
    this.#connection?.notifyDrained();
  }

  hold(): void {
    this.#port?.hold();
  }

  release(): void {
    this.#port?.release();
  }

  dropped(count: number, cause: DropCause): void {
    this.#port?.dropped(count, cause);
  }

  slow(reason: string): void {
    this.close(closeCode.slowReader, reason);
  }

  // ---- client to guest ----

  onBinary(): void {
    this.#fail("bad-frame", "rpmsg.v1.json has text frames only");
    this.close(closeCode.unsupported, "rpmsg.v1.json has text frames only");
  }

  onText(data: Buffer): void {
    const parsed = parseFrame(ClientFrame, data);
    if ("problem" in parsed) {
      this.#fail("bad-frame", parsed.problem, parsed.id);
      return;
    }
    const { frame } = parsed;
    if (frame.type === "ping") this.#tell({ type: "pong" });
    else if (frame.type === "credit") this.#outflow.grant(frame.messages);
    else this.#send(frame);
  }

  #send({ id, data, encoding, dst, timeout }: Extract<ClientFrameType, { type: "send" }>): void {
    const port = this.#port;
    if (port === undefined) return;
    const bytes = decodeText(data, encoding);
    if (bytes === undefined) {
      this.#fail("bad-frame", `data: not ${encoding}`, id);
    } else if (dst !== undefined && !this.#destinations.allows(dst, port)) {
      this.#fail("forbidden", `dst: ${dst} is neither the channel's peer nor a source of its messages`, id);
    } else if (bytes.length > port.mtu) {
      this.#fail("too-large", `message of ${bytes.length} bytes, the most is ${port.mtu}`, id);
    } else {
      const code = port.send(dst, bytes, 0, bytes.length, id, timeout);
      if (code === "sent") this.onSent(id);
      else if (code === "address-invalid") this.#fail("bad-frame", "dst: not an address", id);
      else if (code !== "queued") this.#fail(code, errorAdvice[code], id);
      else if (port.pendingBytes >= this.#marks.pause) this.#connection?.pauseReading();
    }
  }

  onWritable(): void {
    this.#connection?.resumeReading();
  }

  onSent(id: MessageId | undefined): void {
    if (id !== undefined) this.#tell({ type: "sent", id });
  }

  onUndelivered(code: UndeliveredCode, id: MessageId | undefined): void {
    this.#fail(code, errorAdvice[code], id);
  }

  onUnconfirmed(id: MessageId | undefined): void {
    this.#fail("guest-gone", "the guest was reset and may not have read this message", id);
  }

  // ---- state and end ----

  onChanged(): void {
    const port = this.#port;
    if (port === undefined) return;
    const before = this.#state;
    const states = this.#states(port);
    if (this.#state === before) return;
    this.#tell({ type: "state", state: "up", ...states, generation: port.endpoint.generation });
  }

  onTick(): void {
    this.#log.prune();
    this.#results.prune();
  }

  onTooMuch(reason: string): void {
    this.slow(reason);
  }

  onDrained(): void {
    this.#outflow.drained();
  }

  onEnd(reason: EndReason): void {
    const port = this.#port;
    if (port !== undefined && (reason === "reset" || reason === "withdrawn")) {
      const { generation } = port.endpoint;
      this.#tell({ type: "state", state: "down", reason, ...this.#states(port), generation });
    }
    this.close(...endOf[reason]);
  }

  onClosed(broken: boolean): void {
    if (this.#ended) return;
    if (!broken || !this.#options.resumable) {
      this.#end();
      return;
    }
    this.#connection = undefined;
    // What waited for the client, or for credit of it, waits for its return.
    this.#outflow.allow(undefined);
    this.#options.onAway(this);
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#away);
    this.#outflow.end();
    this.#log.clear();
    this.#results.clear();
    // Nobody has come to take it.
    if (this.#missed > 0) this.dropped(this.#missed, "session");
    this.#port?.close();
    this.#options.onEnd(this);
  }

  /** The states, which are those that the client knows from now on. */
  #states({
    endpoint,
  }: ChannelPort<MessageId>): Pick<Extract<ServerFrame, { type: "state" }>, "endpointState" | "guestState"> {
    const { state: endpointState, guestState } = endpoint;
    this.#state = `${endpointState} ${guestState}`;
    return { endpointState, guestState };
  }

  /**
   * What the client missed, and in its place how much of it was dropped or is not known any more.
   * @returns how many messages
   */
  #replay(after: number): number {
    // What was dropped when it came was counted then.
    const { forgotten } = this.#log;
    const lost = forgotten - Math.max(after, this.#counted);
    if (lost > 0) this.dropped(lost, "session");
    this.#counted = Math.max(forgotten, this.#counted);
    let last = after;
    const missed = this.#log.after(after);
    for (const { seq, text } of missed) {
      this.#tellGap(seq - 1 - last);
      this.#writeMessage(seq, text);
      last = seq;
    }
    this.#tellGap(this.#told - last);
    // Those that came with the last message that arrived, or later: some a second time.
    for (const { text } of this.#results.after(after - 1)) this.#connection?.writer.text("", text);
    return missed.length;
  }

  #tellGap(count: number): void {
    if (count > 0) this.#tell({ type: "dropped", count });
  }

  #writeMessage(seq: number, tail: Buffer): void {
    if (this.#connection?.isOpen === true)
      this.#connection.writer.text(`{"type":"message","seq":${seq}`, tail);
  }

  #fail(code: ErrorCode, message: string, id?: MessageId): void {
    this.#options.counts.rejected.frame.add(code);
    this.#tell({ type: "error", ...(id !== undefined && { id }), code, message });
  }

  #tell(frame: ServerFrame): void {
    const text = JSON.stringify(frame);
    // Whether a result arrived is not known: it comes again after a connection that broke.
    if (this.#options.resumable && !this.#ended && (frame.type === "sent" || frame.type === "error")) {
      this.#results.push(this.#told, Buffer.from(text));
    }
    if (this.#connection === undefined) return;
    this.#connection.text(text);
    // A client that asks and does not read the answers.
    const { slowReaderBytes } = this.#options.limits;
    if (!this.#ended && this.pendingBytes > 2 * slowReaderBytes)
      this.slow("slow reader: too many answers wait");
  }
}
