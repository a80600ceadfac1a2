import { GuestList } from "../../schemas/index.ts";
import type { ClientFlags } from "./client.ts";
import { get, listEndpoints } from "./client.ts";
import { exitCode } from "./command-error.ts";
import { referenceOf } from "./reference.ts";

/** Milliseconds that somebody who has pressed Tab waits for the bridge. */
const PATIENCE = 1000;

/** Prints what the running bridge has, one a line, for the scripts of `completion`. Without a bridge, nothing. */
export async function complete(what: "endpoints" | "guests", flags: ClientFlags): Promise<void> {
  setTimeout(() => process.exit(exitCode.done), PATIENCE).unref();
  try {
    const found =
      what === "endpoints"
        ? (await listEndpoints(flags)).map(referenceOf)
        : (await get("/api/v1/guests", GuestList, flags)).guests.map((each) => each.name);
    for (const each of found) console.log(each);
  } catch {
    // A line of complaint in the middle of a command line helps nobody.
  }
}
