import { spawnSync } from "node:child_process";

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

/** "1 guest", "2 guests". */
export function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}

/** Lines with the cells of each column below each other, two spaces between them. */
export function alignedLines(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows)
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length);
  return rows.map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i] ?? 0))
      .join("  ")
      .trimEnd(),
  );
}

/** A table with a head. */
export function printTable(head: readonly string[], rows: readonly (readonly string[])[]): void {
  const [first = "", ...lines] = alignedLines([head, ...rows]);
  console.log([bold(first), ...lines].join("\n"));
}

/**
 * Lets every key through to whoever reads standard input, and every byte of standard output to the terminal.
 * @returns what puts the terminal back; Node does so too at any end of the process but SIGKILL
 */
export function rawTerminal(): () => void {
  const { stdin } = process;
  stdin.setRawMode(true);
  // Node leaves line ends to the terminal. Those of the guest are complete: a line feed alone moves down only.
  spawnSync("stty", ["-opost"], { stdio: ["inherit", "ignore", "ignore"] });
  return () => stdin.setRawMode(false);
}
