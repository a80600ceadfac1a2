import type { ErrorCode, Limits, MuxServerFrame, SlowPolicy } from "../../schemas/index.ts";
import { errorAdvice, MUX_MESSAGE_COST } from "../../schemas/index.ts";
import type { ClientCounts } from "../client-counts.ts";
import { displayName } from "../directory.ts";
import type { ChannelEvents, ChannelPort, DropCause, EndReason, UndeliveredCode } from "../endpoint-port.ts";
import type { MemoryBudget } from "../memory-budget.ts";
import { HttpProblem } from "../problem.ts";
import { marksOf } from "./back-pressure.ts";
import type { Connection } from "./connection.ts";
import { Destinations } from "./destinations.ts";
import type { LatencyProbe } from "./latency-probe.ts";
import type { OutflowSink } from "./outflow.ts";
import { Outflow } from "./outflow.ts";

/** In a frame's header: the endpoint's peer. */
const PEER = 0xffff_ffff;
/** How many slow subscriptions a connection has room for. */
const MOST_SHARES = 4;

/** A way to open an endpoint, now and after every reset. */
export interface OpenChannel {
  readonly policy: SlowPolicy;
  /** The guest's driver runs. */
  readonly attached: boolean;
  /** The client may send to any address but that of name service. */
  readonly anywhere: boolean;
  /** Whether it may be at this endpoint; undefined for any of the guest. */
  mayBe(guest: string, name: string | undefined): boolean;
  /**
   * @param again it was open before: nobody is closed for it any more
   * @throws HttpProblem where it cannot be opened
   */
  open(events: ChannelEvents<number>, again: boolean): { port: ChannelPort<number>; id: string };
}

/** What a subscription needs of its connection. */
export interface Multiplexer {
  readonly connection: Connection;
  /** Bytes that the client has not taken. */
  readonly pendingBytes: number;
  /** Grows whenever the client is seen to have taken everything. */
  readonly emptied: number;
  /** @param isAnswer a client that lets too many of them wait is slow */
  tell(frame: MuxServerFrame, isAnswer?: boolean): void;
  /** A subscription is over. */
  forget(sub: number): void;
  /** A subscription is down, and to be tried again when something changes. */
  waits(subscription: Subscription): void;
}

/**
 * One endpoint of a mux connection. Both directions have credit of their own, in bytes, 16 for each message included,
 * so that a message that cannot go on holds up no other subscription. It outlives resets.
 */
export class Subscription implements ChannelEvents<number>, OutflowSink {
  readonly #mux: Multiplexer;
  readonly #sub: number;
  readonly #way: OpenChannel;
  readonly #limits: Limits;
  /** What the client has granted at first; undefined without a bound. */
  readonly #credit: number | undefined;
  /** What the client may send at first. */
  #window = 0;
  #port: ChannelPort<number> | undefined;
  #outflow: Outflow;
  #destinations: Destinations;
  /** Credit that the client has used and not got back. */
  #used = 0;
  /** When it was tried last, the endpoint was there and somebody else had it, or the address. */
  #isBusy = false;
  /** Bytes of messages since the client had taken everything. */
  #written = 0;
  #emptied = 0;
  #state = "";

  constructor(mux: Multiplexer, sub: number, way: OpenChannel, limits: Limits, credit: number | undefined) {
    this.#mux = mux;
    this.#sub = sub;
    this.#way = way;
    this.#limits = limits;
    this.#credit = credit;
    this.#outflow = new Outflow(this, way.policy, limits, credit);
    this.#destinations = new Destinations(way.anywhere);
  }

