import type { IncomingMessage } from "node:http";
import { ServerResponse } from "node:http";
import type { ServerOptions as SecureOptions } from "node:https";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type {
  FastifyError,
  FastifyInstance,
  FastifyPluginAsync,
  FastifyReply,
  FastifySchemaCompiler,
} from "fastify";
import fastify from "fastify";
import type { z } from "zod";
import { crossOrigin } from "./access/cors.ts";
import { InTurn } from "./access/in-turn.ts";
import { checkAccess } from "./access/origin.ts";
import type { Peer } from "./access/peer.ts";
import type { Permit } from "./access/permit.ts";
import { takeTarget } from "./access/target.ts";
import { View } from "./access/view.ts";
import { limitAnswers } from "./answer-limits.ts";
import type { Bridge } from "./bridge.ts";
import type { ProblemCode } from "./problem.ts";
import { HttpProblem, PROBLEM_TYPE } from "./problem.ts";
import { accessRoutes } from "./routes/access.ts";
import { captureRoutes } from "./routes/capture.ts";
import { credentialRoutes } from "./routes/credentials.ts";
import { addDocuments } from "./routes/documents.ts";
import { eventRoutes } from "./routes/events.ts";
import { frontPageRoutes } from "./routes/front-page.ts";
import { healthRoutes } from "./routes/health.ts";
import { messageRoutes } from "./routes/messages.ts";
import { metricsRoutes } from "./routes/metrics.ts";
import { resourceRoutes } from "./routes/resources.ts";
import { endUnreadable } from "./unreadable.ts";

/** Paths below this are for WebSocket clients. */
const CHANNELS = "/ws/";
/** Milliseconds between looks for requests that take too long. */
const CHECK_PERIOD = 1000;

declare module "fastify" {
  interface FastifyRequest {
    /** What the client may do. */
    permit: Permit;
    /** The bridge, as the client sees it. */
    view: View;
    /** Who has sent it. */
    peer: Peer;
  }

  interface FastifyContextConfig {
    /** Nobody needs a token for it: it tells nothing of guests. */
    public?: boolean;
    /** What else it may answer than what all do (`doorProblems`) and, without `public`, `unauthorized`. */
    problems?: readonly ProblemCode[];
  }
}

/**
 * Makes the HTTP application of a bridge. It does not listen: whoever made it does.
 * @param tls what it needs to speak TLS; without it it does not
 */
