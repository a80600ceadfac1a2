export const views = ["text", "hex", "json"] as const;
/** How payloads are shown. */
export type PayloadView = (typeof views)[number];

const strict = new TextDecoder("utf-8", { fatal: true });
const lenient = new TextDecoder();

/** Characters that change the direction, or have no width. */
const UNSEEN = /\u034f|[\p{Cf}\p{Zl}\p{Zp}\u0080-\u009f\u115f\u1160\u2065\u3164\uffa0\u{e0000}-\u{e0fff}]/gu;
/** Blanks that a page does not show, for where they are, and those that look like another one. */
const BLANKS = /^ | $| (?= )|(?! )\p{Zs}/gu;

/**
 * Text that stays in its line and its place, whatever a guest sends: control characters show as pictures (U+2400 and
 * on), characters that are not seen as their numbers.
 */
export function printable(text: string): string {
  let shown = "";
  for (const character of text) {
    const code = character.charCodeAt(0);
    if (code < 0x20) shown += String.fromCharCode(0x2400 + code);
    else if (code === 0x7f) shown += "\u2421";
    else shown += character;
  }
  return shown.replaceAll(UNSEEN, numberOf);
}

/** A name: there is always something to see, and to point at. */
export function printableName(name: string): string {
  return printable(name).replaceAll(BLANKS, (blank) => (blank === " " ? "\u2420" : numberOf(blank)));
}

function numberOf(character: string): string {
  const digits = (character.codePointAt(0) ?? 0).toString(16).padStart(4, "0");
  return digits.length > 4 ? `\\u{${digits}}` : `\\u${digits}`;
}

function textOf(data: Uint8Array): string {
  return lenient.decode(data);
}

export function hexOf(data: Uint8Array): string {
  return Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
}

/** Undefined where the payload is no JSON. */
export function jsonOf(data: Uint8Array): unknown {
  try {
    return JSON.parse(strict.decode(data));
  } catch {
    return undefined;
  }
}

/** A payload in one line. What is no JSON is shown as text there, and what is no text as hex. */
export function lineOf(data: Uint8Array, view: PayloadView): string {
  if (view === "hex") return hexOf(data);
  const value = view === "json" ? jsonOf(data) : undefined;
  return printable(value === undefined ? textOf(data) : JSON.stringify(value));
}

/** Lines of 16 bytes: offset, digits, characters. */
export function hexDump(data: Uint8Array): string {
  const lines: string[] = [];
  for (let at = 0; at < data.length; at += 16) {
    const part = data.subarray(at, at + 16);
    const characters = Array.from(part, (byte) =>
      byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : ".",
    );
    const offset = at.toString(16).padStart(4, "0");
    lines.push(`${offset}  ${hexOf(part).padEnd(47)}  ${characters.join("")}`);
  }
  return lines.join("\n");
}

/** A payload as a whole. */
export function wholeOf(data: Uint8Array, view: PayloadView): string {
  if (view === "hex") return hexDump(data);
  const value = view === "json" ? jsonOf(data) : undefined;
  const text = value === undefined ? textOf(data) : JSON.stringify(value, null, 2);
  return text.split("\n").map(printable).join("\n");
}

/**
 * Bytes that people write as pairs of hexadecimal digits; blanks do not matter.
 * @throws Error that says what is wrong
 */
export function parseHex(text: string): Uint8Array {
  const digits = text.replaceAll(/\s|0x/g, "");
  if (!/^([0-9a-fA-F]{2})*$/.test(digits)) {
    throw new Error("not hexadecimal: want pairs of 0-9 and a-f, such as 01 ff");
  }
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

/** Pieces of at most so many bytes, at least 1; of nothing one that is empty. */
export function cut(bytes: Uint8Array, most: number): Uint8Array[] {
  if (!(most >= 1)) throw new RangeError(`pieces of ${most} bytes`);
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < Math.max(bytes.length, 1); at += most) pieces.push(bytes.subarray(at, at + most));
  return pieces;
}
