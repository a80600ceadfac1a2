import type { Writable } from "node:stream";
import type { Origin } from "../../schemas/index.ts";
import type { Permit } from "../access/permit.ts";
import { displayName } from "../directory.ts";
import type { EndpointPort, TapFacts, TappedMessage } from "../endpoint-port.ts";
import { interfaceTexts } from "./interface-name.ts";
import type { InterfaceCounts } from "./pcapng.ts";
import { interfaceBlock, packetBlock, sectionBlock, statisticsBlock } from "./pcapng.ts";

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

/** An interface of the file: an endpoint, or what of a guest is no endpoint's. */
interface Interface {
  readonly id: number;
  readonly counts: { received: number; dropped: number };
  /** Of `dropped`, what the file says already. */
  told: number;
}

/**
 * Writes what goes through guests' rings as pcapng, in the turn of the event loop in which it comes, as one write. A
 * reader that is too slow costs no memory beyond the limit, and nobody else anything: what does not fit is dropped, and
 * the file says for each interface how many were, as soon as there is room.
 */
export class Capture {
  readonly #out: Writable;
  readonly #options: CaptureOptions;
  readonly #interfaces: Interface[] = [];
  readonly #byKey = new Map<string, Interface>();
  readonly #byPort = new WeakMap<EndpointPort, Interface>();
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
    const own = this.#interfaceOf(guest, facts.endpoint);
    own.counts.received++;
    const { packet, length, toGuest, originalLength } = message;
    if (this.#waiting + length > this.#options.limit) {
      own.counts.dropped++;
      this.#untold = true;
      this.#options.onDropped();
      return;
    }
    this.#tell();
    const comments = [...this.#generation(guest, facts), ...commentsOf(message)];
    const described = { interface: own.id, time: this.#now(), toGuest, originalLength, comments };
    this.#write(packetBlock(described, packet, length));
  }

  /** Ends the file in good order. @returns done when the reader has it, or is gone */
  end(): Promise<void> {
    this.#ended ??= new Promise((resolve) => {
      if (this.#out.destroyed) return resolve();
      this.#statistics(this.#interfaces);
      this.#flush();
      this.#out.once("close", resolve).end(resolve);
    });
    return this.#ended;
  }

  /** Ends it at once: its reader does not take the rest. */
  cut(): void {
    this.#out.destroy();
  }

  get #waiting(): number {
    return this.#bytes + this.#out.writableLength;
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

  #interfaceOf(guest: string, endpoint: EndpointPort | undefined): Interface {
    const known = endpoint && this.#byPort.get(endpoint);
    if (known !== undefined) return known;
    const { name, description } = interfaceTexts(
      { guest, endpoint: endpoint && displayName(endpoint.name), origin: endpoint?.origin },
      endpoint?.address,
    );
    // An endpoint that the guest announces again after a reset is the same to a reader.
    const key = JSON.stringify([guest, endpoint?.name, description]);
    const own = this.#byKey.get(key) ?? this.#addInterface(key, name, description);
    if (endpoint !== undefined) this.#byPort.set(endpoint, own);
    return own;
  }

  #addInterface(key: string, name: string, description: string): Interface {
    const own = { id: this.#interfaces.length, counts: { received: 0, dropped: 0 }, told: 0 };
    this.#interfaces.push(own);
    this.#byKey.set(key, own);
    this.#write(interfaceBlock(name, description));
    return own;
  }

  /** Said once, when it is another one. */
  #generation(guest: string, { generation }: TapFacts): string[] {
    const before = this.#generations.get(guest);
    this.#generations.set(guest, generation);
    return before === undefined || before === generation ? [] : [`generation ${generation} of ${guest}`];
  }

  /** Says what was dropped, as soon as there is room. */
  #tell(): void {
    if (!this.#untold || this.#ended !== undefined || this.#waiting > this.#options.limit / 2) return;
    this.#untold = false;
    this.#statistics(this.#interfaces.filter(({ counts, told }) => counts.dropped > told));
  }

  #statistics(interfaces: readonly Interface[]): void {
    const now = this.#now();
    for (const own of interfaces) {
      own.told = own.counts.dropped;
      this.#write(statisticsBlock(own.id, own.counts satisfies InterfaceCounts, this.#start, now));
    }
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
