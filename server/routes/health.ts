import type { FastifyPluginAsync } from "fastify";
import { z } from "zod";
import type { Bridge } from "../bridge.ts";

/** Whether the process lives, and whether it takes clients: for supervisors and load balancers. */
export function healthRoutes(bridge: Bridge): FastifyPluginAsync {
  return async (app) => {
    const health = {
      operationId: "isAlive",
      summary: "Whether the process lives",
      tags: ["bridge"],
      response: { 200: z.object({ status: z.literal("ok") }) },
    };
    app.get("/healthz", { schema: health, config: { public: true } }, async () => ({ status: "ok" }));

    const readiness = {
      operationId: "isReady",
      summary: "Whether the bridge takes clients",
      tags: ["bridge"],
      response: {
        200: z.object({ status: z.literal("ready") }),
        503: z.object({ status: z.literal("draining") }),
      },
    };
    app.get("/readyz", { schema: readiness, config: { public: true } }, async (_request, reply) => {
      if (bridge.ready) return { status: "ready" };
      reply.code(503);
      return { status: "draining" };
    });
  };
}
