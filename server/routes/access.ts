import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import type { Right } from "../../schemas/index.ts";
import { Access, AccessQuery } from "../../schemas/index.ts";
import type { View } from "../access/view.ts";

/** What a client may do, before it tries. */
export const accessRoutes: FastifyPluginAsyncZod = async (app) => {
  app.route({
    method: "GET",
    url: "/access",
    schema: {
      operationId: "getAccess",
      summary: "What the token of this request may do",
      description:
        "`rights` are those to one endpoint, which is there (`guest` and `id`) or which the host could declare (`guest` " +
        "and `name`). With less than that they are those to at least one that the guest, or any guest, has or could have.",
      tags: ["access"],
      querystring: AccessQuery,
      response: { 200: Access },
    },
    config: { problems: ["bad-request", "guest-unknown", "endpoint-unknown"] },
    handler: async ({ query, view }) => {
      const { name = null, expires, readOnly } = view.permit;
      return {
        token: name,
        expires: Number.isFinite(expires) ? new Date(expires).toISOString() : null,
        readOnly,
        rights: rightsOf(view, query),
      };
    },
  });
};

/** @throws HttpProblem guest-unknown, endpoint-unknown */
function rightsOf(view: View, { guest, id, name }: AccessQuery): Right[] {
  const { permit } = view;
  if (guest === undefined) return permit.rightsToSome();
  if (id !== undefined) return permit.rightsTo(view.endpoint(guest, id));
  view.guest(guest);
  if (name === undefined) return permit.rightsToSome(guest);
  return permit.rightsTo({ guest, name: Buffer.from(name).toString("latin1") });
}