  /**
   * @param again it was down
   * @throws HttpProblem where it cannot be opened
   */
  open(again = false): void {
    const { port, id } = this.#way.open(this, again);
    this.#port = port;
    this.#used = 0;
    // With less credit the longest message could never be sent.
    this.#window = Math.max(marksOf(this.#limits).pause, MUX_MESSAGE_COST + port.mtu);
    const { endpoint } = port;
    const { guest, generation } = endpoint;
    const states = this.#states(port);
    if (again) this.#mux.tell({ type: "state", sub: this.#sub, state: "up", ...states, generation });
    this.#mux.tell({
      type: "subscribed",
      sub: this.#sub,
      guest,
      endpoint: displayName(endpoint.name),
      id,
      local: port.local,
      ...states,
      generation,
      mtu: port.mtu,
      credit: this.#window,
    });
  }

  /**
   * Opens it again where it can be had.
   * @returns whether it is up
   */
  retry(): boolean {
    if (!this.#way.attached) return false;
    this.#outflow = new Outflow(this, this.#way.policy, this.#limits, this.#credit);
    this.#destinations = new Destinations(this.#way.anywhere);
    try {
      this.open(true);
      return true;
    } catch (error) {
      if (!(error instanceof HttpProblem)) throw error;
      this.#isBusy = error.code !== "endpoint-unknown";
      return false;
    }
  }

  /** Whether a change of this endpoint, or of any of the guest, may bring it up. */
  waitsFor(guest: string, name: string | undefined): boolean {
    return this.#way.mayBe(guest, this.#isBusy ? undefined : name);
  }

  /** The client wants no more of it. */
  unsubscribe(): void {
    this.close();
    this.#mux.forget(this.#sub);
    this.#mux.tell({ type: "unsubscribed", sub: this.#sub });
  }

  close(): void {
    this.#outflow.end();
    const port = this.#port;
    this.#port = undefined;
    port?.close();
  }

  // ---- guest to client ----

  onMessage(src: number, bytes: Uint8Array, offset: number, length: number, serial: number): void {
    this.#destinations.saw(src);
    if (this.#mux.connection.isOpen) this.#outflow.offer(src, bytes, offset, length, serial);
    else this.dropped(1, "closed");
  }

  get probe(): LatencyProbe {
    return this.#mux.connection.probe;
  }

  get budget(): MemoryBudget {
    return this.#mux.connection.budget;
  }

  get counts(): ClientCounts {
    return this.#mux.connection.counts;
  }

  /** Nobody is a slow reader for what others brought, unless all together are too much. */
  get pendingBytes(): number {
    const { pendingBytes, emptied } = this.#mux;
    // Whoever of the connection has seen it.
    if (emptied !== this.#emptied) this.#written = 0;
    this.#emptied = emptied;
    return pendingBytes > MOST_SHARES * this.#limits.slowReaderBytes
      ? pendingBytes
      : Math.min(pendingBytes, this.#written);
  }

  write(seq: number, src: number, bytes: Uint8Array, offset: number, length: number): void {
    const { connection } = this.#mux;
    if (!connection.isOpen) {
      this.dropped(1, "closed");
      return;
    }
    this.#written += MUX_MESSAGE_COST + length;
    connection.writer.words(this.#sub, src, ((seq - 1) % PEER) + 1, bytes, offset, length);
  }

  writeDropped(count: number): void {
    this.#mux.tell({ type: "dropped", sub: this.#sub, count });
  }

  notifyDrained(): void {
    this.#mux.connection.notifyDrained();
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

  slow(): void {
    this.#over("slow-reader");
  }

  drained(): void {
    this.#outflow.drained();
  }

  grant(bytes: number): void {
    this.#outflow.grant(bytes);
  }

  // ---- client to guest ----

  send(address: number, number: number, bytes: Buffer, offset: number, length: number): void {
    const port = this.#port;
    const id = number === 0 ? undefined : number;
    const dst = address === PEER ? undefined : address;
    const cost = MUX_MESSAGE_COST + length;
    if (port === undefined) {
      // Fresh credit comes with its return.
      this.#fail("guest-gone", "the subscription is down", id);
      return;
    }
    const beyond = this.#used + cost > this.#window;
    // What is refused for another reason costs, too, and is given back: the client has counted it.
    if (!beyond) this.#used += cost;
    if (dst !== undefined && !this.#destinations.allows(dst, port)) {
      this.#fail("forbidden", `${dst} is neither the channel's peer nor a source of its messages`, id);
    } else if (length > port.mtu) {
      this.#fail("too-large", `message of ${length} bytes, the most is ${port.mtu}`, id);
    } else if (beyond) {
      this.#fail("queue-full", `no credit is left for ${cost} bytes`, id);
    } else {
      const code = port.send(dst, bytes, offset, length, id);
      if (code === "sent") this.#tellSent(id);
      else if (code === "address-invalid") this.#fail("bad-frame", "not an address", id);
      else if (code !== "queued") this.#fail(code, errorAdvice[code], id);
    }
    this.#giveCredit();
  }

  onWritable(): void {
    this.#giveCredit();
  }

  onSent(id: number | undefined): void {
    this.#tellSent(id);
    this.#giveCredit();
  }

  onUndelivered(code: UndeliveredCode, id: number | undefined): void {
    this.#fail(code, errorAdvice[code], id, code !== "guest-gone");
    this.#giveCredit();
  }

  onUnconfirmed(id: number | undefined): void {
    this.#fail("guest-gone", "the guest was reset and may not have read this message", id, false);
  }

  #tellSent(id: number | undefined): void {
    if (id !== undefined) this.#mux.tell({ type: "sent", sub: this.#sub, id });
  }

  /** Gives back what no waiting message needs: in large pieces, unless the client may need it for its next message. */
  #giveCredit(): void {
    const port = this.#port;
    if (port === undefined) return;
    const free = this.#used - port.pendingBytes;
    const enough = this.#window - this.#used >= MUX_MESSAGE_COST + port.mtu;
    if (free <= 0 || (enough && free < this.#window / 4)) return;
    this.#used -= free;
    this.#mux.tell({ type: "credit", sub: this.#sub, bytes: free });
  }

  // ---- state and end ----

  onChanged(): void {
    const port = this.#port;
    if (port === undefined) return;
    const before = this.#state;
    const states = this.#states(port);
    if (this.#state === before) return;
    const { generation } = port.endpoint;
    this.#mux.tell({ type: "state", sub: this.#sub, state: "up", ...states, generation });
  }

  onEnd(reason: EndReason): void {
    const port = this.#port;
    if (port === undefined) return;
    if (reason === "replaced" || reason === "overloaded") {
      this.#over(reason);
      return;
    }
    const { generation } = port.endpoint;
    const states = this.#states(port);
    this.close();
    this.#mux.waits(this);
    this.#mux.tell({ type: "state", sub: this.#sub, state: "down", reason, ...states, generation });
  }

  #states({ endpoint }: ChannelPort<number>): {
    endpointState: typeof endpoint.state;
    guestState: typeof endpoint.guestState;
  } {
    const { state: endpointState, guestState } = endpoint;
    this.#state = `${endpointState} ${guestState}`;
    return { endpointState, guestState };
  }

  /** @param isAnswer what a reset brings is none: all at once, an error for each message that waited or lay unread */
  #fail(code: ErrorCode, message: string, id: number | undefined, isAnswer = true): void {
    this.#mux.tell(
      { type: "error", sub: this.#sub, ...(id !== undefined && { id }), code, message },
      isAnswer,
    );
  }

  #over(code: ErrorCode): void {
    this.close();
    this.#mux.forget(this.#sub);
    this.#mux.tell({ type: "unsubscribed", sub: this.#sub, code });
  }
}
