import type { FastifyPluginAsync } from "fastify";
import type { EndpointList, Guest, GuestList } from "../../schemas/index.ts";
import { EndpointFilter } from "../../schemas/index.ts";
import type { Bridge } from "../bridge.ts";
import { HttpProblem } from "../problem.ts";

/** Guests and endpoints. */
export function resourceRoutes(bridge: Bridge): FastifyPluginAsync {
  return async (app) => {
    app.get("/guests", async (): Promise<GuestList> => ({ guests: bridge.guests() }));

    app.get<{ Params: { guest: string } }>(
      "/guests/:guest",
      async ({ params }): Promise<Guest> => bridge.guest(params.guest),
    );

    app.get<{ Params: { guest: string } }>(
      "/guests/:guest/endpoints",
      async ({ params }): Promise<EndpointList> => {
        bridge.guest(params.guest);
        return { endpoints: bridge.endpoints(params.guest) };
      },
    );

    app.get("/endpoints", async ({ query }): Promise<EndpointList> => {
      const filter = EndpointFilter.safeParse(query);
      if (!filter.success) {
        const [issue] = filter.error.issues;
        throw new HttpProblem("bad-request", `query: ${issue?.path.join(".")}: ${issue?.message}`);
      }
      const { guest, name, origin } = filter.data;
      const endpoints = bridge
        .endpoints(guest)
        .filter(
          (each) =>
            (name === undefined || each.name === name) && (origin === undefined || each.origin === origin),
        );
      return { endpoints };
    });
  };
}
