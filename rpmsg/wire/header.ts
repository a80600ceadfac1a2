/**
 * The RPMsg header, 16 bytes, packed, little endian (virtio_rpmsg_bus.c: struct rpmsg_hdr):
 * `u32 src; u32 dst; u32 reserved; u16 len; u16 flags`.
 *
 * `reserved` is not zero in practice: rpmsg-lite and open-amp keep buffer indexes there. It is sent as 0 by us and
 * never validated.
 */
export const HEADER_SIZE = 16;

/** Byte offsets in the header. */
const headerOffset = { src: 0, dst: 4, reserved: 8, len: 12, flags: 14 } as const;

/** "No address": never a legal source or destination of a message (rpmsg.h: RPMSG_ADDR_ANY). */
export const ADDRESS_ANY = 0xffff_ffff;

/** The name service listens here (virtio_rpmsg_bus.c: RPMSG_NS_ADDR). */
export const NAME_SERVICE_ADDRESS = 53;

/** First dynamic address; smaller ones are reserved for well-known services (RPMSG_RESERVED_ADDRESSES). */
export const FIRST_DYNAMIC_ADDRESS = 1024;

/** Payload of the customary 512-byte buffer: MAX_RPMSG_BUF_SIZE less the header. */
export const DEFAULT_MTU = 496;

/** Longest payload that the header's 16-bit length can say. */
export const MAX_PAYLOAD = 0xffff;

export interface Header {
  /** Address of the sender, u32. */
  src: number;
  /** Address of the receiver, u32. */
  dst: number;
  reserved: number;
  /** Payload bytes that follow the header, u16. */
  len: number;
  flags: number;
}

/** Reads a header. `bytes` must hold 16 bytes from `offset`. */
export function readHeader(bytes: Uint8Array, offset = 0): Header {
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, HEADER_SIZE);
  return {
    src: view.getUint32(headerOffset.src, true),
    dst: view.getUint32(headerOffset.dst, true),
    reserved: view.getUint32(headerOffset.reserved, true),
    len: view.getUint16(headerOffset.len, true),
    flags: view.getUint16(headerOffset.flags, true),
  };
}

/** Writes a header with `reserved` and `flags` 0 byte by byte, so that `offset` may be unaligned. */
export function writeHeader(bytes: Uint8Array, offset: number, src: number, dst: number, len: number): void {
  writeU32(bytes, offset + headerOffset.src, src);
  writeU32(bytes, offset + headerOffset.dst, dst);
  writeU32(bytes, offset + headerOffset.reserved, 0);
  writeU32(bytes, offset + headerOffset.len, len);
}

function writeU32(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value;
  bytes[offset + 1] = value >>> 8;
  bytes[offset + 2] = value >>> 16;
  bytes[offset + 3] = value >>> 24;
}
