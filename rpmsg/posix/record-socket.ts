import { errno, errnoName } from "./errno.ts";
import type { Poller } from "./poller.ts";
import { EPOLLOUT } from "./poller.ts";
import { closeFd, recvmsg } from "./unix-socket.ts";
import { Unsent } from "./unsent.ts";

/** `u32 magic; u32 bytes of the payload; u32 descriptors`, little endian, before each payload. */
const HEADER_SIZE = 12;
const MAGIC = 0x4852_4252;
/** What is longer is not meant. */
const MOST: RecordBounds = { payload: 2 ** 30, descriptors: 65_536 };
/** Reads in one go, so that a peer that never stops leaves others their turn. */
const TURN_BUDGET = 256;
/** Descriptors that go with one byte; the receiver takes 64 at a time (posix/unix-socket.ts). */
const DESCRIPTORS_AT_ONCE = 60;

export interface RecordEvents {
  /** Takes the descriptors. An error thrown here ends the connection. */
  onRecord(payload: Uint8Array, fds: number[]): void;
  /** Once. `error` is undefined when the peer closed in order, or we did. */
  onClose(error: Error | undefined): void;
}

/** Of one record that is received. */
export interface RecordBounds {
  /** Bytes. */
  readonly payload: number;
  readonly descriptors: number;
}

/** Records with descriptors over a connected stream socket (unix(7)): of any length, each whole and in order. */
export class RecordSocket {
  readonly #fd: number;
  readonly #poller: Poller;
  readonly #events: RecordEvents;
  readonly #bounds: RecordBounds;
  readonly #header = new Uint8Array(HEADER_SIZE);
  readonly #fields = new DataView(this.#header.buffer);
  #headerBytes = 0;
  #payload: Uint8Array | undefined;
  #payloadBytes = 0;
  #fds: number[] = [];
  readonly #arrived: number[] = [];
  readonly #unsent = new Unsent();
  #ending = false;
  #closed = false;

  /** Takes the descriptor of a connected, non-blocking stream socket. */
  constructor(fd: number, poller: Poller, events: RecordEvents, bounds = MOST) {
    this.#fd = fd;
    this.#poller = poller;
    this.#events = events;
    this.#bounds = bounds;
    const result = poller.add(fd, (ready) => this.#ready(ready));
    if (result < 0) {
      closeFd(fd);
      throw new Error(`cannot poll the socket: ${errnoName(result)}`);
    }
  }

  /**
   * Sends a record, as fast as the peer takes it; the descriptors stay the caller's and open until it has gone.
   * @throws RangeError more descriptors than go with the record's bytes; nothing is sent then
   */
  send(payload: Uint8Array, fds: readonly number[] = []): void {
    if (this.#closed || this.#ending) return;
    const bytes = new Uint8Array(HEADER_SIZE + payload.length);
    if (fds.length > bytes.length * DESCRIPTORS_AT_ONCE) {
      throw new RangeError("more descriptors than bytes to send them with");
    }
    const header = new DataView(bytes.buffer);
    header.setUint32(0, MAGIC, true);
    header.setUint32(4, payload.length, true);
    header.setUint32(8, fds.length, true);
    bytes.set(payload, HEADER_SIZE);
    let at = 0;
    for (let i = 0; i < fds.length; i += DESCRIPTORS_AT_ONCE) {
      this.#unsent.add(bytes.subarray(at, at + 1), fds.slice(i, i + DESCRIPTORS_AT_ONCE));
      at++;
    }
    if (at < bytes.length) this.#unsent.add(bytes.subarray(at));
    this.#flush();
  }

  /** Everything is with the kernel. */
  get flushed(): boolean {
    return this.#unsent.bytes === 0;
  }

  /** Closes when all is sent. */
  end(): void {
    this.#ending = true;
    if (this.flushed) this.close();
  }

  close(error?: Error): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#poller.remove(this.#fd);
    closeFd(this.#fd);
    for (const fd of this.#fds.splice(0)) closeFd(fd);
    this.#events.onClose(error);
  }

  #flush(): void {
    const result = this.#unsent.flush(this.#fd);
    if (result < 0 && result !== -errno.EAGAIN) {
      this.close(new Error(`cannot send: ${errnoName(result)}`));
      return;
    }
    this.#poller.setWritable(this.#fd, result < 0);
    if (result === 0 && this.#ending) this.close();
  }

  #ready(ready: number): void {
    if ((ready & EPOLLOUT) !== 0 && !this.flushed) this.#flush();
    this.#readAll();
  }

  #readAll(): void {
    try {
      for (let budget = TURN_BUDGET; budget > 0; budget--) {
        if (this.#closed || !this.#read()) return;
      }
      // The poller reports changes only: what is left must be asked for.
      setImmediate(() => this.#readAll());
    } catch (error) {
      this.close(error instanceof Error ? error : new Error(String(error)));
    }
  }

  /** @returns whether there may be more */
  #read(): boolean {
    const payload = this.#payload;
    if (payload !== undefined && this.#payloadBytes === payload.length) {
      // All bytes are there, and the descriptors came with them.
      this.#deliver(payload);
      return true;
    }
    const target = payload ?? this.#header;
    const at = payload === undefined ? this.#headerBytes : this.#payloadBytes;
    const got = recvmsg(this.#fd, target, at, target.length - at, this.#arrived);
    if (got === -errno.EAGAIN) return false;
    if (got < 0) throw new Error(`cannot receive: ${errnoName(got)}`);
    if (got === 0) {
      const within = this.#headerBytes > 0;
      this.close(within ? new Error("the connection ended within a record") : undefined);
      return false;
    }
    this.#fds.push(...this.#arrived);
    if (this.#fds.length > this.#bounds.descriptors) throw new Error("a record brings too many descriptors");
    if (payload !== undefined) {
      this.#payloadBytes += got;
      return true;
    }
    this.#headerBytes += got;
    if (this.#headerBytes < HEADER_SIZE) return true;
    const length = this.#fields.getUint32(4, true);
    if (this.#fields.getUint32(0, true) !== MAGIC) throw new Error("the peer speaks another protocol");
    if (length > this.#bounds.payload || this.#fields.getUint32(8, true) > this.#bounds.descriptors) {
      throw new Error("a record is too long");
    }
    this.#payload = new Uint8Array(length);
    this.#payloadBytes = 0;
    return true;
  }

  #deliver(payload: Uint8Array): void {
    const fds = this.#fds;
    this.#fds = [];
    this.#payload = undefined;
    this.#headerBytes = 0;
    if (fds.length !== this.#fields.getUint32(8, true)) {
      for (const fd of fds) closeFd(fd);
      throw new Error("a record came with another number of descriptors than it says");
    }
    this.#events.onRecord(payload, fds);
  }
}
