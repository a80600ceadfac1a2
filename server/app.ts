import type { FastifyError, FastifyInstance } from "fastify";
import fastify from "fastify";
import { checkAccess } from "./access.ts";
import type { Bridge } from "./bridge.ts";
import { HttpProblem, PROBLEM_TYPE } from "./problem.ts";
import { healthRoutes } from "./routes/health.ts";
import { resourceRoutes } from "./routes/resources.ts";

const BODY_LIMIT = 64 * 1024;
/** Milliseconds that a request's head, and a whole request, may take. */
const HEADERS_TIMEOUT = 10_000;
const REQUEST_TIMEOUT = 30_000;

/** Makes the HTTP application of a bridge. It does not listen: whoever made it does. */
export function buildApp(bridge: Bridge): FastifyInstance {
  const app = fastify({
    bodyLimit: BODY_LIMIT,
    requestTimeout: REQUEST_TIMEOUT,
    http: { headersTimeout: HEADERS_TIMEOUT },
    // Idle connections do not hold up a stop.
    forceCloseConnections: "idle",
    routerOptions: { ignoreTrailingSlash: true },
  });
  app.addHook("onRequest", async (request) => checkAccess(request.headers, bridge.config));
  app.setErrorHandler((error: FastifyError | HttpProblem, _request, reply) => {
    const problem = toProblem(error);
    if (problem.statusCode >= 500) bridge.report(error);
    return reply.code(problem.statusCode).type(PROBLEM_TYPE).send(problem.toProblem());
  });
  app.setNotFoundHandler((request) => {
    const [path = ""] = request.url.split("?");
    if (path.startsWith("/ws/"))
      throw new HttpProblem("upgrade-required", `${path} is for WebSocket clients`);
    throw new HttpProblem("not-found", `there is no ${request.method} ${path}`);
  });
  app.register(healthRoutes(bridge));
  app.register(resourceRoutes(bridge), { prefix: "/api/v1" });
  app.server.on("upgrade", (request, socket, head) => bridge.upgrade(request, socket, head));
  return app;
}

function toProblem(error: FastifyError | HttpProblem): HttpProblem {
  if (error instanceof HttpProblem) return error;
  if (error.statusCode === 413) return new HttpProblem("body-too-large", error.message);
  if (error.statusCode !== undefined && error.statusCode < 500)
    return new HttpProblem("bad-request", error.message);
  return new HttpProblem("internal", "the bridge made a mistake; its log says which");
}
