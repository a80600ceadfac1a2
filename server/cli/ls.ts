import type { ClientFlags } from "./client.ts";
import { getGuest, listEndpoints } from "./client.ts";
import { printable, printTable } from "./terminal.ts";

/** Lists endpoints, as a table or as JSON. */
export async function ls(flags: ClientFlags & { guest?: string }): Promise<void> {
  // The list of a guest that there is not would be empty.
  if (flags.guest !== undefined) await getGuest(flags.guest, flags);
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
