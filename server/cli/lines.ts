import { createInterface } from "node:readline";
import type { MessageId } from "../../schemas/index.ts";
import { ClientFrame } from "../../schemas/index.ts";
import type { Channel } from "./channel.ts";
import { CommandError } from "./command-error.ts";
import { parseHex } from "./hex.ts";
import { Talk } from "./talk.ts";

/** A line is a message, without its end; a message is a line. */
export async function talkInLines(channel: Channel, { hex }: { hex: boolean }): Promise<void> {
  const talk = new Talk(channel);
  talk.greet("ctrl-d");
  talk.listen((bytes) =>
    talk.show(hex ? `${bytes.toString("hex")}\n` : Buffer.concat([bytes, Buffer.from("\n")])),
  );
  for await (const line of linesOfInput(channel)) {
    try {
      talk.send(hex ? parseHex(line) : Buffer.from(line, "latin1"));
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      talk.failed(error.message);
    }
    await channel.room();
  }
  await talk.finish(() => channel.unsettled);
}

/**
 * Frames of rpmsg.v1.json, one a line, both ways. A line of input may leave out `"type": "send"`. What is wrong with a
 * line is for the bridge to say, in a frame.
 */
export async function talkInFrames(channel: Channel): Promise<void> {
  const talk = new Talk(channel);
  talk.greet("ctrl-d");
  /** Messages with an id of which no result has come. */
  const unsettled = new Set<MessageId>();
  channel.listen((frame, text) => {
    if ((frame?.type === "sent" || frame?.type === "error") && frame.id !== undefined) {
      unsettled.delete(frame.id);
    }
    if (frame?.type === "error") talk.countFailure();
    talk.show(`${text}\n`);
  });
  for await (const line of linesOfInput(channel)) {
    const text = Buffer.from(line, "latin1").toString();
    const frame = frameOf(text);
    const checked = ClientFrame.safeParse(frame);
    // What the bridge refuses to read has no result.
    if (checked.success && checked.data.type === "send" && checked.data.id !== undefined) {
      unsettled.add(checked.data.id);
    }
    channel.sendText(frame === undefined ? text : JSON.stringify(frame));
    await channel.room();
  }
  await talk.finish(() => unsettled.size);
}

/** Lines of standard input, one character a byte, until its end or that of the connection. */
async function* linesOfInput(channel: Channel): AsyncGenerator<string> {
  // So that bytes which are no UTF-8 pass.
  process.stdin.setEncoding("latin1");
  const input = createInterface({ input: process.stdin, terminal: false });
  const end = (): void => input.close();
  channel.closed.then(end, end);
  for await (const line of input) {
    if (!channel.open) return;
    yield line;
  }
}

/** A line of input as a frame, completed; undefined where it cannot be one. */
function frameOf(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
    return isObject ? { type: "send", ...value } : undefined;
  } catch {
    return undefined;
  }
}
