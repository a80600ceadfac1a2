import type { Encoding, Origin, Share, SlowPolicy } from "../schemas/index.ts";
import type { ReconnectOptions } from "./backoff.ts";
import type { Bound } from "./bound.ts";
import { Channel } from "./channel.ts";
import { ticketOf } from "./credentials.ts";
import { Credit } from "./credit.ts";
import { explain } from "./explain.ts";
import { authorization } from "./http.ts";
import type { Place } from "./target.ts";
import { channelUrl } from "./target.ts";
import type { WebSocketConstructor } from "./web-socket.ts";
import { takesHeaders, webSocketOf } from "./web-socket.ts";

const PROTOCOL = "rpmsg.v1.json";

const defaults = {
  // The bridge reads no further from a client for which 64 KiB wait, and then answers no pings either.
  window: { messages: 256, bytes: 32_768 },
  queue: { messages: 16_384, bytes: 2 ** 23 },
  inbox: { messages: 16_384, bytes: 2 ** 23 },
  timeout: 10_000,
  pingInterval: 20_000,
};

export interface ConnectOptions extends Place {
  /**
   * `private`: an address of the channel's own, replies to it come here alone; `shared`: one with all such clients;
   * `exclusive`: the endpoint's only client. Default: private for endpoints of the guest, shared for those of the host.
   */
  share?: Share;
  /** With `exclusive`: ends the client that is there. Only at the first connection, not when it is made again. */
  takeover?: boolean;
  /** The channel's local address; without it the bridge chooses. */
  local?: number;
  /** What the bridge does when messages come faster than they are read. Default close; the channel reconnects then. */
  slow?: SlowPolicy;
  /** Which of two endpoints of one name. */
  origin?: Origin;
  /** How the bridge writes messages; without it utf8 where they are, else base64. With utf8 other bytes are lost. */
  encoding?: Encoding;
  /**
   * Bearer token. It goes in the head of the request where the WebSocket is that of `ws`; for others, which take no
   * headers, every connection gets a ticket of its own.
   */
  token?: string;
  /** The WebSocket to use, such as that of the package `ws`. Default: the global one, which Node has from 22 on. */
  WebSocket?: WebSocketConstructor;
  /** How a lost connection is made again; false: it ends the channel. */
  reconnect?: ReconnectOptions | false;
  /** Ends the attempt to connect, and later the channel. */
  signal?: AbortSignal | undefined;
  /** Milliseconds that one attempt to connect may take. Default 10,000. */
  timeout?: number;
  /** Milliseconds between pings, by which a connection that died in silence is found out. Default 20,000; 0: none. */
  pingInterval?: number;
  /** Messages that may be on their way without an answer. Default 256 messages and 32 KiB. */
  window?: Partial<Bound>;
  /** Messages that may wait to be written; one more is refused with `queue-full`. Default 16,384 messages and 8 MiB. */
  queue?: Partial<Bound>;
  /** Messages of the guest that may wait to be taken; then the oldest are dropped. Default 16,384 messages and 8 MiB. */
  inbox?: Partial<Bound>;
  /**
   * Messages of the guest that may be on their way, or here and not taken; the rest waits with the bridge, which does
   * with what is too much as `slow` says. Default: any number. Not with `announce`.
   */
  credit?: number;
  /** With `credit`: calls back when more may come, such as with the next picture of a page. Default: at once. */
  pace?: (grant: () => void) => void;
}

/**
 * Connects to an endpoint.
 * @param target a channel's URL, as `path` in the list of endpoints has it (`ws://127.0.0.1:8080/ws/v1/demo/echo`), or
 * with `guest` and `endpoint` the bridge's; http and ws are the same here. In a browser it may be relative to the page.
 * @returns the channel, open
 * @throws RpmsgError with the reason why the bridge refuses; TypeError for a URL that is none, or where there is no
 * WebSocket; the reason of `signal`
 */
export async function connect(target: string | URL, options: ConnectOptions = {}): Promise<Channel> {
  const { token, signal, reconnect = {}, credit, pace = (grant) => grant() } = options;
  const Socket = webSocketOf(options.WebSocket);
  const url = channelUrl(target, options);
  for (const key of ["share", "local", "slow", "origin", "encoding", "credit"] as const) {
    if (options[key] !== undefined) url.searchParams.set(key, String(options[key]));
  }
  if (options.takeover === true) url.searchParams.set("takeover", "1");
  const again = new URL(url);
  // Whoever took the endpoint over meanwhile keeps it.
  again.searchParams.delete("takeover");
  // A service ends with its connection.
  const resumable = !url.searchParams.has("announce");
  const { timeout = defaults.timeout } = options;
  let dialled = false;

  const channel = new Channel({
    dial: (resume) => {
      const next = new URL(dialled ? again : url);
      if (resume !== undefined && resumable) {
        next.searchParams.set("resume", resume.session);
        next.searchParams.set("after", String(resume.after));
      }
      dialled = true;
      if (token === undefined) return new Socket(next.href, [PROTOCOL]);
      if (takesHeaders(Socket)) return new Socket(next.href, [PROTOCOL], { headers: authorization(token) });
      return ticketOf(url, { token, signal: AbortSignal.timeout(timeout) }).then(
        (ticket) => new Socket(next.href, [PROTOCOL, `rpmsg.bearer.${ticket}`]),
      );
    },
    explain: () => explain(url, { token, signal }),
    reconnect,
    timeout,
    pingInterval: options.pingInterval ?? defaults.pingInterval,
    window: { ...defaults.window, ...options.window },
    queue: { ...defaults.queue, ...options.queue },
    inbox: { ...defaults.inbox, ...options.inbox },
    credit: credit === undefined ? undefined : new Credit(credit, pace),
    signal,
  });
  return channel.opened;
}
