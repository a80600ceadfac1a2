import { FrontendError, SystemError } from "../errors.ts";
import { errno, errnoName } from "../posix/errno.ts";
import type { Poller } from "../posix/poller.ts";
import { EPOLLOUT } from "../posix/poller.ts";
import { closeFd, recvmsg, sendmsg } from "../posix/unix-socket.ts";
import { Unsent } from "../posix/unsent.ts";
import { MAX_MESSAGE_PAYLOAD, MESSAGE_HEADER_SIZE, requestName, VERSION, VERSION_MASK } from "./messages.ts";

export interface VhostUserMessage {
  readonly id: number;
  readonly flags: number;
  readonly payload: DataView;
  /**
   * Takes a descriptor that came with the message, in order; undefined when there is none left. Those that nobody
   * takes are closed after the call.
   */
  takeFd(): number | undefined;
  readonly fdCount: number;
}

export interface ConnectionEvents {
  /** An error thrown here closes the connection. */
  onMessage(message: VhostUserMessage): void;
  /** Once. `error` is undefined when the peer closed in order, or we did. */
  onClose(error: Error | undefined): void;
}

/** For a hand-over: plain data, with descriptors of the process that gives it. */
export interface ConnectionSnapshot {
  readonly fd: number;
  /** What has come of a message that is not whole yet, and the descriptors that came with it. */
  readonly received: Uint8Array;
  readonly fds: readonly number[];
  readonly unsent: readonly Uint8Array[];
}

/** Replies that wait for a peer that does not read: more than that is no frontend. */
const MAX_UNSENT = 64 * 1024;

/** Descriptors that one message may bring, however many pieces it comes in (posix/unix-socket.ts bounds a piece). */
const MAX_DESCRIPTORS = 64;

/** Reads in one go, so that a peer that never stops leaves others their turn. A message takes two. */
const TURN_BUDGET = 64;

/**
 * One vhost-user socket, either role: cuts the byte stream into messages and keeps the descriptors with the message
 * that they came with. Every descriptor that arrives is handed out or closed.
 */
export class VhostUserConnection {
  readonly #fd: number;
  readonly #poller: Poller;
  readonly #events: ConnectionEvents;
  /** Header and payload of the message that is being received. */
  readonly #buffer = new Uint8Array(MESSAGE_HEADER_SIZE + MAX_MESSAGE_PAYLOAD);
  readonly #view = new DataView(this.#buffer.buffer);
  #received = 0;
  /** Descriptors of the message that is being received. */
  readonly #fds: number[] = [];
  readonly #arrived: number[] = [];
  readonly #unsent = new Unsent();
  /** The socket is left alone. */
  #paused = false;
  #closed = false;

  /**
   * Takes the descriptor of a connected, non-blocking stream socket; or goes on as another connection, after `resume`.
   */
  constructor(from: number | ConnectionSnapshot, poller: Poller, events: ConnectionEvents) {
    const fd = typeof from === "number" ? from : from.fd;
    this.#fd = fd;
    this.#poller = poller;
    this.#events = events;
    if (typeof from !== "number") {
      this.#paused = true;
      this.#buffer.set(from.received);
      this.#received = from.received.length;
      this.#fds.push(...from.fds);
      for (const bytes of from.unsent) this.#unsent.add(bytes);
      return;
    }
    const result = this.#watch();
    if (result < 0) {
      closeFd(fd);
      throw new SystemError("socket", `cannot poll the socket: ${errnoName(result)}`);
    }
  }

