import { GuestList } from "../../schemas/index.ts";
import type { ClientFlags } from "./client.ts";
import { get } from "./client.ts";
import { printTable } from "./terminal.ts";

/** Lists guests, as a table or as JSON. */
export async function guests(flags: ClientFlags): Promise<void> {
  const list = await get("/api/v1/guests", GuestList, flags);
  if (flags.json === true) {
    console.log(JSON.stringify(list));
    return;
  }
  printTable(
    ["NAME", "KIND", "STATE", "GENERATION", "MTU", "TO GUEST", "FROM GUEST"],
    list.guests.map((each) => [
      each.name,
      each.kind,
      each.state,
      String(each.generation),
      String(each.mtu),
      String(each.counters.messagesToGuest),
      String(each.counters.messagesFromGuest),
    ]),
  );
}
