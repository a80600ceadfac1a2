import type { ClientFlags } from "./client.ts";
import { listEndpoints } from "./client.ts";
import { printable, printTable } from "./terminal.ts";

/** Lists endpoints, as a table or as JSON. */
export async function ls(flags: ClientFlags & { guest?: string }): Promise<void> {
  const endpoints = await listEndpoints(flags, { guest: flags.guest });
  if (flags.json === true) {
    console.log(JSON.stringify({ endpoints, next: null }));
    return;
  }
  printTable(
    ["GUEST", "NAME", "ADDRESS", "ORIGIN", "NS", "STATE", "CLIENTS", "PATH"],
    endpoints.map((each) => [
      each.guest,
      printable(each.name),
      String(each.address ?? "-"),
      each.origin,
      each.ns,
      each.state,
      String(each.clients),
      each.path,
    ]),
  );
}
