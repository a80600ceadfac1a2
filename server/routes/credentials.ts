import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { Session, Ticket } from "../../schemas/index.ts";
import type { Bridge } from "../bridge.ts";

/** Credentials for browsers, which open WebSockets without header fields, and keep no token. */
export function credentialRoutes(bridge: Bridge): FastifyPluginAsyncZod {
  return async (app) => {
    app.route({
      method: "POST",
      url: "/tickets",
      schema: {
        operationId: "issueTicket",
        summary: "A ticket, which is good once",
        description:
          "It stands for the token of this request, as a bearer or in the subprotocol `rpmsg.bearer.TICKET` of a " +
          "WebSocket, once and for 30 seconds at most. A ticket gets none.",
        tags: ["access"],
        response: { 201: Ticket },
      },
      config: { problems: ["forbidden"] },
      handler: async ({ permit }, reply) => {
        const { credential, until } = bridge.gate.issueTicket(permit);
        reply.code(201).header("cache-control", "no-store");
        return { ticket: credential, expires: new Date(until).toISOString() };
      },
    });

    app.route({
      method: "POST",
      url: "/sessions",
      schema: {
        operationId: "openSession",
        summary: "A token that ends by itself",
        description:
          "It has the rights of the token of this request, for 12 hours at most. A page changes the ticket of the " +
          "address that is printed at the start for one; other tickets get none.",
        tags: ["access"],
        response: { 201: Session },
      },
      config: { problems: ["forbidden"] },
      handler: async ({ permit }, reply) => {
        const { credential, until } = bridge.gate.issueSession(permit);
        reply.code(201).header("cache-control", "no-store");
        return { token: credential, expires: new Date(until).toISOString() };
      },
    });
  };
}
