import { BYTE_ORDER, blockType, direction, LINK_TYPE, option } from "./pcapng.ts";

/** Longest block that is read: a packet of ours has at most 66 kB and a few comments. */
const MOST_BLOCK = 2 ** 24;
/** Where an interface says nothing, its clock counts microseconds. */
const DEFAULT_RESOLUTION = 6;
/** Nanoseconds since 1970 of the last time that a Date has. */
const LAST_TIME = 8_640_000_000_000_000_000_000n;

/** What is read is no pcapng, or none of ours. */
export class PcapngError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "PcapngError";
  }
}

export interface CapturedInterface {
  /** Its number in the section. */
  readonly id: number;
  /** `GUEST/ENDPOINT`, or `GUEST` for what is no endpoint's. */
  readonly name: string;
  readonly description: string;
  readonly linkType: number;
  /** Units of the clock in a second. */
  readonly unitsPerSecond: bigint;
}

export interface CapturedMessage {
  readonly interface: CapturedInterface;
  /** Nanoseconds since 1970. */
  readonly time: bigint;
  readonly toGuest: boolean;
  /** RPMsg header and payload. */
  readonly packet: Buffer;
  readonly originalLength: number;
  readonly comments: readonly string[];
}

/** What a block says, and its bytes. */
export type CapturedItem =
  | { readonly kind: "section" | "other"; readonly block: Buffer }
  | { readonly kind: "interface"; readonly block: Buffer; readonly interface: CapturedInterface }
  | { readonly kind: "message"; readonly block: Buffer; readonly message: CapturedMessage }
  | {
      readonly kind: "statistics";
      readonly block: Buffer;
      readonly interface: CapturedInterface;
      readonly received: number | undefined;
      readonly dropped: number | undefined;
    };

/** A body and its options, of one byte order. */
interface Body {
  readonly view: DataView;
  readonly bytes: Buffer;
  readonly little: boolean;
}

/**
 * Reads pcapng as it comes, in pieces of any size: files of this bridge, and those that Wireshark made of them, in either
 * byte order and with several sections.
 */
export class PcapngReader {
  #rest = Buffer.alloc(0);
  #little = true;
  #begun = false;
  #interfaces: CapturedInterface[] = [];

