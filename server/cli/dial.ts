import type { IncomingMessage } from "node:http";
import { WebSocket } from "ws";
import type { Encoding } from "../../schemas/index.ts";
import type { ClientFlags } from "./client.ts";
import { authorization, base, problemText, tlsOf, unreachable } from "./client.ts";
import { CommandError } from "./command-error.ts";
import { channelPath, parseReference } from "./reference.ts";

const HANDSHAKE_TIMEOUT = 10_000;

/** Flags of the commands that connect to an endpoint. */
export interface ChannelFlags extends ClientFlags {
  share?: string;
  local?: string;
  origin?: string;
  takeover?: boolean;
  slow?: string;
}

/**
 * Connects to GUEST/ENDPOINT by the subprotocol rpmsg.v1.json. The socket is paused, so that nothing comes before
 * whoever asked listens: `resume` it.
 * @param encoding of the messages that come; undefined: utf8 where they are text, else base64
 * @throws CommandError with the bridge's own words where it refuses
 */
export async function dial(
  reference: string,
  flags: ChannelFlags,
  encoding: Encoding | undefined,
): Promise<WebSocket> {
  const url = new URL(channelPath(parseReference(reference)), base(flags));
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const { share, local, origin, slow, takeover } = flags;
  const query = { share, local, origin, slow, encoding, takeover: takeover === true ? "1" : undefined };
  for (const [key, value] of Object.entries(query)) {
    if (value !== undefined) url.searchParams.set(key, value);
  }
  const socket = new WebSocket(url, "rpmsg.v1.json", {
    headers: authorization(flags),
    ...tlsOf(flags),
    perMessageDeflate: false,
    handshakeTimeout: HANDSHAKE_TIMEOUT,
  });
  await new Promise<void>((resolve, reject) => {
    socket.once("open", () => {
      socket.pause();
      resolve();
    });
    socket.once("error", (error) => reject(unreachable(flags, error)));
    socket.once("unexpected-response", (_request, response: IncomingMessage) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (part: string) => {
        body += part;
      });
      response.on("end", () => reject(new CommandError(problemText(response.statusCode ?? 0, body, flags))));
    });
  });
  return socket;
}
