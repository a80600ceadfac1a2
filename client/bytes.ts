import type { Encoding } from "../schemas/index.ts";

/** Bytes that one call of String.fromCharCode takes: engines bound the number of arguments. */
const CHUNK = 8192;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

export function utf8Bytes(text: string): Uint8Array {
  return encoder.encode(text);
}

/** Bytes that are not UTF-8 become U+FFFD. */
export function utf8Text(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}

export function toBase64(bytes: Uint8Array): string {
  let characters = "";
  for (let at = 0; at < bytes.length; at += CHUNK) {
    characters += String.fromCharCode(...bytes.subarray(at, at + CHUNK));
  }
  return btoa(characters);
}

/** @returns undefined where the text is not in that encoding */
export function fromText(text: string, encoding: Encoding): Uint8Array | undefined {
  if (encoding === "utf8") return utf8Bytes(text);
  if (encoding === "hex") {
    if (text.length % 2 !== 0 || /[^0-9a-fA-F]/.test(text)) return undefined;
    return Uint8Array.from({ length: text.length / 2 }, (_, i) =>
      Number.parseInt(text.slice(2 * i, 2 * i + 2), 16),
    );
  }
  try {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  } catch {
    return undefined;
  }
}
