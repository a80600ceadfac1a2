import type { IncomingHttpHeaders } from "node:http";

/** Browsers give a WebSocket no header but the list of subprotocols: an entry of it may be the credential. */
const ENTRY = "rpmsg.bearer.";

/**
 * The credential of a request: `Authorization: Bearer`, or for WebSockets an entry `rpmsg.bearer.CREDENTIAL` of the list
 * of subprotocols. Both are taken out of the headers, so that no answer and no log can have them.
 */
export function takeBearer(headers: IncomingHttpHeaders): string | undefined {
  const { authorization, "sec-websocket-protocol": protocols } = headers;
  let bearer: string | undefined;
  if (protocols?.includes(ENTRY) === true) {
    const entries = protocols.split(",").map((each) => each.trim());
    bearer = entries.find((each) => each.startsWith(ENTRY))?.slice(ENTRY.length);
    headers["sec-websocket-protocol"] = entries.filter((each) => !each.startsWith(ENTRY)).join(", ");
  }
  if (authorization !== undefined) {
    delete headers.authorization;
    bearer = /^Bearer +([^\s]+) *$/i.exec(authorization)?.[1] ?? "";
  }
  return bearer;
}
