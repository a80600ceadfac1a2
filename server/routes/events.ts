import type { ServerResponse } from "node:http";
import type { FastifyRequest } from "fastify";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import type { EventData, EventName } from "../../schemas/index.ts";
import { atExpiry } from "../access/expiry.ts";
import type { View } from "../access/view.ts";
import type { Bridge } from "../bridge.ts";
import type { Subject } from "../event-log.ts";
import type { Holder } from "../memory-budget.ts";
import { HttpProblem } from "../problem.ts";

/** Milliseconds between comments that keep a connection alive. */
const KEEP_ALIVE = 15_000;
/** Bytes of changes that may wait for a client that does not read, before its connection ends. */
const MOST_PENDING = 4 * 1024 * 1024;

const HEAD = {
  "content-type": "text/event-stream",
  "cache-control": "no-store",
  // Proxies that collect answers are asked not to.
  "x-accel-buffering": "no",
};

/** Server-sent events: the current state, then what happens to it. */
export function eventRoutes(bridge: Bridge): FastifyPluginAsyncZod {
  return async (app) => {
    app.route({
      method: "GET",
      url: "/events",
      schema: {
        operationId: "watchEvents",
        summary: "Events of guests and endpoints",
        description:
          "Server-sent events: first every `guest` and `endpoint`, then `ready`, then changes as `guest`, `endpoint` " +
          "and `endpoint-removed`. With `Last-Event-ID`, what was missed, as far as it is known. Their data is in " +
          "[asyncapi.json](/asyncapi.json).",
        tags: ["events"],
        headers: z.object({ "last-event-id": z.string().optional() }),
        response: {
          200: { content: { "text/event-stream": { schema: z.string() } } },
        },
      },
      handler: (request, reply) => {
        if (request.method !== "HEAD") admit(bridge, request, reply.raw);
        reply.hijack();
        reply.raw.writeHead(200, HEAD);
        if (request.method === "HEAD") reply.raw.end();
        else stream(bridge, request.view, reply.raw, request.headers["last-event-id"]);
      },
    });
  };
}

/**
 * Counts a stream among those that there may be, until it ends.
 * @throws HttpProblem overloaded, too-many-connections
 */
function admit(
  { admission, limits, counts }: Bridge,
  { raw: { socket }, peer, permit }: FastifyRequest,
  response: ServerResponse,
): void {
  if (admission.eventStreams >= limits.eventStreams) {
    counts.limits.add("eventStreams");
    throw new HttpProblem(
      "overloaded",
      `there are ${limits.eventStreams} event streams, the most there may be`,
      { "retry-after": "1" },
    );
  }
  admission.stay(socket, peer, permit.name);
  admission.eventStreams++;
  response.once("close", () => admission.eventStreams--);
}

function stream(bridge: Bridge, view: View, response: ServerResponse, lastId: string | undefined): void {
  const { events } = bridge;
  const { permit } = view;
  const seen = ({ guest, name }: Subject) =>
    name === undefined ? permit.sees(guest) : permit.may("list", { guest, name });
  const holder: Holder = {
    get heldBytes() {
      return response.writableLength;
    },
    shed: () => response.destroy(),
  };
  const write = (name: EventName, data: string, id?: string) => {
    response.write(`event: ${name}\n${id === undefined ? "" : `id: ${id}\n`}data: ${data}\n\n`);
    if (response.writableLength > 0) bridge.channels.budget.grown(holder, data.length);
  };
  events.flush();
  const missed = lastId === undefined ? undefined : events.since(lastId);
  if (missed === undefined) {
    for (const guest of view.guests()) write("guest", JSON.stringify(guest));
    for (const endpoint of view.list({}).endpoints) write("endpoint", JSON.stringify(endpoint));
  } else {
    for (const { name, data, id, subject } of missed) if (seen(subject)) write(name, data, id);
  }
  const ready: EventData<"ready"> = { instance: bridge.instance };
  write("ready", JSON.stringify(ready), events.latest);
  // The state may be as large as it is: whoever could not have it would ask for it again.
  const most = response.writableLength + MOST_PENDING;
  const unsubscribe = events.subscribe(
    ({ name, data, id, subject }) => {
      if (!seen(subject)) return;
      write(name, data, id);
      if (response.writableLength > most) response.destroy();
    },
    // The client comes back and says what it had last.
    () => response.end(),
  );
  const alive = setInterval(() => response.write(": alive\n\n"), KEEP_ALIVE).unref();
  const cancel = atExpiry(permit, () => response.end());
  response.once("close", () => {
    cancel();
    clearInterval(alive);
    bridge.channels.budget.forget(holder);
    unsubscribe();
  });
}
