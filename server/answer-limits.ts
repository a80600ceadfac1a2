import { Readable } from "node:stream";
import type { FastifyInstance, FastifyReply } from "fastify";
import { limitTime } from "./answer-time.ts";
import type { Bridge } from "./bridge.ts";
import type { Holder } from "./memory-budget.ts";

/** Characters of an answer that is long enough to count. */
const LONG_ANSWER = 16_384;

/** Ends the connections of clients that do not take their answers. */
export function limitAnswers(app: FastifyInstance, bridge: Bridge): void {
  const { budget } = bridge.channels;
  app.addHook("onSend", async (_request, { raw }, payload) => {
    // The client has left while the answer was made: its end was told before anybody could listen.
    if (raw.destroyed) return;
    if (typeof payload === "string" && payload.length >= LONG_ANSWER) {
      const { length } = payload;
      const holder: Holder = {
        // It waits from now on, before it is written, and as a whole until it is.
        get heldBytes() {
          return raw.destroyed || raw.writableFinished ? 0 : length;
        },
        shed: () => raw.destroy(),
      };
      budget.grown(holder, length);
      raw.once("close", () => budget.forget(holder));
    }
    limitTime(raw, bridge);
  });
}

/**
 * The body of an answer that is made while it is taken. Only what was made and has not left yet waits for its client.
 * @param texts asked for the next one when the client has room for it
 */
export function counted(texts: AsyncIterable<string>, { raw }: FastifyReply, { channels }: Bridge): Readable {
  const { budget } = channels;
  async function* told(): AsyncGenerator<string> {
    for await (const text of texts) {
      budget.grown(holder, text.length);
      yield text;
    }
  }
  const body = Readable.from(told(), { objectMode: false });
  const holder: Holder = {
    get heldBytes() {
      return raw.destroyed ? 0 : body.readableLength + raw.writableLength;
    },
    shed: () => raw.destroy(),
  };
  raw.once("close", () => budget.forget(holder));
  return body;
}
