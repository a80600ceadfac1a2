import type { Limits } from "../../schemas/limits.ts";
import { PlainClient } from "../support/plain-client.ts";

/** An endpoint that echoes. */
export const ECHO = "/ws/v1/demo/echo";
const HEAD = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n";
const UPGRADE = `GET ${ECHO} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n`;
const BODY =
  "POST /api/v1/guests/demo/endpoints HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{";
const opcode = { continuation: 0, text: 1, binary: 2, ping: 9 };
/** Requests in one piece. Each of them is looked at, though the second one ends the connection. */
const MANY = 60;
/** Milliseconds between two looks of Node for requests that are late (server/app.ts: CHECK_PERIOD). */
const CHECK_PERIOD = 1000;

/** What a bad client does again and again, and how it begins. None of them closes its side by itself. */
export interface Abuse {
  readonly begin: (url: string) => Promise<PlainClient>;
  readonly again?: (client: PlainClient) => unknown;
  /** What counts its end among the samples of /metrics: that it ended for this, and not for something else. */
  readonly counted: string;
  /** How long the bridge may leave it there, in milliseconds, as its limits say. */
  readonly within: (limits: Limits) => number;
}

const reached = (limit: string): string => `rpmsg_bridge_limit_reached_total{limit="${limit}"}`;
const rejected = (code: string): string => `rpmsg_client_rejected_total{where="head",code="${code}"}`;
const get = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`;

const dial = (url: string, text?: string): Promise<PlainClient> => PlainClient.dial(url, text, true);
const open = (url: string): Promise<PlainClient> => PlainClient.open(url, ECHO, true);

const headTime = {
  counted: reached("requestTimeout"),
  within: ({ headersTimeout }: Limits) => headersTimeout + CHECK_PERIOD,
};
const bodyTime = { ...headTime, within: ({ requestTimeout }: Limits) => requestTimeout + CHECK_PERIOD };
const atOnce = (): number => 0;

/** Asks for the same so many times in one piece, and reads nothing. */
function unread(path: string, times: number): Pick<Abuse, "begin"> {
  return {
    begin: async (url) => {
      const client = await dial(url, get(path).repeat(times));
      client.socket.pause();
      return client;
    },
  };
}

/** Over TCP. */
export const abuses: Readonly<Record<string, Abuse>> = {
  fragments: {
    begin: async (url) => {
      const client = await open(url);
      client.send(opcode.binary, Buffer.of(0), false);
      return client;
    },
    again: (client) => {
      for (let i = 0; i < 20; i++) client.send(opcode.continuation, Buffer.of(0), false);
    },
    counted: reached("fragments"),
    within: ({ closeTimeout }) => closeTimeout,
  },
  heads: {
    begin: (url) => dial(url, HEAD),
    again: (client) => client.socket.write("X-A: b\r\n"),
    ...headTime,
  },
  bodies: { begin: (url) => dial(url, BODY), again: (client) => client.socket.write(" "), ...bodyTime },
  "half upgrades": { begin: (url) => dial(url, UPGRADE), ...headTime },
  nothing: { begin: (url) => dial(url), ...headTime },
  closes: {
    begin: async (url) => {
      const client = await open(url);
      // What is no UTF-8 is closed with 1007.
      client.send(opcode.text, Buffer.of(0xff));
      return client;
    },
    counted: reached("closeTimeout"),
    within: ({ closeTimeout }) => closeTimeout,
  },
  garbage: {
    begin: (url) => dial(url, `${HEAD}\r\n${"\u0000\u00ff{]".repeat(10_000)}`),
    counted: rejected("malformed"),
    within: atOnce,
  },
  streams: { ...unread("/api/v1/events", MANY), counted: rejected("pipelined"), within: atOnce },
  files: {
    ...unread("/docs/static/swagger-ui-bundle.js", MANY),
    counted: rejected("pipelined"),
    within: atOnce,
  },
  answers: { ...unread("/openapi.json", MANY), counted: rejected("pipelined"), within: atOnce },
  "upgrades behind a stream": {
    begin: (url) => dial(url, `${get("/api/v1/events")}${HEAD}Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n`),
    counted: rejected("pipelined"),
    within: atOnce,
  },
};

/**
 * Over a Unix socket, for which the kernel takes some hundred kilobytes and not megabytes: what is not read waits in the
 * bridge.
 */
export const unreadAbuses: Readonly<Record<string, Abuse>> = {
  pings: {
    begin: async (url) => {
      const client = await open(url);
      client.socket.pause();
      return client;
    },
    again: (client) => {
      for (let i = 0; i < 500 && client.socket.writableLength < 2 ** 20; i++)
        client.send(opcode.ping, Buffer.alloc(125));
    },
    counted: reached("pendingPongs"),
    // No time: so many beyond what the kernel takes, which one piece of a flood is.
    within: atOnce,
  },
  "a file not read": {
    ...unread("/docs/static/swagger-ui-bundle.js", 1),
    counted: reached("responseTimeout"),
    within: ({ responseTimeout }) => responseTimeout,
  },
  "no pongs": {
    begin: open,
    counted: 'rpmsg_connections_closed_total{cause="no-pong"}',
    // It may have come just behind a ping.
    within: ({ pingInterval, pongTimeout }) => pingInterval + pongTimeout,
  },
};
