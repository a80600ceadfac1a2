import type { ServerResponse } from "node:http";
import type { FastifyRequest } from "fastify";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import { CaptureQuery } from "../../schemas/index.ts";
import { atExpiry } from "../access/expiry.ts";
import { limitTime } from "../answer-time.ts";
import type { Bridge } from "../bridge.ts";
import type { Capture } from "../capture/capture.ts";
import type { Holder } from "../memory-budget.ts";
import { HttpProblem } from "../problem.ts";

/** Milliseconds between two signs of life: proxies mostly wait for 30 s or 60. */
const BEAT = 25_000;
/** Milliseconds until the system asks whether the client is still there; it must have time to, between two of those. */
const PROBE = 10_000;

const HEAD = {
  "content-type": "application/x-pcapng",
  "content-disposition": 'attachment; filename="rpmsg.pcapng"',
  "cache-control": "no-store",
  "x-accel-buffering": "no",
};

/** What goes through the rings, as Wireshark reads it. */
export function captureRoutes(bridge: Bridge): FastifyPluginAsyncZod {
  return async (app) => {
    app.route({
      method: "GET",
      url: "/capture",
      schema: {
        operationId: "capture",
        summary: "Captures messages as pcapng",
        description:
          "Every message that goes through the guests' rings from now on, as pcapng, until the client leaves: with name " +
          "service and what the bridge drops, as many as the counters say. What the token may not `read` is left out. " +
          "What a client is too slow for is dropped, and counted in the file. docs/capture.md has the format.",
        tags: ["messages"],
        querystring: CaptureQuery,
        response: {
          200: { content: { "application/x-pcapng": { schema: z.custom<Uint8Array>() } } },
        },
      },
      config: { problems: ["bad-request", "forbidden", "guest-unknown"] },
      handler: async (request, reply) => {
        const { view, permit, query } = request;
        const guests = query.guest === undefined ? view.guests() : [view.guest(query.guest)];
        const names = guests.map(({ name }) => name);
        permit.demandSome("read", names, "a capture");
        // Loaded when first asked for.
        const code = await import("../capture/capture.ts");
        if (reply.raw.destroyed) return reply.hijack();
        if (request.method !== "HEAD") admit(bridge, request);
        reply.hijack();
        reply.raw.writeHead(200, HEAD);
        if (request.method === "HEAD") reply.raw.end();
        else stream(code.Capture, bridge, names, request, query, reply.raw);
        return reply;
      },
    });
  };
}

/**
 * Counts a capture among those that there may be, until it ends.
 * @throws HttpProblem overloaded, too-many-connections
 */
function admit(
  { admission, limits, counts, captures }: Bridge,
  { raw: { socket }, peer, permit }: FastifyRequest,
): void {
  if (captures.size >= limits.captures) {
    counts.limits.add("captures");
    throw new HttpProblem("overloaded", `there are ${limits.captures} captures, the most there may be`, {
      "retry-after": "1",
    });
  }
  admission.stay(socket, peer, permit.name);
}

function stream(
  Writer: typeof Capture,
  bridge: Bridge,
  guests: readonly string[],
  { permit }: FastifyRequest,
  filter: CaptureQuery,
  response: ServerResponse,
): void {
  const { limits, counts, channels, captures } = bridge;
  const holder: Holder = {
    get heldBytes() {
      return response.writableLength;
    },
    shed: () => response.destroy(),
  };
  const capture = new Writer(response, "rpmsg-bridge", {
    filter,
    permit,
    limit: limits.captureBytes,
    onDropped: () => counts.limits.add("captureBytes"),
    onWaiting: (bytes) => {
      if (response.writableLength > 0) channels.budget.grown(holder, bytes);
    },
  });
  const taps = guests.map((guest) =>
    bridge.tap(guest, (message, facts) => capture.take(guest, message, facts)),
  );
  captures.add(capture);
  response.socket?.setKeepAlive(true, PROBE);
  const beat = setInterval(() => capture.beat(), BEAT).unref();
  const cancel = atExpiry(permit, () => {
    void capture.end();
    // It has its place until then.
    limitTime(response, bridge);
  });
  response.once("close", () => {
    cancel();
    clearInterval(beat);
    captures.delete(capture);
    channels.budget.forget(holder);
    for (const end of taps) end();
  });
}
