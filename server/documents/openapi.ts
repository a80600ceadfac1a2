import swagger from "@fastify/swagger";
import swaggerUi from "@fastify/swagger-ui";
import type { FastifyContextConfig, FastifyInstance, FastifySchema, RouteOptions } from "fastify";
import type { z } from "zod";
import { pageApp } from "../page-app.ts";
import type { Content } from "./answers.ts";
import { answersOf, contentOf } from "./answers.ts";
import { errorTable, markdownTable } from "./codes.ts";
import { SchemaSet } from "./schema-set.ts";

const tags = {
  guests: "Guests and their state.",
  endpoints: "Endpoints: what can be connected to.",
  messages: "Single messages, without a WebSocket.",
  access: "What a token may do; credentials for browsers.",
  events: "What happens to guests and endpoints.",
  bridge: "The bridge itself.",
};

/** Where the bridge has no tokens, nothing needs to be shown. */
const securitySchemes = {
  bearer: {
    type: "http",
    scheme: "bearer",
    description: "A token, or once a ticket. Where the bridge was started without tokens, none is needed.",
  },
} as const;

/**
 * An application that never listens: the page, and the OpenAPI document (its `swagger()`) of these routes of another
 * one.
 * @param prefix the page's path
 * @param report told of mistakes of the bridge itself
 */
export async function openDocuments(
  prefix: string,
  routes: readonly RouteOptions[],
  report: (error: unknown) => void,
): Promise<FastifyInstance> {
  const app = pageApp(report);
  app.setValidatorCompiler(() => () => true);
  app.setSerializerCompiler(() => JSON.stringify);
  const set = new SchemaSet("draft-2020-12");
  await app.register(swagger, {
    openapi: {
      openapi: "3.1.0",
      info: { title: "rpmsg-bridge", version: "1", description: description() },
      security: [{ bearer: [] }],
      components: { securitySchemes },
      tags: Object.entries(tags).map(([name, text]) => ({ name, description: text })),
    },
    convertConstToEnum: false,
    transform: ({ schema, url, route }) => {
      const { config = {} } = route;
      const open = config.public === true && { security: [] };
      return { schema: { ...schemaOfRoute(schema, config, set), ...open }, url };
    },
    transformObject: (document) => {
      if (!("openapiObject" in document)) return document.swaggerObject;
      return { ...document.openapiObject, components: { schemas: set.components, securitySchemes } };
    },
  });
  await app.register(swaggerUi, {
    routePrefix: prefix,
    uiConfig: { layout: "BaseLayout", deepLinking: true },
    theme: { title: "rpmsg-bridge" },
  });
  for (const { method, url, schema, config } of routes) {
    if (method === "HEAD" || url.startsWith(prefix)) continue;
    app.route({
      method,
      url,
      schema: schema ?? {},
      config: { ...config },
      handler: () => {},
    });
  }
  await app.ready();
  return app;
}

function description(): string {
  return [
    "RPMsg endpoints of guests, over HTTP. What goes over WebSockets and server-sent events is in " +
      "[asyncapi.json](/asyncapi.json).",
    "Fields may be added to what the bridge sends: ignore those that you do not know. Errors have a stable `code`:",
    markdownTable(errorTable().filter(({ status }) => status !== undefined)),
  ].join("\n\n");
}

/** The parts of a route's schema, as JSON schemas in the way that @fastify/swagger reads them. */
function schemaOfRoute(
  schema: FastifySchema & { hide?: boolean },
  config: FastifyContextConfig,
  set: SchemaSet,
): FastifySchema {
  const { params, querystring, headers, body, response, ...rest } = schema;
  if (schema.hide === true) return schema;
  const parts = { params: "Params", querystring: "Query", headers: "Headers" } as const;
  const converted: Record<string, unknown> = { ...rest };
  for (const [part, name] of Object.entries(parts) as [keyof typeof parts, string][]) {
    const zod = { params, querystring, headers }[part];
    if (zod !== undefined) converted[part] = set.of(zod as z.ZodType, "input", name);
  }
  if (body !== undefined) converted["body"] = contentOf(body as Content, "input", set);
  const own = (response ?? {}) as Record<string, Content>;
  return { ...converted, response: answersOf(own, config, set) };
}
