import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from "fastify";
import { limitTime } from "../answer-time.ts";
import type { Bridge } from "../bridge.ts";
import { once } from "../once.ts";

/** What a browser shows at the bridge's address: the dashboard. It is loaded when it is first asked for. */
export function frontPageRoutes(bridge: Bridge): FastifyPluginAsync {
  const opened = once(async () => {
    const { openDashboard } = await import("../dashboard.ts");
    return openDashboard((error) => bridge.report(error));
  });
  const page = async (request: FastifyRequest, reply: FastifyReply) => {
    const dashboard = await opened();
    reply.hijack();
    limitTime(reply.raw, bridge);
    dashboard.routing(request.raw, reply.raw);
  };
  return async (app) => {
    // It tells nothing: what it shows it asks for, as any other client.
    const options = { schema: { hide: true }, config: { public: true } };
    app.get("/", options, page);
    app.get("/assets/*", options, page);
  };
}
