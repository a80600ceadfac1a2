import type { Limits, SlowPolicy } from "../../schemas/index.ts";
import { closeCode } from "../../schemas/index.ts";
import type { ClientCounts } from "../client-counts.ts";
import type { ChannelEvents, ChannelPort, DropCause, EndReason, UndeliveredCode } from "../endpoint-port.ts";
import type { MemoryBudget } from "../memory-budget.ts";
import type { Marks } from "./back-pressure.ts";
import { marksOf } from "./back-pressure.ts";
import type { Connection, ConnectionHandler } from "./connection.ts";
import { endOf } from "./connection.ts";
import type { LatencyProbe } from "./latency-probe.ts";
import type { OutflowSink } from "./outflow.ts";
import { Outflow } from "./outflow.ts";

/**
 * `rpmsg.v1.raw`: a binary message is an RPMsg payload, both ways, boundaries kept. A text message is sent as its
 * UTF-8 bytes. There are no other frames: what goes wrong ends the connection.
 */
export class RawChannel implements ChannelEvents<undefined>, ConnectionHandler, OutflowSink {
  readonly protocol = "raw";
  readonly #connection: Connection;
  readonly #marks: Marks;
  readonly #outflow: Outflow;
  readonly #onEnd: () => void;
  #port: ChannelPort<undefined> | undefined;

  /** @param onEnd called when the channel is of no more use, before its connection is closed */
  constructor(connection: Connection, policy: SlowPolicy, limits: Limits, onEnd = (): void => {}) {
    this.#connection = connection;
    this.#marks = marksOf(limits);
    this.#outflow = new Outflow(this, policy, limits);
    this.#onEnd = onEnd;
  }

  /** The endpoint is open. */
  bind(port: ChannelPort<undefined>): void {
    this.#port = port;
  }

  // ---- guest to client ----

  onMessage(src: number, bytes: Uint8Array, offset: number, length: number, serial: number): void {
    if (this.#connection.isOpen) this.#outflow.offer(src, bytes, offset, length, serial);
    else this.dropped(1, "closed");
  }

  get probe(): LatencyProbe {
    return this.#connection.probe;
  }

  get budget(): MemoryBudget {
    return this.#connection.budget;
  }

  get counts(): ClientCounts {
    return this.#connection.counts;
  }

  get pendingBytes(): number {
    return this.#connection.pendingBytes;
  }

  write(_seq: number, _src: number, bytes: Uint8Array, offset: number, length: number): void {
    this.#connection.writer.binary(bytes, offset, length);
  }

  /** There is no frame for it. */
  writeDropped(): void {}

  notifyDrained(): void {
    this.#connection.notifyDrained();
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
    this.#close(closeCode.slowReader, reason);
  }

  // ---- client to guest ----

  onText(data: Buffer): void {
    this.onBinary(data, 0, data.length);
  }

  onBinary(bytes: Buffer, offset: number, length: number): void {
    const port = this.#port;
    if (port === undefined) return;
    if (length > port.mtu) {
      this.#tooBig(length, port.mtu);
      return;
    }
    const code = port.send(undefined, bytes, offset, length);
    if (code === "sent") return;
    if (code === "queued") {
      if (port.pendingBytes >= this.#marks.pause) this.#connection.pauseReading();
    } else if (code === "too-large") {
      this.#tooBig(length, port.mtu);
    } else if (code === "forbidden" || code === "read-only") {
      this.#close(closeCode.policy, code);
    } else if (code === "queue-full") {
      this.#close(closeCode.slowReader, "too much waits for the guest");
    }
  }

  onWritable(): void {
    this.#connection.resumeReading();
  }

  onSent(): void {}

  onUndelivered(code: UndeliveredCode): void {
    // The end is told by itself.
    if (code === "guest-gone" || code === "endpoint-gone") return;
    // What waits behind it would come after a gap.
    this.#port?.abort();
    this.#close(code === "too-large" ? closeCode.tooBig : closeCode.notDelivered, code);
  }

  onUnconfirmed(): void {}

  #tooBig(length: number, mtu: number): void {
    this.#close(closeCode.tooBig, `message of ${length} bytes, the most is ${mtu}`);
  }

  // ---- the end ----

  onChanged(): void {}

  onTick(): void {}

  onTooMuch(reason: string): void {
    this.slow(reason);
  }

  onDrained(): void {
    this.#outflow.drained();
  }

  onEnd(reason: EndReason): void {
    this.#close(...endOf[reason]);
  }

  onClosed(): void {
    this.#outflow.end();
    this.#port?.close();
    this.#onEnd();
  }

  #close(code: number, reason: string): void {
    this.onClosed();
    this.#connection.close(code, reason);
  }
}
