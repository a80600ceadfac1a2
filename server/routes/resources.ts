import type { FastifyReply } from "fastify";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import {
  Endpoint,
  EndpointCreate,
  EndpointFilter,
  EndpointList,
  EndpointPage,
  Guest,
  GuestList,
} from "../../schemas/index.ts";
import { counted } from "../answer-limits.ts";
import type { Bridge } from "../bridge.ts";
import { inSlices } from "./slices.ts";

const GuestParams = z.object({ guest: z.string() });
const EndpointParams = z.object({ guest: z.string(), id: z.string() });

/** Guests and endpoints. */
export function resourceRoutes(bridge: Bridge): FastifyPluginAsyncZod {
  const answerList = (list: ReturnType<typeof inSlices>, reply: FastifyReply): EndpointList => {
    if ("endpoints" in list) return list;
    reply.type("application/json; charset=utf-8");
    // Fastify sends a stream as it is; the types of a route know only what its text says.
    return counted(list, reply, bridge) as never;
  };
  return async (app) => {
    app.route({
      method: "GET",
      url: "/guests",
      schema: {
        operationId: "listGuests",
        summary: "All guests",
        tags: ["guests"],
        response: { 200: GuestList },
      },
      handler: async ({ view }) => ({ guests: view.guests() }),
    });

    app.route({
      method: "GET",
      url: "/guests/:guest",
      schema: {
        operationId: "getGuest",
        summary: "One guest",
        tags: ["guests"],
        params: GuestParams,
        response: { 200: Guest },
      },
      config: { problems: ["guest-unknown"] },
      handler: async ({ params, view }) => view.guest(params.guest),
    });

    app.route({
      method: "GET",
      url: "/endpoints",
      schema: {
        operationId: "listEndpoints",
        summary: "Endpoints of all guests",
        description: "What the query gives must be equal.",
        tags: ["endpoints"],
        querystring: EndpointFilter,
        response: { 200: EndpointList },
      },
      config: { problems: ["bad-request"] },
      handler: async ({ query, view }, reply) => {
        const { guest, name, origin, limit, after } = query;
        const where = { guest, name, origin };
        return answerList(
          inSlices((most, behind) => view.list(where, most, behind), limit, after),
          reply,
        );
      },
    });

    app.route({
      method: "GET",
      url: "/guests/:guest/endpoints",
      schema: {
        operationId: "listEndpointsOfGuest",
        summary: "Endpoints of one guest",
        tags: ["endpoints"],
        params: GuestParams,
        querystring: EndpointPage,
        response: { 200: EndpointList },
      },
      config: { problems: ["bad-request", "guest-unknown"] },
      handler: async ({ params: { guest }, query: { limit, after }, view }, reply) => {
        view.guest(guest);
        return answerList(
          inSlices((most, behind) => view.list({ guest }, most, behind), limit, after),
          reply,
        );
      },
    });

    app.route({
      method: "POST",
      url: "/guests/:guest/endpoints",
      schema: {
        operationId: "declareEndpoint",
        summary: "Declares an endpoint of the host",
        description:
          "With `ns` down or both the guest is told of it, in every generation. `Location` is where it is from then on.",
        tags: ["endpoints"],
        params: GuestParams,
        body: EndpointCreate,
        response: {
          201: Endpoint,
        },
      },
      config: {
        problems: [
          "bad-request",
          "forbidden",
          "read-only",
          "guest-unknown",
          "address-in-use",
          "name-service-off",
          "too-many-endpoints",
          "body-too-large",
          "media-type-unknown",
          "no-address",
        ],
      },
      handler: async ({ params: { guest }, body, view }, reply) => {
        const endpoint = bridge.describe(view.declare(guest, body));
        reply.code(201).header("location", `/api/v1/guests/${guest}/endpoints/${endpoint.id}`);
        return endpoint;
      },
    });

    app.route({
      method: "GET",
      url: "/guests/:guest/endpoints/:id",
      schema: {
        operationId: "getEndpoint",
        summary: "One endpoint",
        tags: ["endpoints"],
        params: EndpointParams,
        response: { 200: Endpoint },
      },
      config: { problems: ["guest-unknown", "endpoint-unknown"] },
      handler: async ({ params: { guest, id }, view }) => bridge.describe(view.endpoint(guest, id)),
    });

    app.route({
      method: "DELETE",
      url: "/guests/:guest/endpoints/:id",
      schema: {
        operationId: "withdrawEndpoint",
        summary: "Withdraws an endpoint of the host",
        description: "Its clients are closed with 4002.",
        tags: ["endpoints"],
        params: EndpointParams,
        response: {
          204: z.null(),
        },
      },
      config: {
        problems: ["forbidden", "read-only", "guest-unknown", "endpoint-unknown", "endpoint-of-guest"],
      },
      handler: async ({ params: { guest, id }, view }, reply) => {
        view.withdraw(view.endpoint(guest, id));
        reply.code(204);
        return null;
      },
    });
  };
}
