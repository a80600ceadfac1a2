// RFC 6455, 5.2: FIN and the opcode.
export const FIN_TEXT = 0x81;
export const FIN_BINARY = 0x82;
export const FIN_CLOSE = 0x88;
export const FIN_PING = 0x89;
export const FIN_PONG = 0x8a;
export const MASKED = 0x80;
/** A constant key is as much work for the server as a random one. A zero key is not: ws does not unmask then. */
const KEY = Buffer.from([0x12, 0x34, 0x56, 0x78]);
export const KEY_WORD = KEY.readInt32LE();

/** Header of a server's binary frame of a length: what an answer begins with. */
export function binaryHeader(length: number): Buffer {
  if (length < 126) return Buffer.from([FIN_BINARY, length]);
  if (length < 65_536) return Buffer.from([FIN_BINARY, 126, length >>> 8, length]);
  const header = Buffer.alloc(10);
  header[0] = FIN_BINARY;
  header[1] = 127;
  header.writeUIntBE(length, 4, 6);
  return header;
}

/** A client's frame: a server's with the mask bit, the key and the masked payload. */
export function clientFrame(header: Buffer, payload: Buffer): Buffer {
  const masked = payload.map((byte, index) => byte ^ KEY.readUInt8(index & 3));
  const frame = Buffer.concat([header, KEY, masked]);
  frame.writeUInt8(MASKED | header.readUInt8(1), 1);
  return frame;
}

export function controlFrame(firstByte: number, payload: Buffer): Buffer {
  return clientFrame(Buffer.from([firstByte, payload.length]), payload);
}

/** Least bytes that a frame takes, as far as its header is here: with `available` at least that, the frame is whole. */
export function frameBytes(buffer: Buffer, at: number, available: number): number {
  if (available < 2) return 2;
  const length = buffer.readUInt8(at + 1) & 0x7f;
  if (length < 126) return 2 + length;
  if (length === 126) return available < 4 ? 4 : 4 + buffer.readUInt16BE(at + 2);
  return available < 10 ? 10 : 10 + Number(buffer.readBigUInt64BE(at + 2));
}
