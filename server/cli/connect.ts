import { Channel } from "./channel.ts";
import { CommandError, exitCode } from "./command-error.ts";
import type { ChannelFlags } from "./dial.ts";
import { talkInKeys } from "./keys.ts";
import { talkInFrames, talkInLines } from "./lines.ts";

interface ConnectFlags extends ChannelFlags {
  hex?: boolean;
  raw?: boolean;
}

/** Talks to an endpoint: in lines, in frames or, as with a terminal, in keys. */
export async function connect(reference: string, flags: ConnectFlags): Promise<void> {
  const { hex = false, json = false } = flags;
  if (flags.raw === true && (hex || json)) {
    throw new CommandError("--raw goes neither with --hex nor with --json", exitCode.usage);
  }
  const { stdin } = process;
  // As bytes, unless the frames are to be seen.
  const encoding = hex ? "hex" : json ? undefined : "base64";
  const channel = await Channel.open(reference, flags, encoding);
  const raw = flags.raw ?? (stdin.isTTY && !hex && !json && channel.hello.endpoint.endsWith("tty"));
  try {
    await (raw ? talkInKeys(channel) : json ? talkInFrames(channel) : talkInLines(channel, { hex }));
    // Not before the terminal is as it was: the end is told there.
    await channel.closed;
  } finally {
    stdin.destroy();
    await channel.end();
  }
}
