import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import type { WebSocket } from "ws";
import { WebSocketServer } from "ws";
import type { z } from "zod";
import type { Limits } from "../../schemas/index.ts";
import { HttpProblem } from "../problem.ts";

/** RFC 9110, 5.6.2 */
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

/**
 * The query of a URL, checked.
 * @throws HttpProblem bad-request
 */
export function parseQuery<T>(schema: z.ZodType<T>, text: string): T {
  const values: Record<string, string> = Object.create(null);
  for (const [key, value] of new URLSearchParams(text)) {
    if (key in values) throw new HttpProblem("bad-request", `query: ${key} is given twice`);
    values[key] = value;
  }
  const query = schema.safeParse(values);
  if (query.success) return query.data;
  const [issue] = query.error.issues;
  const key = issue?.path.join(".") ?? "";
  throw new HttpProblem(
    "bad-request",
    `query: ${key === "" ? "" : `${key}: `}${issue?.message ?? "not understood"}`,
  );
}

/**
 * The subprotocol of a connection: the first one offered that is known, or the first known one where none is offered.
 * @throws HttpProblem bad-request with the list of known ones
 */
export function chooseSubprotocol<Name extends string>(
  header: string | undefined,
  known: readonly [Name, ...Name[]],
): Name {
  if (header === undefined) return known[0];
  if (header === "") {
    // As it is where there was nothing but a credential.
    const want = `want ${known.join(" or ")}, beside rpmsg.bearer.TOKEN where that is`;
    throw new HttpProblem("bad-request", `no subprotocol to speak is offered: ${want}`);
  }
  const offered = header.split(",").map((each) => each.trim());
  // Later ws refuses such a list too: when something was opened for the client.
  if (new Set(offered).size < offered.length || !offered.every((each) => TOKEN.test(each))) {
    throw new HttpProblem("bad-request", `"${header}" is no list of subprotocols: want ${known.join(", ")}`);
  }
  for (const each of offered) {
    const chosen = known.find((name) => name === each);
    if (chosen !== undefined) return chosen;
  }
  throw new HttpProblem(
    "bad-request",
    `no subprotocol of "${header}" is spoken here: want ${known.join(", ")}, or none`,
  );
}

/**
 * Makes sure that a request can become a WebSocket (RFC 6455, 4.2.1), before anything is opened for it.
 * @throws HttpProblem bad-request, upgrade-required
 */
export function checkHandshake({ method, headers, httpVersion }: IncomingMessage): void {
  if (httpVersion !== "1.1") {
    throw new HttpProblem("bad-request", `a WebSocket begins with HTTP/1.1, not HTTP/${httpVersion}`);
  }
  if (method !== "GET") throw new HttpProblem("bad-request", `a WebSocket begins with GET, not ${method}`);
  // RFC 6455, 4.2.2: the answer says what is spoken.
  if (headers["sec-websocket-version"] !== "13") {
    const text = "want Sec-WebSocket-Version: 13";
    throw new HttpProblem("upgrade-required", text, { upgrade: "websocket", "sec-websocket-version": "13" });
  }
  if (!/^[A-Za-z0-9+/]{22}==$/.test(headers["sec-websocket-key"] ?? "")) {
    throw new HttpProblem("bad-request", "Sec-WebSocket-Key is missing, or not 16 bytes in base64");
  }
}

/** The WebSocket side of one subprotocol. It has no listener: the HTTP server's upgrades are passed to it. */
export function webSocketServer(protocol: string, maxPayload: number, limits: Limits): WebSocketServer {
  const { fragments, bufferedChunks, closeTimeout } = limits;
  // Bounds that the types of ws do not know yet.
  const bounds = { maxFragments: fragments, maxBufferedChunks: bufferedChunks, closeTimeout };
  return new WebSocketServer({
    ...bounds,
    noServer: true,
    clientTracking: false,
    // The connection answers pings, and knows how many answers wait.
    autoPong: false,
    // Frames are written past ws, uncompressed.
    perMessageDeflate: false,
    maxPayload,
    handleProtocols: () => protocol,
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
