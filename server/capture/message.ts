import { interfaceFacts } from "./interface-name.ts";
import type { CapturedItem, CapturedMessage } from "./pcapng-reader.ts";
import { PcapngError } from "./pcapng-reader.ts";

/** Bytes of an RPMsg header: u32 src, u32 dst, u32 reserved, u16 len, u16 flags, little endian. */
const HEADER_SIZE = 16;
const NAME_SERVICE_ADDRESS = 53;
const NAME_SERVICE_SIZE = 40;

/** A captured message, read. */
export interface ReadMessage {
  readonly guest: string;
  readonly endpoint: string | undefined;
  readonly origin: "guest" | "host" | undefined;
  readonly toGuest: boolean;
  /** Nanoseconds since 1970. */
  readonly time: bigint;
  readonly src: number;
  readonly dst: number;
  readonly payload: Buffer;
  /** It announces a service, or withdraws it. */
  readonly nameService: { name: string; address: number; created: boolean } | undefined;
  readonly comments: readonly string[];
}

/** @returns undefined for what is no message: its header does not fit it */
export function readMessage(captured: CapturedMessage): ReadMessage | undefined {
  const { packet, toGuest, time, comments } = captured;
  if (packet.length < HEADER_SIZE) return undefined;
  const length = packet.readUInt16LE(12);
  if (HEADER_SIZE + length > packet.length) return undefined;
  const payload = packet.subarray(HEADER_SIZE, HEADER_SIZE + length);
  const dst = packet.readUInt32LE(4);
  return {
    ...interfaceFacts(captured.interface),
    ...{ toGuest, time, src: packet.readUInt32LE(0), dst, payload, comments },
    nameService: dst === NAME_SERVICE_ADDRESS ? readNameService(payload) : undefined,
  };
}

/**
 * The messages of one guest, in order; what is malformed is left out.
 * @param from its name, where the capture has several
 * @throws PcapngError there are none, or it is not clear whose
 */
export function messagesOfGuest(items: Iterable<CapturedItem>, from?: string): ReadMessage[] {
  const messages: ReadMessage[] = [];
  for (const item of items) {
    const message = item.kind === "message" ? readMessage(item.message) : undefined;
    if (message !== undefined && message.guest === (from ?? message.guest)) messages.push(message);
  }
  const guests = [...new Set(messages.map(({ guest }) => guest))];
  if (guests.length > 1) throw new PcapngError(`it has several guests: ${guests.join(", ")}`);
  if (guests.length === 0) throw new PcapngError(`it has no messages${from ? ` of guest "${from}"` : ""}`);
  return messages;
}

/** `char name[32]; u32 addr; u32 flags` (rpmsg_ns.h). */
function readNameService(bytes: Buffer): ReadMessage["nameService"] {
  if (bytes.length !== NAME_SERVICE_SIZE) return undefined;
  const [name = ""] = bytes.toString("utf8", 0, 32).split("\0");
  return { name, address: bytes.readUInt32LE(32), created: (bytes.readUInt32LE(36) & 1) === 0 };
}
