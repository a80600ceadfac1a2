import type { IncomingMessage } from "node:http";
import { request as requestHttp } from "node:http";
import { request as requestHttps } from "node:https";
import type { ClientFlags } from "./client.ts";
import { authorization, base, incomprehensible, problemText, unreachable } from "./client.ts";
import { CommandError } from "./command-error.ts";

/** An event of a stream of server-sent events. */
export interface StreamEvent {
  event: string;
  data: string;
}

/**
 * Follows a stream of server-sent events until it ends or breaks off.
 * Not with fetch: it gives up where nothing comes for five minutes.
 * @throws CommandError
 */
export async function* followEvents(
  path: string,
  flags: ClientFlags,
  signal: AbortSignal,
): AsyncGenerator<StreamEvent> {
  const url = new URL(path, base(flags));
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const request = url.protocol === "https:" ? requestHttps : requestHttp;
    const headers = { ...authorization(flags), accept: "text/event-stream" };
    request(url, { headers, signal })
      .once("response", resolve)
      .once("error", (error) => reject(unreachable(flags, error)))
      .once("socket", (socket) => socket.setKeepAlive(true, 30_000))
      .end();
  });
  response.setEncoding("utf8");
  if (response.statusCode !== 200) {
    let body = "";
    for await (const part of response as AsyncIterable<string>) body += part;
    throw new CommandError(problemText(response.statusCode ?? 0, body, flags));
  }
  if (response.headers["content-type"]?.startsWith("text/event-stream") !== true) {
    throw incomprehensible(flags, `${path} has no events`);
  }
  yield* parseEvents(response as AsyncIterable<string>);
}

/** Reads the format of server-sent events (HTML, 9.2.6). What is incomplete at the end is no event. */
async function* parseEvents(parts: AsyncIterable<string>): AsyncGenerator<StreamEvent> {
  let rest = "";
  let event = "message";
  let data: string[] = [];
  for await (const part of parts) {
    const lines = (rest + part).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines.map((each) => each.replace(/\r$/, ""))) {
      const [, field, value = ""] = /^([^:]*):? ?(.*)$/s.exec(line) ?? [];
      if (line === "") {
        if (data.length > 0) yield { event, data: data.join("\n") };
        event = "message";
        data = [];
      } else if (field === "event") event = value;
      else if (field === "data") data.push(value);
    }
  }
}
