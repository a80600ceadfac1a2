import type { FastifyPluginAsync } from "fastify";
import { z } from "zod";
import type { Bridge } from "../bridge.ts";
import type { Scraper } from "../metrics/scrape.ts";

/** Counters of guests and endpoints for Prometheus. */
export function metricsRoutes(bridge: Bridge): FastifyPluginAsync {
  return async (app) => {
    let scraper: Scraper | undefined;
    app.addHook("onClose", async () => scraper?.close());
    app.get(
      "/metrics",
      {
        schema: {
          operationId: "getMetrics",
          summary: "Metrics for Prometheus",
          description:
            "The counters of guests and endpoints are named as in `/api/v1`: `messagesToGuest` of an endpoint is " +
            "`rpmsg_endpoint_messages_to_guest_total`. Those of what is gone are gone too. docs/metrics.md has all.",
          tags: ["bridge"],
          response: {
            200: { content: { "text/plain": { schema: z.string() } } },
          },
        },
        config: { problems: ["forbidden"] },
      },
      async ({ permit }, reply) => {
        permit.demandAdmin("/metrics");
        // Loaded when first asked for: a bridge that nobody watches starts without it.
        const metrics = await import("../metrics/scrape.ts");
        scraper ??= new metrics.Scraper(bridge);
        return reply.type(metrics.METRICS_TYPE).send(await scraper.scrape());
      },
    );
  };
}
