import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import type { WebSocket } from "ws";
import { WebSocketServer } from "ws";
import { ChannelQuery, subprotocols } from "../../schemas/index.ts";
import { parseEndpointPath } from "../endpoint-path.ts";
import { HttpProblem, PROBLEM_TYPE } from "../problem.ts";

/** Longest message that is taken at all; what fits the guest's buffers is checked for each. */
const MAX_PAYLOAD = 65_535;
/** Milliseconds that a client has to answer a close. */
const CLOSE_TIMEOUT = 5000;

/** What an upgrade asks for. */
export interface ChannelRequest {
  guest: string;
  reference: NonNullable<ReturnType<typeof parseEndpointPath>>["reference"];
  query: ChannelQuery;
}

/**
 * Reads an upgrade request: the raw path, the query and the subprotocols.
 * @throws HttpProblem not-found, bad-request
 */
export function parseUpgrade(request: IncomingMessage): ChannelRequest {
  const url = request.url ?? "";
  const mark = url.indexOf("?");
  const target = parseEndpointPath(mark === -1 ? url : url.slice(0, mark));
  if (target === undefined) throw new HttpProblem("not-found", "want /ws/v1/{guest}/{endpoint}");
  const parameters = new URLSearchParams(mark === -1 ? "" : url.slice(mark + 1));
  const query = ChannelQuery.safeParse(single(parameters));
  if (!query.success) {
    const [issue] = query.error.issues;
    const key = issue?.path.join(".") ?? "";
    throw new HttpProblem(
      "bad-request",
      `query: ${key === "" ? "" : `${key}: `}${issue?.message ?? "not understood"}`,
    );
  }
  const { origin } = query.data;
  return { ...target, reference: { ...target.reference, ...(origin && { origin }) }, query: query.data };
}

/** A query as an object. */
function single(parameters: URLSearchParams): Record<string, string> {
  const values: Record<string, string> = Object.create(null);
  for (const [key, value] of parameters) {
    if (key in values) throw new HttpProblem("bad-request", `query: ${key} is given twice`);
    values[key] = value;
  }
  return values;
}

/** Refuses subprotocols of which we speak none, before the upgrade. */
export function checkSubprotocols(header: string | undefined): void {
  if (header === undefined) return;
  const offered = header.split(",").map((each) => each.trim());
  if (offered.some((each) => (subprotocols as readonly string[]).includes(each))) return;
  const known = subprotocols.join(", ");
  throw new HttpProblem("bad-request", `no subprotocol of "${header}" is known: want ${known}, or none`);
}

/** The WebSocket side of raw channels. It has no listener: the HTTP server's upgrades are passed to it. */
export function rawWebSocketServer(): WebSocketServer {
  // Bounds that the types of ws do not know yet.
  const bounds = { maxFragments: 16, maxBufferedChunks: 64, closeTimeout: CLOSE_TIMEOUT };
  return new WebSocketServer({
    ...bounds,
    noServer: true,
    clientTracking: false,
    // Frames are written past ws, uncompressed.
    perMessageDeflate: false,
    maxPayload: MAX_PAYLOAD,
    handleProtocols: (offered) => subprotocols.find((each) => offered.has(each)) ?? false,
  });
}

/**
 * Completes the handshake.
 * @returns undefined where the request was none; ws has answered it
 */
export function accept(
  server: WebSocketServer,
  request: IncomingMessage,
  stream: Duplex,
  head: Buffer,
): WebSocket | undefined {
  let accepted: WebSocket | undefined;
  server.handleUpgrade(request, stream, head, (socket) => {
    accepted = socket;
  });
  return accepted;
}

/** Answers an upgrade with an error and closes the connection. */
export function refuse(stream: Duplex, problem: HttpProblem): void {
  const body = JSON.stringify(problem.toProblem());
  const { status, title } = problem.toProblem();
  const head = [
    `HTTP/1.1 ${status} ${title}`,
    "Connection: close",
    `Content-Type: ${PROBLEM_TYPE}`,
    `Content-Length: ${Buffer.byteLength(body)}`,
  ];
  stream.once("finish", () => stream.destroy());
  stream.end(`${head.join("\r\n")}\r\n\r\n${body}`);
}