  /** Reads and writes nothing until `resume`. May be called from within `onMessage`. */
  pause(): void {
    if (this.#closed || this.#paused) return;
    this.#paused = true;
    this.#poller.remove(this.#fd);
  }

  /** What came meanwhile is read. */
  resume(): void {
    if (this.#closed || !this.#paused) return;
    this.#paused = false;
    const result = this.#watch();
    if (result < 0) this.close(new SystemError("socket", `cannot poll the socket: ${errnoName(result)}`));
    else if (this.#unsent.bytes > 0) this.#poller.setWritable(this.#fd, true);
  }

  /** What there is to know of a paused connection. */
  snapshot(): ConnectionSnapshot {
    const received = this.#buffer.slice(0, this.#received);
    return { fd: this.#fd, received, fds: this.#fds, unsent: this.#unsent.pieces };
  }

  /** Sends a message. What a full socket does not take waits; descriptors never do. */
  send(id: number, flags: number, payload: Uint8Array, fds: readonly number[] = []): void {
    if (this.#closed) return;
    const bytes = new Uint8Array(MESSAGE_HEADER_SIZE + payload.length);
    const header = new DataView(bytes.buffer);
    header.setUint32(0, id, true);
    header.setUint32(4, flags | VERSION, true);
    header.setUint32(8, payload.length, true);
    bytes.set(payload, MESSAGE_HEADER_SIZE);
    if ((this.#unsent.bytes > 0 || this.#paused) && fds.length === 0) {
      this.#keep(bytes);
      return;
    }
    const sent = this.#unsent.bytes > 0 ? -errno.EAGAIN : sendmsg(this.#fd, bytes, 0, bytes.length, fds);
    if (sent === bytes.length) return;
    if (sent < 0 && (sent !== -errno.EAGAIN || fds.length > 0)) {
      this.close(new SystemError("socket", `cannot send ${requestName(id)}: ${errnoName(sent)}`));
      return;
    }
    this.#keep(sent > 0 ? bytes.subarray(sent) : bytes);
  }

  close(error?: Error): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#poller.remove(this.#fd);
    for (const fd of this.#fds.splice(0)) closeFd(fd);
    // The peer sees the end last: from then on a frontend may give the guest's rings to somebody else.
    try {
      this.#events.onClose(error);
    } finally {
      closeFd(this.#fd);
    }
  }

  #watch(): number {
    return this.#poller.add(this.#fd, (ready) => this.#ready(ready));
  }

  #keep(bytes: Uint8Array): void {
    this.#unsent.add(bytes);
    if (this.#unsent.bytes > MAX_UNSENT) {
      this.close(new SystemError("socket", "the peer does not read its replies"));
      return;
    }
    this.#poller.setWritable(this.#fd, true);
  }

  #flush(): void {
    const result = this.#unsent.flush(this.#fd);
    if (result === -errno.EAGAIN) return;
    if (result < 0) this.close(new SystemError("socket", `cannot send: ${errnoName(result)}`));
    else this.#poller.setWritable(this.#fd, false);
  }

  #ready(ready: number): void {
    if ((ready & EPOLLOUT) !== 0 && this.#unsent.bytes > 0) this.#flush();
    if (!this.#closed && (ready & ~EPOLLOUT) !== 0) this.#read();
  }

  #read(): void {
    try {
      for (let budget = TURN_BUDGET; budget > 0; ) {
        const wanted = this.#wanted();
        if (wanted === 0) {
          this.#deliver();
          if (this.#closed || this.#paused) return;
          continue;
        }
        // Exactly what belongs to this message, so that descriptors of the next one do not come along.
        budget--;
        const got = recvmsg(this.#fd, this.#buffer, this.#received, wanted, this.#arrived);
        if (got === -errno.EAGAIN) return;
        if (got === -errno.EMSGSIZE) {
          throw new FrontendError("ancillary-truncated", "a message came with too many descriptors");
        }
        if (got < 0) throw new SystemError("socket", `cannot receive: ${errnoName(got)}`);
        for (const fd of this.#arrived) this.#fds.push(fd);
        if (this.#fds.length > MAX_DESCRIPTORS) {
          throw new FrontendError("ancillary-truncated", "a message came with too many descriptors");
        }
        if (got === 0) {
          if (this.#received > 0)
            throw new FrontendError("message-truncated", "the connection ended within a message");
          this.close();
          return;
        }
        this.#received += got;
      }
      // The poller reports changes only: what is left must be asked for.
      setImmediate(() => this.#closed || this.#paused || this.#read());
    } catch (error) {
      this.close(error instanceof Error ? error : new Error(String(error)));
    }
  }

  /** Bytes that the message still lacks. */
  #wanted(): number {
    if (this.#received < MESSAGE_HEADER_SIZE) return MESSAGE_HEADER_SIZE - this.#received;
    const id = this.#view.getUint32(0, true);
    const flags = this.#view.getUint32(4, true);
    const size = this.#view.getUint32(8, true);
    if ((flags & VERSION_MASK) !== VERSION) {
      throw new FrontendError(
        "message-flags",
        `${requestName(id)} has flags 0x${flags.toString(16)}, not version 1`,
      );
    }
    if (size > MAX_MESSAGE_PAYLOAD)
      throw new FrontendError("message-size", `${requestName(id)} has ${size} bytes`);
    return MESSAGE_HEADER_SIZE + size - this.#received;
  }

  #deliver(): void {
    const fds = this.#fds.splice(0);
    const size = this.#received - MESSAGE_HEADER_SIZE;
    this.#received = 0;
    const message: VhostUserMessage = {
      id: this.#view.getUint32(0, true),
      flags: this.#view.getUint32(4, true),
      payload: new DataView(this.#buffer.buffer, MESSAGE_HEADER_SIZE, size),
      fdCount: fds.length,
      takeFd: () => fds.shift(),
    };
    try {
      this.#events.onMessage(message);
    } finally {
      for (const fd of fds) closeFd(fd);
    }
  }
}
