import { setImmediate as nextTurn } from "node:timers/promises";
import type { EndpointList } from "../../schemas/index.ts";

/** Endpoints that are described, written as JSON and given to the socket in one turn of the event loop: about a millisecond. */
const SLICE = 100;

/**
 * A list, where it is long as the parts of its text: a slice a turn and no faster than they are taken, so that messages
 * of others do not wait for it. As from page to page, what goes meanwhile is not listed any more, and what stays is
 * listed once.
 * @param list gives at most so many endpoints behind this id
 */
export function inSlices(
  list: (limit: number, after?: string) => EndpointList,
  limit: number,
  after?: string,
): EndpointList | AsyncGenerator<string> {
  const first = list(Math.min(limit, SLICE), after);
  return first.next === null || limit <= SLICE ? first : texts(first, list, limit);
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
