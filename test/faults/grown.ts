import type { BridgeProcess, Probed } from "../support/bridge-process.ts";
import { until } from "../support/figures.ts";

/** Timers and handles of a bridge that are more than before. */
export function grown(before: Probed, after: Probed): string[] {
  return Object.entries(after.resources)
    .filter(([name, number]) => number > (before.resources[name] ?? 0))
    .map(([name, number]) => `${name}: ${number}, ${before.resources[name] ?? 0} before`);
}

/** The same, of those that stay: a connection that is over may be closed a little later. */
export async function left(bridge: BridgeProcess, before: Probed): Promise<string[]> {
  const look = async () => grown(before, await bridge.probe());
  const none = until("as many timers and handles as before", async () =>
    (await look()).length === 0 ? true : undefined,
  );
  return (await none.catch(() => false)) ? [] : look();
}
