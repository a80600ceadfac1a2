import type { ClientFlags } from "./client.ts";
import { ask, incomprehensible, problemText, textOf } from "./client.ts";
import { CommandError } from "./command-error.ts";

/** An event of a stream of server-sent events. */
export interface StreamEvent {
  event: string;
  data: string;
}

/**
 * Follows a stream of server-sent events until it ends or breaks off.
 * @throws CommandError
 */
export async function* followEvents(
  path: string,
  flags: ClientFlags,
  signal: AbortSignal,
): AsyncGenerator<StreamEvent> {
  const response = await ask(path, flags, { accept: "text/event-stream" }, signal);
  response.setEncoding("utf8");
  if (response.statusCode !== 200) {
    throw new CommandError(problemText(response.statusCode ?? 0, await textOf(response), flags));
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
