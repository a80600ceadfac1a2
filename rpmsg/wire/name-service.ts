/**
 * The name-service message, 40 bytes, packed, little endian (rpmsg_ns.h: struct rpmsg_ns_msg):
 * `char name[32]; u32 addr; u32 flags`. It is an ordinary RPMsg message to address 53.
 */
const NAME_SIZE = 32;
export const NAME_SERVICE_SIZE = 40;

const offsetOf = { name: 0, addr: NAME_SIZE, flags: NAME_SIZE + 4 } as const;

/** Linux tests `flags & DESTROY`; every other value, NuttX's CREATE_ACK (2) included, acts as a create. */
const FLAG_DESTROY = 1;

export interface NameServiceMessage {
  /** The bytes before the first NUL, at most 32, as a string of one character a byte (latin1). */
  name: string;
  /** The announced address, u32. */
  address: number;
  /** False for a withdrawal (RPMSG_NS_DESTROY). */
  created: boolean;
}

/**
 * Decodes a name-service message of `length` bytes at `offset`.
 * @returns undefined when the length is not 40, as rpmsg_ns_cb rejects it.
 */
export function decodeNameService(
  bytes: Uint8Array,
  offset: number,
  length: number,
): NameServiceMessage | undefined {
  if (length !== NAME_SERVICE_SIZE) return undefined;
  // One copy: the guest may change the bytes while they are looked at.
  const copy = Buffer.from(bytes.subarray(offset, offset + NAME_SERVICE_SIZE));
  const end = copy.subarray(0, NAME_SIZE).indexOf(0);
  return {
    name: copy.toString("latin1", offsetOf.name, end === -1 ? NAME_SIZE : end),
    address: copy.readUInt32LE(offsetOf.addr),
    created: (copy.readUInt32LE(offsetOf.flags) & FLAG_DESTROY) === 0,
  };
}

/** Encodes a name-service message. `name` is one character a byte, at most 32 bytes (see `isServiceName`). */
export function encodeNameService(message: NameServiceMessage): Uint8Array {
  const bytes = Buffer.alloc(NAME_SERVICE_SIZE);
  bytes.write(message.name, offsetOf.name, NAME_SIZE, "latin1");
  bytes.writeUInt32LE(message.address, offsetOf.addr);
  bytes.writeUInt32LE(message.created ? 0 : FLAG_DESTROY, offsetOf.flags);
  return bytes;
}

/**
 * Whether `name` may be announced by us: 1 to 31 bytes, none of them NUL. The 32nd byte stays NUL, because Linux
 * terminates the name there (rpmsg_ns_cb: "don't trust the remote processor for null terminating the name").
 */
export function isServiceName(name: string): boolean {
  if (name.length === 0 || name.length >= NAME_SIZE) return false;
  for (let i = 0; i < name.length; i++) {
    const byte = name.charCodeAt(i);
    if (byte === 0 || byte > 0xff) return false;
  }
  return true;
}
