import type { FastifyPluginAsync } from "fastify";
import type { Bridge } from "../bridge.ts";

/** Whether the process lives, and whether it takes clients: for supervisors and load balancers. */
export function healthRoutes(bridge: Bridge): FastifyPluginAsync {
  return async (app) => {
    app.get("/healthz", async () => ({ status: "ok" }));
    app.get("/readyz", async (_request, reply) => {
      if (bridge.ready) return { status: "ready" };
      reply.code(503);
      return { status: "draining" };
    });
  };
}
