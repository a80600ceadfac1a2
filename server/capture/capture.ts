import type { Writable } from "node:stream";
import type { Origin } from "../../schemas/index.ts";
import type { Permit } from "../access/permit.ts";
import { displayName } from "../directory.ts";
import type { TapFacts, TappedMessage } from "../endpoint-port.ts";
import type { Interface } from "./interfaces.ts";
import { Interfaces } from "./interfaces.ts";
import type { InterfaceCounts } from "./pcapng.ts";
import { emptyBlock, packetBlock, sectionBlock, statisticsBlock } from "./pcapng.ts";

const SECTION_COMMENT =
  "Messages of RPMsg guests as they lay in the rings. Link type 147 (USER0) is the RPMsg header and the payload. Inbound " +
  "is from the guest, outbound to it. docs/wireshark/rpmsg.lua of rpmsg-bridge dissects them.";

/** What is not left to the end of the turn. */
const FLUSH_BYTES = 32_768;

/** Of an endpoint, what is given must be equal. */
export interface CaptureFilter {
  readonly name?: string | undefined;
  readonly origin?: Origin | undefined;
  readonly address?: number | undefined;
}

export interface CaptureOptions {
  readonly filter: CaptureFilter;
  /** Only what it may read is shown. */
  readonly permit: Permit;
  /** Bytes that may wait for a reader; what comes then is dropped, and counted in the file. */
  readonly limit: number;
  readonly onDropped: () => void;
  /** So many bytes more wait. */
  readonly onWaiting: (bytes: number) => void;
}

/**
 * Writes what goes through guests' rings as pcapng, in the turn of the event loop in which it comes, as one write. A
 * reader that is too slow costs no memory beyond the limit, and nobody else anything: what does not fit is dropped, and
 * the file says for each interface how many were, as soon as there is room.
 */
export class Capture {
  readonly #out: Writable;
  readonly #options: CaptureOptions;
  readonly #interfaces = new Interfaces();
  readonly #generations = new Map<string, number>();
  /** Blocks of this turn. */
  #blocks: Buffer[] = [];
  #bytes = 0;
  #flushScheduled = false;
  #untold = false;
  #ended: Promise<void> | undefined;
  /** Added to the clock of the process: wall-clock time at the start, which then goes on evenly. */
  readonly #epoch = BigInt(Date.now()) * 1_000_000n - process.hrtime.bigint();
  readonly #start = this.#now();

  constructor(out: Writable, application: string, options: CaptureOptions) {
    this.#out = out;
    this.#options = options;
    this.#write(sectionBlock(application, SECTION_COMMENT));
  }

  /** A message of this guest. */
  take(guest: string, message: TappedMessage, facts: TapFacts): void {
    if (this.#ended !== undefined || !this.#shows(guest, facts)) return;
    const { endpoint } = facts;
    const own =
      endpoint === undefined ? this.#interfaces.ofGuest(guest) : this.#interfaces.ofEndpoint(endpoint);
    // Where there are too many, the guest's own one says so.
    if (own === undefined) {
      this.#drop(this.#interfaces.ofGuest(guest));
      return;
    }
    this.#tell();
    const { packet, length, toGuest, originalLength } = message;
    if (this.#waiting + (own.head?.length ?? 0) + length > this.#options.limit) {
      this.#drop(own);
      return;
    }
    own.counts.received++;
    const comments = [...this.#generation(guest, facts), ...commentsOf(message)];
    const described = {
      interface: this.#numberOf(own),
      time: this.#now(),
      toGuest,
      originalLength,
      comments,
    };
    this.#write(packetBlock(described, packet, length));
  }

  /** Ends the file in good order. @returns done when the reader has it, or is gone */
  end(): Promise<void> {
    this.#ended ??= new Promise((resolve) => {
      if (this.#out.destroyed) return resolve();
      for (const own of this.#interfaces.all) this.#statistics(own);
      this.#flush();
      this.#out.once("close", resolve).end(resolve);
    });
    return this.#ended;
  }

  /** Says that it is still there: proxies cut what is silent, and whether a client is there shows when it is sent something. */
  beat(): void {
    if (this.#ended !== undefined || this.#waiting > 0) return;
    const own = [...this.#interfaces.all].find(({ id }) => id !== undefined);
    if (own === undefined) this.#write(emptyBlock());
    else this.#statistics(own);
  }

  /** Ends it at once: its reader does not take the rest. */
  cut(): void {
    this.#out.destroy();
  }

  get #waiting(): number {
    return this.#bytes + this.#out.writableLength;
  }

  /** For what was counted. */
  get #hasRoom(): boolean {
    return this.#waiting <= this.#options.limit / 2;
  }

  /** Whether the reader asked for it, and may see it. What is no endpoint's needs the right to all of the guest. */
  #shows(guest: string, { endpoint, announced }: TapFacts): boolean {
    const { permit, filter } = this.#options;
    const { name, origin, address } = filter;
    const subject = endpoint?.name ?? announced;
    if (name !== undefined && (subject === undefined || displayName(subject) !== name)) return false;
    if (origin !== undefined && endpoint?.origin !== origin) return false;
    if (address !== undefined && endpoint?.address !== address) return false;
    return subject === undefined
      ? permit.mayAll("read", guest)
      : permit.may("read", { guest, name: subject });
  }

  /** A message that is not in the file. */
  #drop(own: Interface): void {
    own.counts.received++;
    own.counts.dropped++;
    this.#untold = true;
    this.#options.onDropped();
  }

  /** Its number; what it begins with is written first. */
  #numberOf(own: Interface): number {
    const { head } = own;
    const id = this.#interfaces.number(own);
    if (head !== undefined) this.#write(head);
    return id;
  }

  /** Said once, when it is another one. */
  #generation(guest: string, { generation }: TapFacts): string[] {
    const before = this.#generations.get(guest);
    this.#generations.set(guest, generation);
    return before === undefined || before === generation ? [] : [`generation ${generation} of ${guest}`];
  }

  /** Says what was dropped, as far as there is room. */
  #tell(): void {
    if (!this.#untold || this.#ended !== undefined || !this.#hasRoom) return;
    for (const own of this.#interfaces.all) {
      if (own.counts.dropped === own.told) continue;
      if (!this.#hasRoom) return;
      this.#statistics(own);
    }
    this.#untold = false;
  }

  #statistics(own: Interface): void {
    const id = this.#numberOf(own);
    own.told = own.counts.dropped;
    this.#write(statisticsBlock(id, own.counts satisfies InterfaceCounts, this.#start, this.#now()));
  }

  #write(bytes: Buffer): void {
    this.#blocks.push(bytes);
    this.#bytes += bytes.length;
    if (this.#bytes >= FLUSH_BYTES) this.#flush();
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    setImmediate(() => {
      this.#flushScheduled = false;
      this.#flush();
    });
  }

  #flush(): void {
    if (this.#bytes === 0 || this.#out.destroyed) return;
    this.#options.onWaiting(this.#bytes);
    const bytes = Buffer.concat(this.#blocks);
    this.#blocks = [];
    this.#bytes = 0;
    // Not "drain", which comes only where more had waited than the stream itself thinks is much.
    this.#out.write(bytes, () => this.#tell());
  }

  #now(): bigint {
    return this.#epoch + process.hrtime.bigint();
  }
}

function commentsOf({ outcome, dst }: TappedMessage): string[] {
  if (outcome === "malformed") return ["malformed: the header does not fit the buffer; dropped"];
  if (outcome === "unknown-address") return [`unknown address: nobody has ${dst}; dropped`];
  return [];
}
