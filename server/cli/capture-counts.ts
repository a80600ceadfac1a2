import { statisticsBlock } from "../capture/pcapng.ts";
import type { CapturedItem } from "../capture/pcapng-reader.ts";

interface Counts {
  /** Messages that came from the bridge. */
  came: number;
  /** Messages that the bridge has left out. */
  leftOut: number;
  /** Messages that came and were not written. */
  lost: number;
}

/** What was counted of a capture's interfaces: by the bridge, and here, where the disk may be full. */
export class CaptureCounts {
  /** By the number of the interface, in the section that is read. */
  #interfaces: Counts[] = [];
  #start = now();
  /** Of all sections. */
  messages = 0;
  dropped = 0;

  /** Counts what comes. */
  count(item: CapturedItem): void {
    if (item.kind === "section") {
      this.#interfaces = [];
      this.#start = now();
    } else if (item.kind === "interface") this.#interfaces.push({ came: 0, leftOut: 0, lost: 0 });
    else if (item.kind === "message") {
      this.messages++;
      this.#at(item.message.interface.id).came++;
    } else if (item.kind === "statistics") {
      const own = this.#at(item.interface.id);
      const dropped = item.dropped ?? 0;
      this.dropped += dropped - own.leftOut;
      own.leftOut = dropped;
    }
  }

  /** A message came, and was not written. */
  lose(id: number): void {
    this.messages--;
    this.dropped++;
    this.#at(id).lost++;
  }

  /** A block for each interface. */
  statistics(): Buffer[] {
    return this.#interfaces.map(({ came, leftOut, lost }, id) =>
      statisticsBlock(id, { received: came + leftOut, dropped: leftOut + lost }, this.#start, now()),
    );
  }

  #at(id: number): Counts {
    const own = this.#interfaces[id];
    if (own === undefined) throw new RangeError(`no interface ${id}`);
    return own;
  }
}

/** Nanoseconds since 1970. */
function now(): bigint {
  return BigInt(Date.now()) * 1_000_000n;
}
