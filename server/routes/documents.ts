import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from "fastify";
import { z } from "zod";
import { limitTime } from "../answer-time.ts";
import type { Bridge } from "../bridge.ts";
import { once } from "../once.ts";

const PAGE = "/docs";
const JSON_TYPE = "application/json; charset=utf-8";

/**
 * Descriptions of the interface, made from its schemas, and a page to read them. All of it is loaded when it is first
 * asked for. To be called before the other routes are there: it describes those.
 */
export function addDocuments(app: FastifyInstance, bridge: Bridge): void {
  const routes: RouteOptions[] = [];
  app.addHook("onRoute", (route) => {
    routes.push(route);
  });

  const opened = once(async () => {
    const { openDocuments } = await import("../documents/openapi.ts");
    return openDocuments(PAGE, routes, (error) => bridge.report(error));
  });
  const openapi = once(async () => JSON.stringify((await opened()).swagger()));
  const asyncapi = once(async () => {
    const { asyncApiDocument } = await import("../documents/asyncapi.ts");
    return JSON.stringify(asyncApiDocument());
  });

  const page = async (request: FastifyRequest, reply: FastifyReply) => {
    const documents = await opened();
    reply.hijack();
    limitTime(reply.raw, bridge);
    documents.routing(request.raw, reply.raw);
  };

  // They tell what every bridge can do, nothing of this one.
  const config = { public: true };
  const response = { 200: z.looseObject({}) };
  app.register(async (scope) => {
    scope.get(
      "/openapi.json",
      {
        schema: { operationId: "getOpenApi", summary: "This document", tags: ["bridge"], response },
        config,
      },
      async (_request, reply) => reply.type(JSON_TYPE).send(await openapi()),
    );
    scope.get(
      "/asyncapi.json",
      {
        schema: {
          operationId: "getAsyncApi",
          summary: "What goes over WebSockets and server-sent events",
          tags: ["bridge"],
          response,
        },
        config,
      },
      async (_request, reply) => reply.type(JSON_TYPE).send(await asyncapi()),
    );
    scope.get(PAGE, { schema: { hide: true }, config }, page);
    scope.get(`${PAGE}/*`, { schema: { hide: true }, config }, page);
  });
}
