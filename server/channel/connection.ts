import type { Duplex } from "node:stream";
import type { WebSocket } from "ws";
import type { Limits, Rate } from "../../schemas/index.ts";
import { closeCode } from "../../schemas/index.ts";
import { TokenBucket } from "../access/token-bucket.ts";
import type { ClientCounts, ProtocolName } from "../client-counts.ts";
import { closeCodeOf } from "../client-counts.ts";
import type { CountedLimit } from "../counted-limits.ts";
import type { EndReason } from "../endpoint-port.ts";
import type { Holder, MemoryBudget } from "../memory-budget.ts";
import { FrameReader } from "./frame-reader.ts";
import type { FlushTurn } from "./frame-writer.ts";
import { FrameWriter } from "./frame-writer.ts";
import type { InflowLine } from "./inflow.ts";
import { Inflow } from "./inflow.ts";
import type { LatencyProbe } from "./latency-probe.ts";

/** `readyState` of a WebSocket on which no close frame was sent. */
const OPEN = 1;
const NOTHING = Buffer.alloc(0);
/** Code of a connection that ended without a close frame. */
const ABNORMAL = 1006;

/** Why a client is closed that reads, but too slowly for a bridge that has too much to keep. */
export const TOO_MUCH = "slow reader: too much waits for all clients together";

/** How a connection ends with its channel. */
export const endOf: Readonly<Record<EndReason, readonly [code: number, reason: string]>> = {
  reset: [closeCode.guestReset, "guest detached or reset"],
  withdrawn: [closeCode.endpointWithdrawn, "endpoint withdrawn"],
  replaced: [closeCode.replaced, "replaced by another client"],
  overloaded: [closeCode.slowReader, "too much waits for the guests"],
};

/** What speaks a subprotocol over a connection. */
export interface ConnectionHandler {
  readonly protocol: ProtocolName;
  /** A whole text message of the client, in UTF-8. */
  onText(data: Buffer): void;
  /** A whole binary message of the client: `length` bytes, valid during the call only. */
  onBinary(bytes: Buffer, offset: number, length: number): void;
  /** What was written when `notifyDrained` was called is with the kernel. */
  onDrained(): void;
  /**
   * The connection is over.
   * @param broken without a good-bye of either side, and without a mistake of the client
   */
  onClosed(broken: boolean): void;
  /** From time to time. */
  onTick(): void;
  /** Too much waits for all clients, and most of it for this one: the connection is to be closed. */
  onTooMuch(reason: string): void;
}

/** Who a client is, for the log. */
export interface ClientFacts {
  readonly peer: string;
  /** As it was sent, without its query. */
  readonly path: string;
}

/** One client's WebSocket: frames out, liveness, and the good-bye. */
export class Connection implements Holder {
  readonly writer: FrameWriter;
  readonly client: ClientFacts;
  readonly counts: ClientCounts;
  readonly probe: LatencyProbe;
  /** Of the bytes that wait for all clients. */
  readonly budget: MemoryBudget;
  readonly #stream: Duplex;
  readonly #inflow: Inflow;
  #socket: WebSocket | undefined;
  #handler: ConnectionHandler | undefined;
  readonly #limits: Pick<Limits, "payloadBytes" | "pendingPongs">;
  /** Of messages, pings and pongs; undefined without a bound. */
  readonly #rate: TokenBucket | undefined;
  #pause: NodeJS.Timeout | undefined;
  #pendingPongs = 0;
  #paused = false;
  #drainAwaited = false;
  /** A close frame is on its way: messages of the guest would come after it. */
  #closing = false;
  /** The bridge ended it without waiting for an answer. */
  #cutOff = false;
  /** Why it ends, where that is known before the end. */
  #cause: Parameters<ClientCounts["ended"]>[0] | undefined;
  /** The bridge goes on in another process: the client is to come back. */
  #restarting = false;
  #awaitingPong = false;
  /**
   * When the client was pinged: whether the ping had to wait behind other bytes, how many were taken, and how often the
   * client had waited in line.
   */
  #backlogAtPing = false;
  #takenAtPing = 0;
  #waitsAtPing = 0;

