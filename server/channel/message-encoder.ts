import { isUtf8 } from "node:buffer";
import type { Encoding } from "../../schemas/index.ts";

/** Bytes as text in an encoding; without one utf8 where that loses nothing, else base64. */
export function encodeText(bytes: Buffer, encoding?: Encoding): { data: string; encoding: Encoding } {
  const chosen = encoding ?? (isUtf8(bytes) ? "utf8" : "base64");
  return { data: bytes.toString(chosen), encoding: chosen };
}

/**
 * The bytes of a text.
 * @returns undefined where it is not in that encoding
 */
export function decodeText(data: string, encoding: Encoding): Buffer | undefined {
  if (
    encoding === "base64" &&
    !/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(data)
  ) {
    return undefined;
  }
  if (encoding === "hex" && !/^(?:[0-9a-fA-F]{2})*$/.test(data)) return undefined;
  // Half of a surrogate pair has no UTF-8.
  if (encoding === "utf8" && /\p{Surrogate}/u.test(data)) return undefined;
  return Buffer.from(data, encoding);
}

interface Encoded {
  bytes: Uint8Array;
  serial: number;
  tail: Buffer;
}

/** Encodes the messages of JSON channels: one that goes to several clients once. */
export class MessageEncoder {
  readonly #latest = new Map<Encoding | undefined, Encoded>();

  /**
   * The end of a message frame, all but its type and `seq`.
   * @param serial as `onMessage` has it; 0 for a message of its own
   */
  tail(
    src: number,
    bytes: Uint8Array,
    offset: number,
    length: number,
    serial: number,
    encoding?: Encoding,
  ): Buffer {
    const latest = this.#latest.get(encoding);
    // The memory tells guests apart, which number their messages alike.
    if (serial !== 0 && latest?.serial === serial && latest.bytes === bytes) return latest.tail;
    const payload = Buffer.from(bytes.buffer, bytes.byteOffset + offset, length);
    const tail = Buffer.from(`,"src":${src},${JSON.stringify(encodeText(payload, encoding)).slice(1)}`);
    if (serial !== 0) this.#latest.set(encoding, { bytes, serial, tail });
    return tail;
  }
}