export function buildApp(bridge: Bridge, tls?: SecureOptions): FastifyInstance {
  const { counts } = bridge;
  const refuse = (problem: HttpProblem, reply: FastifyReply): FastifyReply => {
    counts.rejected.http.add(problem.code);
    return answer(problem, reply);
  };
  const turns = new InTurn(() => counts.rejected.head.add("pipelined"));
  const enter = doorOf(bridge, turns);
  const { bodyBytes, headersTimeout, requestTimeout } = bridge.limits;
  const http = {
    headersTimeout: Math.min(headersTimeout, requestTimeout),
    connectionsCheckingInterval: Math.min(CHECK_PERIOD, headersTimeout, requestTimeout),
    // Node's own answer has no body: `checkAccess` looks.
    requireHostHeader: false,
  };
  const undecodable = async (error: FastifyError, request: IncomingMessage, reply: FastifyReply) => {
    const { url = "" } = request;
    try {
      if ((await enter(request, reply.raw)) === undefined) return void reply.hijack();
      throw url.startsWith(CHANNELS) ? upgradeRequired(url) : error;
    } catch (problem) {
      return void refuse(toProblem(problem as FastifyError | HttpProblem), reply);
    }
  };
  const app = fastify({
    bodyLimit: bodyBytes,
    requestTimeout,
    http,
    clientErrorHandler: (error, socket) => endUnreadable(error, socket, turns, bridge),
    // To what is here the two kinds of servers are the same.
    ...((tls && { https: { ...http, handshakeTimeout: headersTimeout, ...tls } }) as object),
    // No connection holds up a stop. "idle" would leave those on which no request has come yet.
    forceCloseConnections: true,
    routerOptions: { ignoreTrailingSlash: true },
    rewriteUrl: takeTarget,
    // Given here, and not set later: Fastify's own ones would be loaded first, a tenth of the time to start.
    // Their types know only those.
    ...({ schemaController: { compilersFactory } } as object),
    // Paths that the router cannot decode never come to the hooks and handlers below.
    frameworkErrors: (error, request, reply) => void undecodable(error, request.raw, reply),
  });
  // Nothing here takes it: it is refused by its name.
  app.removeContentTypeParser("text/plain");
  guard(app, bridge, enter);
  limitAnswers(app, bridge);
  app.setErrorHandler((error: FastifyError | HttpProblem, _request, reply) => {
    const problem = toProblem(error);
    if (problem.code === "internal") bridge.report(error);
    if (problem.code === "body-too-large") counts.limits.add("bodyBytes");
    return refuse(problem, reply);
  });
  app.setNotFoundHandler((request) => {
    if (request.method === "CONNECT") throw new HttpProblem("not-found", "there are no tunnels");
    if (request.url.startsWith(CHANNELS)) throw upgradeRequired(request.url);
    throw new HttpProblem("not-found", `there is no ${request.method} ${pathOf(request.url)}`);
  });
  addDocuments(app, bridge);
  app.register(frontPageRoutes(bridge));
  app.register(healthRoutes(bridge));
  app.register(metricsRoutes(bridge));
  app.register(apiRoutes(bridge), { prefix: "/api/v1" });
  // As if it expected nothing, which RFC 9110, 10.1.1, leaves to us: Node would answer by itself.
  app.server.on("checkExpectation", (request, response) => app.server.emit("request", request, response));
  const take = takerOf(app, bridge, turns);
  app.server.on("connect", (request, socket, head) => void take(request, socket, head));
  // All fields are read: the size of a head is bound, and Node would leave out those beyond 2,000.
  app.server.maxHeadersCount = 0;
  app.server.on("upgrade", (request, socket, head) => void take(request, socket, head));
  bridge.admission.guard(app.server);
  return app;
}

/**
 * Lets a request in.
 * @returns who has sent it; undefined where its connection has ended instead
 * @throws HttpProblem with one of `doorProblems`
 */
type Enter = (request: IncomingMessage, response: ServerResponse) => Promise<Peer | undefined>;

/** What holds for all requests, before anything is read of them but their heads. */
function doorOf(bridge: Bridge, turns: InTurn): Enter {
  return async (request, response) => {
    if (!(await turns.takes(request, response))) return undefined;
    if (bridge.standsStill) {
      const text = "the bridge goes on in another process: ask again";
      throw new HttpProblem("draining", text, { connection: "close" });
    }
    const peer = bridge.peers.of(request);
    bridge.admission.request(request, peer);
    checkAccess(request, bridge.config, peer);
    return peer;
  };
}

