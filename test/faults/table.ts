import { formatTable } from "../../bench/harness.ts";
import type { Result, Scale } from "./scenario.ts";
import { isPassed } from "./scenario.ts";

const HEAD = ["fault", "passes when", "measured", "verdict", "command"];
const BEGIN = "<!-- faults: npm run faults -- --full --write -->";
const END = "<!-- /faults -->";

/** The cells of a row. The command is its key. */
function row(
  { name, fault, passes, measured, skipped, seconds, ...outcome }: Result,
  scale: Scale,
): string[] {
  const verdict = skipped !== undefined ? "not run" : isPassed(outcome as Result) ? "passed" : "**failed**";
  const problems = [
    ...(skipped === undefined ? [] : [skipped]),
    ...outcome.problems,
    ...(outcome.slow ?? []),
  ];
  const command = `\`npm run faults -- ${name}${scale === "full" ? " --full" : ""}\``;
  const figures = skipped === undefined ? `${measured} (${seconds.toFixed(0)} s)` : "";
  return [fault, passes, [figures, ...problems].filter((each) => each !== "").join("; "), verdict, command];
}

/** Results as a Markdown table. */
export function faultTable(results: readonly Result[], scale: Scale): string {
  return format(results.map((each) => row(each, scale)));
}

/**
 * Puts results into the table of a page. Rows of other scenarios stay, with what was measured then.
 * @param note when and where, above the table
 * @throws Error the page has no place for it
 */
export function writeFaultTable(
  page: string,
  results: readonly Result[],
  scale: Scale,
  note: string,
): string {
  const begin = page.indexOf(BEGIN);
  const end = page.indexOf(END);
  if (begin === -1 || end < begin) throw new Error(`the page has no "${BEGIN}" before "${END}"`);
  const rows = new Map<string, string[]>();
  for (const line of page.slice(begin, end).split("\n")) {
    const cells = line.split(/(?<!\\)\|/).slice(1, -1);
    const key = keyOf(cells.at(-1) ?? "");
    if (key !== "")
      rows.set(
        key,
        cells.map((cell) => cell.trim().replaceAll("\\|", "|")),
      );
  }
  for (const each of results) rows.set(each.name, row(each, scale));
  const sorted = [...rows].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, cells]) => cells);
  return `${page.slice(0, begin)}${BEGIN}\n\n${note}\n\n${format(sorted)}\n${page.slice(end)}`;
}

function keyOf(command: string): string {
  return /npm run faults -- ([\w-]+)/.exec(command)?.[1] ?? "";
}

function format(rows: readonly string[][]): string {
  const escaped = (cell: string) => cell.replaceAll("|", "\\|").replaceAll("\n", " ");
  return formatTable(
    rows.map((cells) => Object.fromEntries(HEAD.map((name, i) => [name, escaped(cells[i] ?? "")]))),
  );
}
