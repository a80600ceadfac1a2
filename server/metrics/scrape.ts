import { setImmediate as nextTurn } from "node:timers/promises";
import { Registry } from "prom-client";
import type { Bridge } from "../bridge.ts";
import { clientFamilies } from "./client-families.ts";
import { gauge, render } from "./family.ts";
import { endpointFamilies, guestFamilies } from "./guest-families.ts";
import { processFamilies } from "./process-families.ts";

export const METRICS_TYPE = Registry.PROMETHEUS_CONTENT_TYPE;

/** The metrics of a bridge as they are now, as Prometheus reads them. What is gone has none. */
export async function scrape(bridge: Bridge): Promise<string> {
  const families = [
    ...guestFamilies(bridge),
    ...endpointFamilies(bridge.list({}).endpoints),
    ...clientFamilies(bridge),
    gauge("rpmsg_bridge_ready", "1 while the bridge takes clients.", +bridge.ready),
    ...processFamilies(),
  ];
  const texts: string[] = [];
  for (const family of families) {
    texts.push(await render(family));
    // With many endpoints all of it takes tens of milliseconds: messages come in between.
    await nextTurn();
  }
  // Of a registry each text ends with a line end.
  return texts.join("");
}