  /**
   * Takes the next piece.
   * @returns what is complete now
   * @throws PcapngError
   */
  read(part: Uint8Array): CapturedItem[] {
    this.#rest = this.#rest.length === 0 ? Buffer.from(part) : Buffer.concat([this.#rest, part]);
    const items: CapturedItem[] = [];
    for (;;) {
      const block = this.#next();
      if (block === undefined) return items;
      items.push(this.#decode(block));
    }
  }

  /** There is no more. @throws PcapngError a block is cut, or there is none */
  end(): void {
    if (this.#rest.length > 0) throw new PcapngError("it ends within a block: it was cut off");
    if (!this.#begun) throw new PcapngError("it is empty");
  }

  #next(): Buffer | undefined {
    const rest = this.#rest;
    if (rest.length < 12) {
      if (!this.#begun && rest.length >= 4 && rest.readUInt32LE(0) !== blockType.section) throw noPcapng();
      return undefined;
    }
    // The number is the same in both orders; the word behind the length tells which it is.
    if (rest.readUInt32LE(0) === blockType.section) {
      const isLittle = rest.readUInt32LE(8) === BYTE_ORDER;
      if (!isLittle && rest.readUInt32BE(8) !== BYTE_ORDER) throw noPcapng();
      this.#little = isLittle;
      this.#begun = true;
    } else if (!this.#begun) {
      throw noPcapng();
    }
    const length = this.#u32(rest, 4);
    if (length < 12 || length % 4 !== 0 || length > MOST_BLOCK) {
      throw new PcapngError(`a block of ${length} bytes`);
    }
    if (rest.length < length) return undefined;
    if (this.#u32(rest, length - 4) !== length)
      throw new PcapngError("a block's two lengths are not the same");
    this.#rest = rest.subarray(length);
    return rest.subarray(0, length);
  }

  #decode(block: Buffer): CapturedItem {
    const type = this.#u32(block, 0);
    const bytes = block.subarray(8, block.length - 4);
    const body = {
      view: new DataView(bytes.buffer, bytes.byteOffset, bytes.length),
      bytes,
      little: this.#little,
    };
    const needed =
      { [blockType.interface]: 8, [blockType.packet]: 20, [blockType.statistics]: 12 }[type] ?? 0;
    if (bytes.length < needed) throw new PcapngError(`a block of type ${type} with ${bytes.length} bytes`);
    switch (type) {
      case blockType.section:
        this.#interfaces = [];
        return { kind: "section", block };
      case blockType.interface:
        return { kind: "interface", block, interface: this.#interface(body) };
      case blockType.packet:
        return { kind: "message", block, message: this.#message(body) };
      case blockType.statistics: {
        const own = this.#interfaceAt(body.view.getUint32(0, body.little));
        const options = optionsOf(body, 12);
        const count = (code: number) => countOf(options.find(([each]) => each === code)?.[1], body.little);
        return {
          ...{ kind: "statistics", block, interface: own },
          received: count(option.received),
          dropped: count(option.dropped),
        };
      }
      default:
        return { kind: "other", block };
    }
  }

  #interface(body: Body): CapturedInterface {
    const options = new Map(optionsOf(body, 8));
    const resolution = options.get(option.resolution)?.[0] ?? DEFAULT_RESOLUTION;
    const isBinary = (resolution & 0x80) !== 0;
    const own = {
      id: this.#interfaces.length,
      name: options.get(option.name)?.toString() ?? "",
      description: options.get(option.description)?.toString() ?? "",
      linkType: body.view.getUint16(0, body.little),
      unitsPerSecond: (isBinary ? 2n : 10n) ** BigInt(resolution & 0x7f),
    };
    this.#interfaces.push(own);
    return own;
  }

  #message({ view, bytes, little }: Body): CapturedMessage {
    const own = this.#interfaceAt(view.getUint32(0, little));
    if (own.linkType !== LINK_TYPE) {
      throw new PcapngError(
        `interface "${own.name}" has link type ${own.linkType}, not ${LINK_TYPE}: no RPMsg of this bridge`,
      );
    }
    const units = (BigInt(view.getUint32(4, little)) << 32n) | BigInt(view.getUint32(8, little));
    const time = (units * 1_000_000_000n) / own.unitsPerSecond;
    if (time > LAST_TIME) throw new PcapngError("a packet has a time after the year 275760");
    const length = view.getUint32(12, little);
    const end = 20 + ((length + 3) & ~3);
    if (length > bytes.length || end > bytes.length) {
      throw new PcapngError(`a packet of ${length} bytes in a block of ${bytes.length}`);
    }
    const options = optionsOf({ view, bytes, little }, end);
    const flags = options.find(([code]) => code === option.flags)?.[1];
    const bits = flags?.length === 4 ? (little ? flags.readUInt32LE(0) : flags.readUInt32BE(0)) : 0;
    return {
      interface: own,
      time,
      toGuest: (bits & 3) === direction.outbound,
      packet: bytes.subarray(20, 20 + length),
      originalLength: view.getUint32(16, little),
      comments: options.flatMap(([code, value]) => (code === option.comment ? [value.toString()] : [])),
    };
  }

  #interfaceAt(id: number): CapturedInterface {
    const own = this.#interfaces[id];
    if (own === undefined) throw new PcapngError(`there is no interface ${id}`);
    return own;
  }

  #u32(bytes: Buffer, at: number): number {
    return this.#little ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at);
  }
}

function optionsOf({ view, bytes, little }: Body, from: number): [code: number, value: Buffer][] {
  const options: [number, Buffer][] = [];
  for (let at = from; at + 4 <= bytes.length; ) {
    const code = view.getUint16(at, little);
    const length = view.getUint16(at + 2, little);
    if (code === option.end) break;
    if (at + 4 + length > bytes.length) throw new PcapngError(`an option of ${length} bytes`);
    options.push([code, bytes.subarray(at + 4, at + 4 + length)]);
    at += 4 + ((length + 3) & ~3);
  }
  return options;
}

function countOf(value: Buffer | undefined, little: boolean): number | undefined {
  if (value?.length !== 8) return undefined;
  return Number(little ? value.readBigUInt64LE(0) : value.readBigUInt64BE(0));
}

function noPcapng(): PcapngError {
  return new PcapngError("it is no pcapng");
}
