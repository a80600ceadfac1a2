/** Colours and other marks only where somebody sees them (https://no-color.org). */
function styled(open: number, close: number, text: string): string {
  if (!process.stdout.isTTY || process.env["NO_COLOR"] !== undefined) return text;
  return `\u001b[${open}m${text}\u001b[${close}m`;
}

export function bold(text: string): string {
  return styled(1, 22, text);
}

/** A text of a guest without what would steer a terminal or turn the reading direction. */
export function printable(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "\u{fffd}");
}
