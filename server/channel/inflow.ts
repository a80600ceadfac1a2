import type { Duplex } from "node:stream";

/** Bytes of a client that are handled at once. Most clients never send more before they are read again. */
export const SLICE = 8192;
/** What a turn handles of the clients in line: messages, or KiB where those are more. */
const TURN = 256;

/**
 * Where clients wait that have sent more than is handled at once, as those do that flood. Each gets a slice in its
 * turn, and a turn of the event loop only so many messages: whoever sends little, the guests and timers come in between.
 */
export class InflowLine {
  /** In the order of their coming: a set keeps it, and forgets one of the middle. */
  readonly #line = new Set<Inflow>();
  #scheduled = false;
  #turn = 0;
  #turning = false;

  /** Number of the turn of the event loop. */
  get turn(): number {
    if (!this.#turning) {
      this.#turning = true;
      setImmediate(() => {
        this.#turning = false;
        this.#turn++;
      });
    }
    return this.#turn;
  }

  join(inflow: Inflow): void {
    this.#line.add(inflow);
    this.#schedule();
  }

  leave(inflow: Inflow): void {
    this.#line.delete(inflow);
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.#serve());
  }

  #serve(): void {
    this.#scheduled = false;
    let work = 0;
    // Who joins again meanwhile is at the end of it.
    for (const inflow of this.#line) {
      this.#line.delete(inflow);
      work += inflow.serve();
      if (work >= TURN) break;
    }
    if (this.#line.size > 0) this.#schedule();
  }
}

/**
 * What a client sends, in slices. Node gives 64 KiB at a time, over TLS in pieces as small as the client likes, and 32
 * times in a row where there is as much (libuv, uv__read): ten thousand small messages, all of them handled before
 * anybody else is looked at. What is beyond a slice in a turn stays in the stream, so that nothing overtakes it, its end
 * neither.
 */
export class Inflow {
  /** Messages so far. */
  handled = 0;
  /** How often it came into line so far. */
  waits = 0;
  readonly #stream: Duplex;
  readonly #line: InflowLine;
  #paused = false;
  /** What was handed on in that turn, in bytes. */
  #handedOn = 0;
  #turn = -1;

  /**
   * @param stream before the handshake, so that ws finds it as it is left here
   * @param head what has come with the request
   */
  constructor(stream: Duplex, head: Buffer, line: InflowLine) {
    this.#stream = stream;
    this.#line = line;
    if (head.length > 0) {
      stream.pause();
      stream.unshift(head);
    }
    // Called by Node with each read of the socket (net.Socket, tls.TLSSocket: onStreamRead), with null at the end.
    const push = stream.push.bind(stream);
    stream.push = (chunk: Buffer | null): boolean => {
      if (chunk === null || stream.readableFlowing !== true) return push(chunk);
      const { turn } = line;
      if (turn !== this.#turn) {
        this.#turn = turn;
        this.#handedOn = 0;
      }
      const room = SLICE - this.#handedOn;
      this.#handedOn = Math.min(SLICE, this.#handedOn + chunk.length);
      if (chunk.length <= room) return push(chunk);
      if (room > 0) push(chunk.subarray(0, room));
      // A handler may have paused it.
      if (stream.readableFlowing) this.#wait();
      return push(chunk.subarray(room));
    };
  }

  /** The handshake is done, and somebody listens. */
  start(): void {
    if (this.#stream.readableLength > 0) this.#wait();
  }

  pause(): void {
    this.#paused = true;
    this.#line.leave(this);
    this.#stream.pause();
  }

  resume(): void {
    this.#paused = false;
    if (this.#stream.readableLength > 0) this.#wait();
    else this.#stream.resume();
  }

  /**
   * Handles a slice, for the line.
   * @returns how much work it was
   */
  serve(): number {
    const { handled } = this;
    const bytes = Math.min(SLICE, this.#stream.readableLength);
    // As any other data it goes to who listens.
    if (bytes > 0) this.#stream.read(bytes);
    if (!this.#paused) this.resume();
    return Math.max(1, bytes >> 10, this.handled - handled);
  }

  #wait(): void {
    this.waits++;
    this.#stream.pause();
    this.#line.join(this);
  }
}
