const WIDTH = 16;

/** Lines as those of `hexdump -C`: the offset, 16 bytes, and what of them is ASCII. */
export function hexDump(bytes: Uint8Array): string[] {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += WIDTH) {
    const row = [...bytes.subarray(at, at + WIDTH)];
    const digits = row.map((byte) => byte.toString(16).padStart(2, "0"));
    const halves = [digits.slice(0, WIDTH / 2), digits.slice(WIDTH / 2)].map((half) => half.join(" "));
    const text = row.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${at.toString(16).padStart(4, "0")}  ${halves.join("  ").padEnd(3 * WIDTH)}  |${text}|`);
  }
  return lines;
}
