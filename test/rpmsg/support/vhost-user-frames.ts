import { u64Payload } from "../../../rpmsg/vhost-user/messages.ts";

/** A message as it goes over the socket. */
export function frame(
  id: number,
  payload: Uint8Array = new Uint8Array(),
  flags = 1,
  size = payload.length,
): Buffer {
  const header = Buffer.alloc(12);
  header.writeUInt32LE(id, 0);
  header.writeUInt32LE(flags, 4);
  header.writeUInt32LE(size, 8);
  return Buffer.concat([header, payload]);
}

/** The payload of KICK, CALL and ERR. */
export function fdPayload(queue: number, noFd = false): Uint8Array {
  return u64Payload(BigInt(queue | (noFd ? 0x100 : 0)));
}

export interface TableRegion {
  guest: number;
  size: number;
  user: number;
  offset: number;
}

/** The payload of SET_MEM_TABLE; `length` pads it. */
export function table(regions: readonly TableRegion[], length = 8 + 32 * regions.length): Buffer {
  const payload = Buffer.alloc(Math.max(length, 8 + 32 * regions.length));
  payload.writeUInt32LE(regions.length, 0);
  for (const [i, region] of regions.entries()) writeRegion(payload, 8 + 32 * i, region);
  return payload;
}

/** The payload of ADD_MEM_REG and REM_MEM_REG. */
export function slot(region: TableRegion): Buffer {
  const payload = Buffer.alloc(40);
  writeRegion(payload, 8, region);
  return payload;
}

function writeRegion(payload: Buffer, at: number, region: TableRegion): void {
  payload.writeBigUInt64LE(BigInt(region.guest), at);
  payload.writeBigUInt64LE(BigInt(region.size), at + 8);
  payload.writeBigUInt64LE(BigInt(region.user), at + 16);
  payload.writeBigUInt64LE(BigInt(region.offset), at + 24);
}
