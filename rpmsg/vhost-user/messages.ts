/**
 * The vhost-user protocol's messages (QEMU, docs/interop/vhost-user.rst): a header of 12 bytes,
 * `u32 request; u32 flags; u32 size`, then `size` bytes of payload; descriptors as ancillary data of the first byte.
 * All little endian.
 */
export const MESSAGE_HEADER_SIZE = 12;

/** Longest payload that is taken. The longest that is used, a memory table of 8 regions, has 264 bytes. */
export const MAX_MESSAGE_PAYLOAD = 4096;

/** Requests of the frontend. */
export const request = {
  GET_FEATURES: 1,
  SET_FEATURES: 2,
  SET_OWNER: 3,
  RESET_OWNER: 4,
  SET_MEM_TABLE: 5,
  SET_LOG_BASE: 6,
  SET_LOG_FD: 7,
  SET_VRING_NUM: 8,
  SET_VRING_ADDR: 9,
  SET_VRING_BASE: 10,
  GET_VRING_BASE: 11,
  SET_VRING_KICK: 12,
  SET_VRING_CALL: 13,
  SET_VRING_ERR: 14,
  GET_PROTOCOL_FEATURES: 15,
  SET_PROTOCOL_FEATURES: 16,
  GET_QUEUE_NUM: 17,
  SET_VRING_ENABLE: 18,
  SET_BACKEND_REQ_FD: 21,
  GET_CONFIG: 24,
  SET_CONFIG: 25,
  GET_INFLIGHT_FD: 31,
  SET_INFLIGHT_FD: 32,
  RESET_DEVICE: 34,
  GET_MAX_MEM_SLOTS: 36,
  ADD_MEM_REG: 37,
  REM_MEM_REG: 38,
  SET_STATUS: 39,
  GET_STATUS: 40,
} as const;

/** Bits of a message's flags. The low two are the version, 1. */
export const VERSION_MASK = 3;
export const VERSION = 1;
export const REPLY = 4;
export const NEED_REPLY = 8;

/** Protocol feature bits. */
export const protocolFeature = {
  MQ: 0,
  LOG_SHMFD: 1,
  REPLY_ACK: 3,
  BACKEND_REQ: 5,
  CONFIG: 9,
  INFLIGHT_SHMFD: 12,
  RESET_DEVICE: 13,
  CONFIGURE_MEM_SLOTS: 15,
  STATUS: 16,
} as const;

/** Device feature bits that belong to the transport. */
export const feature = {
  /** Writes to guest memory are logged, for a migration. Not of virtio: no driver negotiates it. */
  LOG_ALL: 26,
  INDIRECT: 28,
  EVENT_IDX: 29,
  PROTOCOL_FEATURES: 30,
  VERSION_1: 32,
} as const;

/** Names of the device feature bits that are set, as virtio_config.h has them; others by number. */
export function featureNames(features: bigint): string[] {
  const known: Readonly<Record<number, string>> = {
    0: "RPMSG_F_NS",
    1: "RPMSG_F_BUFSZ",
    [feature.LOG_ALL]: "LOG_ALL",
    [feature.INDIRECT]: "INDIRECT_DESC",
    [feature.EVENT_IDX]: "EVENT_IDX",
    [feature.PROTOCOL_FEATURES]: "PROTOCOL_FEATURES",
    [feature.VERSION_1]: "VERSION_1",
  };
  const names: string[] = [];
  for (let bit = 0; bit < 64; bit++) if (hasBit(features, bit)) names.push(known[bit] ?? `bit ${bit}`);
  return names;
}

/** A set of feature bits as the u64 that the messages carry. */
export function bits(...positions: number[]): bigint {
  return positions.reduce((all, position) => all | (1n << BigInt(position)), 0n);
}

export function hasBit(features: bigint, position: number): boolean {
  return (features & (1n << BigInt(position))) !== 0n;
}

/** In the u64 of SET_VRING_KICK, CALL and ERR: no descriptor comes with the message. */
export const VRING_NO_FD = 1 << 8;

/** In SET_VRING_ADDR's flags: log writes to the used ring. */
export const VRING_LOG = 1;

/** One region of SET_MEM_TABLE, ADD_MEM_REG and REM_MEM_REG, 32 bytes. */
export interface RegionMessage {
  guestAddress: number;
  size: number;
  userAddress: number;
  /** Bytes into the file. */
  fileOffset: number;
}

export const REGION_SIZE = 32;

/** Values beyond 2^53 lose their low bits and are refused later: no memory is there. */
export function readRegion(payload: DataView, offset: number): RegionMessage {
  const number = (at: number) => Number(payload.getBigUint64(offset + at, true));
  return { guestAddress: number(0), size: number(8), userAddress: number(16), fileOffset: number(24) };
}

export function writeRegion(payload: DataView, offset: number, region: RegionMessage): void {
  payload.setBigUint64(offset, BigInt(region.guestAddress), true);
  payload.setBigUint64(offset + 8, BigInt(region.size), true);
  payload.setBigUint64(offset + 16, BigInt(region.userAddress), true);
  payload.setBigUint64(offset + 24, BigInt(region.fileOffset), true);
}

/** GET_INFLIGHT_FD and SET_INFLIGHT_FD. 20 bytes, which senders pad to 24: they send a C structure. */
export interface InflightMessage {
  /** Bytes of the buffer, and where it begins in its file. */
  size: number;
  offset: number;
  queues: number;
  /** Entries of each queue. */
  entries: number;
}

export const INFLIGHT_SIZE = 20;
export const INFLIGHT_PADDED_SIZE = 24;

export function readInflight(payload: DataView): InflightMessage {
  return {
    size: Number(payload.getBigUint64(0, true)),
    offset: Number(payload.getBigUint64(8, true)),
    queues: payload.getUint16(16, true),
    entries: payload.getUint16(18, true),
  };
}

export function inflightPayload({ size, offset, queues, entries }: InflightMessage): Uint8Array {
  const payload = new DataView(new ArrayBuffer(INFLIGHT_PADDED_SIZE));
  payload.setBigUint64(0, BigInt(size), true);
  payload.setBigUint64(8, BigInt(offset), true);
  payload.setUint16(16, queues, true);
  payload.setUint16(18, entries, true);
  return new Uint8Array(payload.buffer);
}

export function u64Payload(value: bigint): Uint8Array {
  const payload = new DataView(new ArrayBuffer(8));
  payload.setBigUint64(0, value, true);
  return new Uint8Array(payload.buffer);
}

/** `u32 index; u32 num`: the vring state of NUM, BASE and ENABLE. */
export function statePayload(index: number, num: number): Uint8Array {
  const payload = new DataView(new ArrayBuffer(8));
  payload.setUint32(0, index, true);
  payload.setUint32(4, num, true);
  return new Uint8Array(payload.buffer);
}

export function requestName(id: number): string {
  const found = Object.entries(request).find(([, value]) => value === id);
  return found === undefined ? `request ${id}` : found[0];
}