  /**
   * @param stream the connection, on which the handshake is still to be done
   * @param head what has come after the request
   * @param rate how often the client may send; undefined without a bound
   */
  constructor(
    stream: Duplex,
    head: Buffer,
    turn: FlushTurn,
    line: InflowLine,
    counts: ClientCounts,
    client: ClientFacts,
    limits: Pick<Limits, "payloadBytes" | "pendingPongs">,
    budget: MemoryBudget,
    rate?: Rate,
  ) {
    this.#stream = stream;
    this.#inflow = new Inflow(stream, head, line);
    this.counts = counts;
    this.client = client;
    this.probe = turn.probe;
    this.#limits = limits;
    this.#rate = rate && new TokenBucket(rate);
    this.budget = budget;
    this.writer = new FrameWriter(
      stream,
      turn,
      () => this.isOpen,
      (bytes) => budget.grown(this, bytes),
    );
  }

  get protocol(): ProtocolName | undefined {
    return this.#handler?.protocol;
  }

  /**
   * The handshake is done.
   * @param onEnd is told why, as it is counted
   */
  open(socket: WebSocket, handler: ConnectionHandler, onEnd: (cause: string) => void): void {
    this.#socket = socket;
    this.#handler = handler;
    this.counts.opened.add(handler.protocol);
    const onBinary = (bytes: Buffer, offset: number, length: number): void => {
      this.#spend();
      this.#handler?.onBinary(bytes, offset, length);
    };
    const reader = new FrameReader(this.#stream, this.#limits.payloadBytes, onBinary);
    socket.on("message", (data: Buffer, isBinary) => {
      reader.handedOut();
      if (isBinary) {
        onBinary(data, 0, data.length);
        return;
      }
      this.#spend();
      this.#handler?.onText(data);
    });
    socket.on("ping", (data) => {
      this.#spend();
      this.#pong(data);
    });
    socket.on("pong", () => {
      this.#spend();
      this.#awaitingPong = false;
    });
    let mistaken = false;
    socket.on("error", (error) => {
      // ws answers a broken frame with its close code by itself.
      mistaken = true;
      reader.end();
      this.#cause ??= closeCodeOf(error);
      const limit = limitOf(error);
      if (limit !== undefined) this.counts.limits.add(limit);
    });
    socket.on("close", (code) => {
      clearTimeout(this.#pause);
      this.budget.forget(this);
      if (code === ABNORMAL && (this.#closing || mistaken) && this.#isTimedOut) {
        this.counts.limits.add("closeTimeout");
      }
      // A client that said good-bye by itself at the same moment has had its own code.
      const cut = code === ABNORMAL && !this.#closing && !mistaken;
      const broken = cut || (this.#restarting && (code === ABNORMAL || code === closeCode.restart));
      this.#closing = true;
      const cause = this.counts.ended(this.#cause ?? (code === ABNORMAL ? "broken" : "client"));
      this.#handler?.onClosed(broken);
      onEnd(cause);
    });
    this.#inflow.start();
  }

  /** Nobody listens to this connection any more. */
  abandon(): void {
    this.#handler = undefined;
    this.#cause ??= "resumed";
    this.terminate();
  }

  /** No close frame was sent, by us or by ws as its answer: nothing may follow one (RFC 6455, 5.5.1). */
  get isOpen(): boolean {
    return !this.#closing && this.#socket?.readyState === OPEN;
  }

  /** Bytes that the client has not taken. */
  get pendingBytes(): number {
    return this.writer.pendingBytes;
  }

  get heldBytes(): number {
    return this.#stream.destroyed ? 0 : this.writer.pendingBytes;
  }

  shed(atOnce: boolean): void {
    this.#handler?.onTooMuch(TOO_MUCH);
    if (atOnce) this.terminate();
  }

  /** Writes a text frame. */
  text(json: string): void {
    if (this.isOpen) this.writer.text("", Buffer.from(json));
  }

  /** Calls `onDrained` when the client has taken what was written so far. */
  notifyDrained(): void {
    // The end of the connection is told otherwise.
    if (this.#drainAwaited || this.#stream.destroyed) return;
    this.#drainAwaited = true;
    this.writer.flush();
    this.#stream.write(NOTHING, () => {
      this.#drainAwaited = false;
      this.#handler?.onDrained();
    });
  }

  /** Too much waits for the guest: the client is not read until `resumeReading`. TCP holds it up, on a drain too. */
  pauseReading(): void {
    if (this.#paused) return;
    this.#paused = true;
    this.counts.limits.add("sendQueueBytes");
    if (this.#pause === undefined) this.#inflow.pause();
  }

  resumeReading(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#read();
  }

  /** Asks whether the client is there. */
  ping(): void {
    this.#handler?.onTick();
    if (!this.isOpen) return;
    this.#awaitingPong = true;
    this.#backlogAtPing = this.#stream.writableLength > 0;
    this.#socket?.ping();
    this.#takenAtPing = this.#taken();
    this.#waitsAtPing = this.#inflow.waits;
  }

  /**
   * Ends the connection of a client that did not answer. Not judged is one whose socket the bridge itself does not
   * read, one that is still on its way through what was written before the ping, and one that floods: its answer comes
   * behind all that it has sent.
   */
  checkPong(): void {
    if (this.#paused || this.#pause !== undefined || !this.#awaitingPong) return;
    if (this.#inflow.waits > this.#waitsAtPing) return;
    if (this.#backlogAtPing && this.#taken() > this.#takenAtPing) return;
    this.#cause ??= "no-pong";
    this.terminate();
  }

  /** Says good-bye after what was written so far. */
  close(code: number, reason: string): void {
    if (this.#closing) return;
    this.writer.flush();
    this.#closing = true;
    this.#cause ??= code;
    // The client's answer is to be read. On a drain messages that it has sent are still taken, as room allows.
    this.#restarting = code === closeCode.restart;
    if (code !== closeCode.drain && !this.#restarting) {
      clearTimeout(this.#pause);
      this.#pause = undefined;
      this.#paused = false;
      this.#read();
    }
    this.#socket?.close(code, reason);
  }

  /** Says good-bye, and takes no more of the client's messages, whenever it closes. */
  end(code: number, reason: string): void {
    if (this.#closing) return;
    this.#handler?.onClosed(false);
    this.close(code, reason);
  }

  /** Reads the client again where nothing is against it. */
  #read(): void {
    if (this.#paused || this.#pause !== undefined) return;
    this.#awaitingPong = false;
    this.#inflow.resume();
  }

  /** A message, a ping or a pong of the client. */
  #spend(): void {
    this.#inflow.handled++;
    if (this.#rate !== undefined) this.#slowDown(this.#rate.spend());
  }

  /** Does not read a client that has sent more often than it may, for so many milliseconds. */
  #slowDown(wait: number): void {
    // What was read before comes still; when the time is over it is seen how much it was.
    if (wait === 0 || this.#pause !== undefined || this.#closing) return;
    this.counts.limits.add("messageRate");
    this.#pause = setTimeout(() => {
      this.#pause = undefined;
      const more = this.#rate?.wait() ?? 0;
      if (more > 0) this.#slowDown(more);
      else this.#read();
    }, wait).unref();
    if (!this.#paused) this.#inflow.pause();
  }

  /** Answers a ping. Answers wait for a client that does not read, and not without a bound. */
  #pong(data: Buffer): void {
    if (!this.isOpen) return;
    // What the kernel has taken waits for nobody, though it is told a tick later.
    if (this.#pendingPongs >= this.#limits.pendingPongs && this.#stream.writableLength > 0) {
      this.counts.limits.add("pendingPongs");
      this.#cause ??= closeCode.slowReader;
      this.terminate();
      return;
    }
    this.#pendingPongs++;
    this.#socket?.pong(data, false, () => {
      this.#pendingPongs--;
    });
  }

  terminate(): void {
    this.#cutOff = true;
    this.#socket?.terminate();
  }

  /**
   * Whether a close that was begun is over without an answer: of all ends only that by ws after `closeTimeout` is none of
   * ours, and no end or error of the client's connection.
   */
  get #isTimedOut(): boolean {
    return !this.#cutOff && !this.#stream.readableEnded && this.#stream.errored === null;
  }

  #taken(): number {
    const { bytesWritten = 0, writableLength } = this.#stream as Duplex & { bytesWritten?: number };
    return bytesWritten - writableLength;
  }
}

/** The limit that a frame went beyond, by the error that ws makes of it; it closes the connection with the code that fits. */
function limitOf({ code, message }: NodeJS.ErrnoException): CountedLimit | undefined {
  if (code === "WS_ERR_UNSUPPORTED_MESSAGE_LENGTH") return "payloadBytes";
  if (code !== "WS_ERR_TOO_MANY_BUFFERED_PARTS") return undefined;
  return message.includes("fragment") ? "fragments" : "bufferedChunks";
}
