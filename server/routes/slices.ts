import { Readable } from "node:stream";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { FastifyReply } from "fastify";
import type { EndpointList } from "../../schemas/index.ts";

/** Endpoints that are described, written as JSON and given to the socket in one turn of the event loop: about a millisecond. */
const SLICE = 100;

/**
 * A list as an answer: a long one as its text, made a slice a turn and no faster than the client takes it, so that
 * messages of others do not wait for it. As from page to page, what goes meanwhile is not listed any more, and what
 * stays is listed once.
 * @param list gives at most so many endpoints behind this id
 */
export function inSlices(
  list: (limit: number, after?: string) => EndpointList,
  limit: number,
  after: string | undefined,
  reply: Pick<FastifyReply, "type">,
): EndpointList {
  const first = list(Math.min(limit, SLICE), after);
  if (first.next === null || limit <= SLICE) return first;
  reply.type("application/json; charset=utf-8");
  // Fastify sends a stream as it is, where the types of the route know what its text says alone.
  return Readable.from(texts(first, list, limit), { objectMode: false }) as never;
}

async function* texts(
  first: EndpointList,
  list: (limit: number, after: string) => EndpointList,
  limit: number,
): AsyncGenerator<string> {
  let { endpoints, next } = first;
  let left = limit - endpoints.length;
  yield `{"endpoints":[${endpoints.map((each) => JSON.stringify(each)).join()}`;
  while (next !== null && left > 0) {
    await nextTurn();
    ({ endpoints, next } = list(Math.min(left, SLICE), next));
    left -= endpoints.length;
    // None where all that were left have gone since.
    if (endpoints.length > 0) yield `,${endpoints.map((each) => JSON.stringify(each)).join()}`;
  }
  yield `],"next":${JSON.stringify(next)}}`;
}
