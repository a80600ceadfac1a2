import type { ClientFlags } from "./client.ts";
import { listEndpoints } from "./client.ts";
import { bold, printable } from "./terminal.ts";

const COLUMNS = ["GUEST", "NAME", "ADDRESS", "ORIGIN", "STATE", "CLIENTS", "PATH"] as const;

/** Lists endpoints, as a table or as JSON. */
export async function ls(flags: ClientFlags & { guest?: string }): Promise<void> {
  const endpoints = await listEndpoints(flags, flags.guest);
  if (flags.json === true) {
    console.log(JSON.stringify({ endpoints }));
    return;
  }
  const rows = endpoints.map((each) => [
    each.guest,
    printable(each.name),
    String(each.address),
    each.origin,
    each.state,
    String(each.clients),
    each.path,
  ]);
  const widths = COLUMNS.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]?.length ?? 0)));
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, i) => cell.padEnd(widths[i] ?? 0))
      .join("  ")
      .trimEnd();
  console.log(bold(line(COLUMNS)));
  for (const row of rows) console.log(line(row));
}
