/**
 * Blocks of pcapng (draft-ietf-opsawg-pcapng), little endian: what Wireshark reads. A block is its type, its length, the
 * body in whole words, and its length again.
 */
export const blockType = {
  section: 0x0a0d0d0a,
  interface: 1,
  names: 4,
  statistics: 5,
  packet: 6,
} as const;

/** Says which way round the section's numbers are. */
export const BYTE_ORDER = 0x1a2b3c4d;

/**
 * LINKTYPE_USER0, for whoever agrees on it: here a packet is the RPMsg header of 16 bytes and its payload, as they lay in
 * the ring (docs/capture.md).
 */
export const LINK_TYPE = 147;

/** Bytes of the longest packet: the header, and what its 16-bit length can say. */
const SNAP_LENGTH = 16 + 65_535;

/** Codes of options. */
export const option = {
  end: 0,
  comment: 1,
  application: 4,
  name: 2,
  description: 3,
  resolution: 9,
  flags: 2,
  startTime: 2,
  endTime: 3,
  received: 4,
  dropped: 5,
} as const;

/** Bits 0 and 1 of a packet's flags: inbound is from the guest, outbound to it. */
export const direction = { inbound: 1, outbound: 2 } as const;

/** Timestamps count these since 1970: the resolution is nanoseconds. */
const RESOLUTION = 9;

type Option = readonly [code: number, value: Uint8Array];

/** The head of a file, or of what another process goes on with. */
export function sectionBlock(application: string, comment: string): Buffer {
  const body = Buffer.alloc(16);
  body.writeUInt32LE(BYTE_ORDER, 0);
  body.writeUInt16LE(1, 4);
  body.writeUInt16LE(0, 6);
  // Its length is not known.
  body.writeBigInt64LE(-1n, 8);
  return block(blockType.section, body, [
    [option.comment, Buffer.from(comment)],
    [option.application, Buffer.from(application)],
  ]);
}

/** Interfaces are numbered as they come, from 0 on. */
export function interfaceBlock(name: string, description: string): Buffer {
  const body = Buffer.alloc(8);
  body.writeUInt16LE(LINK_TYPE, 0);
  body.writeUInt32LE(SNAP_LENGTH, 4);
  return block(blockType.interface, body, [
    [option.name, Buffer.from(name)],
    [option.description, Buffer.from(description)],
    [option.resolution, Uint8Array.of(RESOLUTION)],
  ]);
}

/** A name resolution block without a name: nothing but a sign of life, before there is an interface. */
export function emptyBlock(): Buffer {
  return block(blockType.names, Buffer.alloc(4), []);
}

export interface PacketFacts {
  readonly interface: number;
  /** Nanoseconds since 1970. */
  readonly time: bigint;
  readonly toGuest: boolean;
  /** Bytes that there were; more than `length` where a packet is cut. */
  readonly originalLength: number;
  readonly comments: readonly string[];
}

/** A message: `length` bytes from the start of `packet`. */
export function packetBlock(facts: PacketFacts, packet: Uint8Array, length: number): Buffer {
  const flags = Buffer.alloc(4);
  flags.writeUInt32LE(facts.toGuest ? direction.outbound : direction.inbound);
  const options: Option[] = [
    ...facts.comments.map((text): Option => [option.comment, Buffer.from(text)]),
    [option.flags, flags],
  ];
  const body = Buffer.alloc(20 + padded(length));
  body.writeUInt32LE(facts.interface, 0);
  writeTime(body, 4, facts.time);
  body.writeUInt32LE(length, 12);
  body.writeUInt32LE(Math.min(facts.originalLength, 0xffff_ffff), 16);
  body.set(packet.subarray(0, length), 20);
  return block(blockType.packet, body, options);
}

export interface InterfaceCounts {
  /** Messages that were there, those that were dropped included. */
  readonly received: number;
  /** Of these, those that are not in the file: its reader, or the disk, was too slow. */
  readonly dropped: number;
}

/** What was counted since `start`, in nanoseconds since 1970. */
export function statisticsBlock(id: number, counts: InterfaceCounts, start: bigint, end: bigint): Buffer {
  const body = Buffer.alloc(12);
  body.writeUInt32LE(id, 0);
  writeTime(body, 4, end);
  return block(blockType.statistics, body, [
    [option.startTime, timeOption(start)],
    [option.endTime, timeOption(end)],
    [option.received, countOption(counts.received)],
    [option.dropped, countOption(counts.dropped)],
  ]);
}

function block(type: number, body: Buffer, options: readonly Option[]): Buffer {
  const length = 12 + body.length + options.reduce((sum, [, value]) => sum + 4 + padded(value.length), 0) + 4;
  const bytes = Buffer.alloc(length);
  bytes.writeUInt32LE(type, 0);
  bytes.writeUInt32LE(length, 4);
  bytes.set(body, 8);
  let at = 8 + body.length;
  for (const [code, value] of options) {
    bytes.writeUInt16LE(code, at);
    bytes.writeUInt16LE(value.length, at + 2);
    bytes.set(value, at + 4);
    at += 4 + padded(value.length);
  }
  // The end of the options is zeros.
  bytes.writeUInt32LE(length, length - 4);
  return bytes;
}

/** High half first, each of them little endian. */
function writeTime(bytes: Buffer, at: number, time: bigint): void {
  bytes.writeUInt32LE(Number(time >> 32n), at);
  bytes.writeUInt32LE(Number(time & 0xffff_ffffn), at + 4);
}

function timeOption(time: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  writeTime(bytes, 0, time);
  return bytes;
}

function countOption(count: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(count));
  return bytes;
}

/** Whole words. */
function padded(length: number): number {
  return (length + 3) & ~3;
}
