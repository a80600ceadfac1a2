import { Histogram } from "./histogram.ts";
import type { LoadFaults } from "./load-options.ts";

/** What the connections of a run have in common. */
export class Run {
  readonly latencies = new Histogram();
  readonly faults: LoadFaults = { corrupted: 0, missing: 0, reordered: 0, protocol: 0 };
  /** One for all sockets: libuv reads only when the bytes are handled at once, so it is always free, and in the cache. */
  readonly input = Buffer.allocUnsafeSlow(128 << 10);
  messages = 0;
  reads = 0;
  unexpected = 0;
  sending = false;
  firstFault: string | null = null;
  /** Called when a connection has no more answers to expect. */
  onIdle: (() => void) | undefined;

  fault(kind: keyof LoadFaults, text: string, count = 1): void {
    this.faults[kind] += count;
    this.firstFault ??= text;
  }
}