/** Serves requests with which Node lets go of the connection: those for an upgrade, and those for a tunnel. */
function takerOf(app: FastifyInstance, bridge: Bridge, turns: InTurn) {
  return async (request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> => {
    // It may break while it waits for its turn, too.
    socket.on("error", () => socket.destroy());
    request.url = takeTarget(request);
    if (!(await turns.takes(request))) return;
    const isWebSocket = request.headers.upgrade?.toLowerCase() === "websocket";
    if (isWebSocket && request.method !== "CONNECT") bridge.upgrade(request, socket, head);
    else answerPlainly(app, request, socket);
  };
}

/** Lets requests in, or not. */
function guard(app: FastifyInstance, bridge: Bridge, enter: Enter): void {
  const { origins } = bridge.config;
  app.decorateRequest("permit");
  app.decorateRequest("view");
  app.decorateRequest("peer");
  app.addHook("onRequest", async (request, reply) => {
    const peer = await enter(request.raw, reply.raw);
    if (peer === undefined) return reply.hijack();
    request.peer = peer;
    // On the answer itself, so that those have them too that the routes write by themselves.
    const { fields, preflight } = crossOrigin(request.raw, origins);
    for (const [name, value] of Object.entries(fields)) reply.raw.setHeader(name, value);
    if (preflight) return reply.code(204).send();
    if (request.routeOptions.config.public === true) return;
    request.permit = bridge.gate.admit(request.headers);
    request.view = new View(bridge, request.permit);
  });
}

/** Everything below `/api/v1`. */
function apiRoutes(bridge: Bridge): FastifyPluginAsync {
  return async (app) => {
    await app.register(resourceRoutes(bridge));
    await app.register(messageRoutes(bridge));
    await app.register(eventRoutes(bridge));
    await app.register(captureRoutes(bridge));
    await app.register(accessRoutes);
    await app.register(credentialRoutes(bridge));
  };
}

/** Checks a part of a request against its schema. */
const validator: FastifySchemaCompiler<z.ZodType> =
  ({ schema, httpPart }) =>
  (data: unknown) => {
    const parsed = schema.safeParse(data);
    if (parsed.success) return { value: parsed.data };
    const [issue] = parsed.error.issues;
    const part = httpPart === "querystring" ? "query" : httpPart;
    const where = [part, ...(issue?.path.map(String) ?? [])].join(": ");
    return { error: new HttpProblem("bad-request", `${where}: ${issue?.message ?? "not understood"}`) };
  };

const compilersFactory = {
  buildValidator: () => validator,
  // What the schemas of answers say holds by construction.
  buildSerializer: () => () => (data: unknown) => JSON.stringify(data),
};

/**
 * Answers a request that offers another protocol, such as h2c, as if it did not: Node passes those to the same event as
 * WebSockets; and one for a tunnel (CONNECT), which there is not. What it may have sent besides its head is gone, so the connection ends with the answer.
 */
function answerPlainly(app: FastifyInstance, request: IncomingMessage, stream: Duplex): void {
  const response = new ServerResponse(request);
  response.shouldKeepAlive = false;
  response.assignSocket(stream as Socket);
  response.once("finish", () => {
    stream.once("finish", () => stream.destroy());
    stream.end();
  });
  app.server.emit("request", request, response);
}

function answer(problem: HttpProblem, reply: FastifyReply): FastifyReply {
  // Node adds nothing to a `Connection` that it is given, and no `Keep-Alive` beside it.
  if ("upgrade" in problem.headers) {
    const { shouldKeepAlive } = reply.raw;
    reply.header("connection", problem.connection(shouldKeepAlive));
    const seconds = Math.floor(reply.server.server.keepAliveTimeout / 1000);
    if (shouldKeepAlive) reply.header("keep-alive", `timeout=${seconds}`);
  }
  // The connection itself is the one too many.
  if (problem.code === "too-many-connections" || problem.code === "overloaded") {
    reply.header("connection", "close");
  }
  return reply.code(problem.statusCode).headers(problem.headers).type(PROBLEM_TYPE).send(problem.toProblem());
}

function upgradeRequired(url: string): HttpProblem {
  // RFC 9110, 15.5.22: it says what to upgrade to.
  const headers = { upgrade: "websocket" };
  return new HttpProblem("upgrade-required", `${pathOf(url)} is for WebSocket clients`, headers);
}

function pathOf(url: string): string {
  const [path = ""] = url.split("?");
  return path;
}

function toProblem(error: FastifyError | HttpProblem): HttpProblem {
  if (error instanceof HttpProblem) return error;
  if (error.statusCode === 415) return new HttpProblem("media-type-unknown", error.message);
  if (error.statusCode === 413) return new HttpProblem("body-too-large", error.message);
  if (error.statusCode !== undefined && error.statusCode < 500)
    return new HttpProblem("bad-request", error.message);
  return new HttpProblem("internal", "the bridge made a mistake; its log says which");
}
