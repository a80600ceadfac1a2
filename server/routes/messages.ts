import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import type { Encoding } from "../../schemas/index.ts";
import { MessageQuery, MessageReply, MessageSend, MessageSent } from "../../schemas/index.ts";
import type { Bridge } from "../bridge.ts";
import { frameBytes } from "../channel/back-pressure.ts";
import { decodeText, encodeText } from "../channel/message-encoder.ts";
import { OneMessage } from "../channel/one-message.ts";
import { HttpProblem } from "../problem.ts";

const Params = z.object({ guest: z.string(), id: z.string() });
const BYTES = "application/octet-stream";
const Bytes = z.instanceof(Buffer);

/** Single messages, without a WebSocket. */
export function messageRoutes(bridge: Bridge): FastifyPluginAsyncZod {
  return async (app) => {
    app.addContentTypeParser(BYTES, { parseAs: "buffer" }, async (_request: unknown, body: Buffer) => body);

    app.route({
      method: "POST",
      url: "/guests/:guest/endpoints/:id/messages",
      // Longer than other bodies: it has a message in it.
      bodyLimit: frameBytes(bridge.limits),
      schema: {
        operationId: "sendMessage",
        summary: "Sends one message",
        description:
          "202 when it is in the guest's response queue; with `wait`, 200 and the first message that comes back, as " +
          "JSON or, where only that is accepted, as bytes.",
        tags: ["messages"],
        params: Params,
        querystring: MessageQuery,
        body: {
          content: { "application/json": { schema: MessageSend }, [BYTES]: { schema: Bytes } },
        },
        response: {
          200: { content: { "application/json": { schema: MessageReply }, [BYTES]: { schema: Bytes } } },
          202: MessageSent,
        },
      },
      config: {
        problems: [
          "bad-request",
          "forbidden",
          "read-only",
          "guest-unknown",
          "endpoint-unknown",
          "endpoint-in-use",
          "local-in-use",
          "no-peer",
          "endpoint-gone",
          "body-too-large",
          "too-large",
          "media-type-unknown",
          "guest-gone",
          "no-address",
          "no-buffer",
          "no-reply",
        ],
      },
      handler: async (request, reply) => {
        const { guest, id } = request.params;
        const { view, permit } = request;
        const endpoint = view.endpoint(guest, id);
        const { bytes, timeout, wait, local } = messageOf(request.body, request.query);
        permit.demand("write", endpoint, "to send a message");
        if (wait !== undefined) permit.demand("read", endpoint, "to wait for a reply");
        const message = new OneMessage();
        // A local address that is named may be shared with channels.
        const opening = {
          listens: wait !== undefined,
          ...(local !== undefined && { local, share: "shared" as const }),
        };
        const port = bridge.channels.open<true>(endpoint, opening, permit, message);
        // Whoever asked may have left.
        reply.raw.once("close", () => message.close());
        try {
          message.send(port, bytes, timeout);
          await message.sent;
          if (wait === undefined) {
            reply.code(202);
            return { result: "sent" as const };
          }
          const answer = await message.replyWithin(wait);
          if (request.headers.accept === BYTES) {
            reply.type(BYTES);
            return answer.bytes;
          }
          return { src: answer.src, ...encodeText(answer.bytes, encodingOf(request.body)) };
        } finally {
          message.close();
        }
      },
    });
  };
}

interface Message {
  bytes: Buffer;
  timeout: number | undefined;
  wait: number | undefined;
  local: number | undefined;
}

function messageOf(body: unknown, query: z.infer<typeof MessageQuery>): Message {
  if (Buffer.isBuffer(body)) {
    return { bytes: body, timeout: query.timeout, wait: query.wait, local: query.local };
  }
  // Without a body and a type nothing was parsed and checked.
  if (body === undefined || body === null) {
    throw new HttpProblem("media-type-unknown", `want application/json or ${BYTES}`);
  }
  const { data, encoding, timeout, wait, local } = body as z.infer<typeof MessageSend>;
  const bytes = decodeText(data, encoding);
  if (bytes === undefined) throw new HttpProblem("bad-request", `body: data: not ${encoding}`);
  return {
    bytes,
    timeout: timeout ?? query.timeout,
    wait: wait ?? query.wait,
    local: local ?? query.local,
  };
}

/** A message in hexadecimal digits is answered in hexadecimal digits; else as the bytes allow. */
function encodingOf(body: unknown): Encoding | undefined {
  if (Buffer.isBuffer(body)) return undefined;
  const { encoding } = body as z.infer<typeof MessageSend>;
  return encoding === "utf8" ? undefined : encoding;
}
