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
  Problem,
} from "../../schemas/index.ts";
import type { Bridge } from "../bridge.ts";

const GuestParams = z.object({ guest: z.string() });
const EndpointParams = z.object({ guest: z.string(), id: z.string() });

/** Guests and endpoints. */
export function resourceRoutes(bridge: Bridge): FastifyPluginAsyncZod {
  return async (app) => {
    app.route({
      method: "GET",
      url: "/guests",
      schema: { summary: "All guests", tags: ["guests"], response: { 200: GuestList } },
      handler: async () => ({ guests: bridge.guests() }),
    });

    app.route({
      method: "GET",
      url: "/guests/:guest",
      schema: {
        summary: "One guest",
        tags: ["guests"],
        params: GuestParams,
        response: { 200: Guest, 404: Problem },
      },
      handler: async ({ params }) => bridge.guest(params.guest),
    });

    app.route({
      method: "GET",
      url: "/endpoints",
      schema: {
        summary: "Endpoints of all guests",
        tags: ["endpoints"],
        querystring: EndpointFilter,
        response: { 200: EndpointList, 400: Problem },
      },
      handler: async ({ query }) => {
        const { guest, name, origin, limit, after } = query;
        return bridge.list({ guest, name, origin }, limit, after);
      },
    });

    app.route({
      method: "GET",
      url: "/guests/:guest/endpoints",
      schema: {
        summary: "Endpoints of one guest",
        tags: ["endpoints"],
        params: GuestParams,
        querystring: EndpointPage,
        response: { 200: EndpointList, 400: Problem, 404: Problem },
      },
      handler: async ({ params: { guest }, query: { limit, after } }) => {
        bridge.guest(guest);
        return bridge.list({ guest }, limit, after);
      },
    });

    app.route({
      method: "POST",
      url: "/guests/:guest/endpoints",
      schema: {
        summary: "Declares an endpoint of the host",
        description: "With `ns` down or both the guest is told of it, in every generation.",
        tags: ["endpoints"],
        params: GuestParams,
        body: EndpointCreate,
        response: { 201: Endpoint, 400: Problem, 404: Problem, 409: Problem, 503: Problem },
      },
      handler: async ({ params: { guest }, body }, reply) => {
        const endpoint = bridge.describe(bridge.declare(guest, body));
        reply.code(201).header("location", `/api/v1/guests/${guest}/endpoints/${endpoint.id}`);
        return endpoint;
      },
    });

    app.route({
      method: "GET",
      url: "/guests/:guest/endpoints/:id",
      schema: {
        summary: "One endpoint",
        tags: ["endpoints"],
        params: EndpointParams,
        response: { 200: Endpoint, 404: Problem },
      },
      handler: async ({ params: { guest, id } }) => bridge.describe(bridge.endpoint(guest, id)),
    });

    app.route({
      method: "DELETE",
      url: "/guests/:guest/endpoints/:id",
      schema: {
        summary: "Withdraws an endpoint of the host",
        description: "Its clients are closed with 4002.",
        tags: ["endpoints"],
        params: EndpointParams,
        response: { 204: z.null(), 404: Problem, 409: Problem },
      },
      handler: async ({ params: { guest, id } }, reply) => {
        bridge.withdraw(bridge.endpoint(guest, id));
        reply.code(204);
        return null;
      },
    });
  };
}
