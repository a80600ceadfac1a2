/** A server-sent event. */
export interface ServerSentEvent {
  event: string;
  data: string;
  /** The last id that came on this stream, with this event or before it. */
  id: string;
}

/** Characters of one event: more is no bridge. */
const LONGEST = 2 ** 20;

/**
 * Cuts a stream into server-sent events (HTML, 9.2.6).
 * @param silence milliseconds without a byte, comments included, after which the stream is dead
 * @throws Error where it is, or where an event has no end
 */
export async function* serverSentEvents(
  body: ReadableStream<Uint8Array>,
  silence: number,
): AsyncGenerator<ServerSentEvent, void, undefined> {
  const decoder = new TextDecoder();
  const reader = body.getReader();
  let id = "";
  let event = "";
  let data: string[] = [];
  let rest = "";
  let size = 0;
  try {
    for (;;) {
      const { done, value } = await inTime(reader.read(), silence);
      if (done) return;
      rest += decoder.decode(value, { stream: true });
      // A \r at the end may be half of a \r\n.
      const lines = rest.split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop() ?? "";
      for (const line of lines) {
        size += line.length;
        if (line === "") {
          if (data.length > 0) yield { event: event || "message", data: data.join("\n"), id };
          [event, data, size] = ["", [], 0];
          continue;
        }
        const [, field = line, text = ""] = /^([^:]*):? ?(.*)$/s.exec(line) ?? [];
        if (field === "event") event = text;
        else if (field === "data") data.push(text);
        else if (field === "id" && !text.includes("\0")) id = text;
      }
      if (size + rest.length > LONGEST) throw new Error("a server-sent event without end");
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function inTime<T>(promise: Promise<T>, milliseconds: number): Promise<T> {
  let timer: ReturnType<typeof setTimeout>;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing came for ${milliseconds} ms`)), milliseconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
