import { setImmediate as nextTurn } from "node:timers/promises";
import { Registry } from "prom-client";
import type { Bridge } from "../bridge.ts";
import { clientFamilies } from "./client-families.ts";
import { gauge, render } from "./family.ts";
import { endpointFamilies, guestFamilies } from "./guest-families.ts";
import { limitFamilies } from "./limit-families.ts";
import { LoopLag } from "./loop-lag.ts";
import { processFamilies } from "./process-families.ts";

export const METRICS_TYPE = Registry.PROMETHEUS_CONTENT_TYPE;

/** The metrics of a bridge, as Prometheus reads them. */
export class Scraper {
  readonly #bridge: Bridge;
  readonly #lag = new LoopLag();

  constructor(bridge: Bridge) {
    this.#bridge = bridge;
  }

  /** All of them as they are now. What is gone has none. */
  async scrape(): Promise<string> {
    const bridge = this.#bridge;
    this.#lag.watch();
    const families = [
      ...guestFamilies(bridge),
      ...endpointFamilies(bridge.directory.list(() => true).endpoints, bridge.limits.metricEndpoints),
      ...clientFamilies(bridge),
      ...limitFamilies(bridge),
      gauge("rpmsg_bridge_ready", "1 while the bridge takes clients.", +bridge.ready),
      ...processFamilies(this.#lag.histogram),
    ];
    const texts: string[] = [];
    for (const family of families) {
      // Each ends with a line end.
      texts.push(await render(family));
      // With many endpoints all of it takes tens of milliseconds: messages come in between.
      await nextTurn();
    }
    return texts.join("");
  }

  close(): void {
    this.#lag.stop();
  }
}
