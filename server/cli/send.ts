import type { Encoding } from "../../schemas/index.ts";
import { parseAddress } from "../../schemas/index.ts";
import { explain } from "./advice.ts";
import { Channel } from "./channel.ts";
import { CommandError, exitCode } from "./command-error.ts";
import type { ChannelFlags } from "./dial.ts";
import { parseHex } from "./hex.ts";

const DEFAULT_WAIT = 15;
/** Bytes of the longest message that there can be: the length field has 16 bits. */
const LONGEST = 65_535;

interface SendFlags extends ChannelFlags {
  hex?: boolean;
  dst?: string;
  /** Seconds. */
  timeout?: number;
  /** Seconds, or true for the default. */
  wait?: number | true;
}

interface Reply {
  src: number;
  data: string;
  encoding: Encoding;
}

/** Sends one message and tells what became of it; prints the first reply if that is asked for. */
export async function send(reference: string, data: string, flags: SendFlags): Promise<void> {
  const { hex = false, json = false, wait } = flags;
  const message = await bytesOf(data, hex);
  const options = {
    dst: flags.dst === undefined ? undefined : addressOf(flags.dst),
    timeout: flags.timeout === undefined ? undefined : Math.ceil(flags.timeout * 1000),
  };
  const channel = await Channel.open(reference, flags, hex ? "hex" : json ? undefined : "base64");
  try {
    const reply = new Promise<Reply>((resolve) => {
      channel.listen((frame) => {
        if (frame?.type === "message") resolve(frame);
      });
    });
    const failure = await channel.send(message, options);
    if (failure !== undefined) throw new CommandError(failure);
    if (wait === undefined) {
      if (json) console.log(JSON.stringify({ result: "sent" }));
    } else show(await replyWithin(wait === true ? DEFAULT_WAIT : wait, reply, channel), hex, json);
  } finally {
    await channel.end();
  }
}

/** The message, from the command line or, for `-`, from standard input. */
async function bytesOf(data: string, hex: boolean): Promise<Buffer> {
  if (data !== "-") return hex ? parseHex(data) : Buffer.from(data);
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of process.stdin as AsyncIterable<Buffer>) {
    parts.push(part);
    length += part.length;
    // Twice the digits, and as much white space.
    if (length > LONGEST * (hex ? 4 : 1)) {
      throw new CommandError(explain("standard input is longer than any message", "too-large"));
    }
  }
  const bytes = Buffer.concat(parts);
  return hex ? parseHex(bytes.toString("latin1")) : bytes;
}

function addressOf(text: string): number {
  const address = parseAddress(text);
  if (address === undefined) throw new CommandError(`--dst: "${text}" is not an address`, exitCode.usage);
  return address;
}

/** The reply, unless the time or the connection ends first. */
async function replyWithin(seconds: number, reply: Promise<Reply>, channel: Channel): Promise<Reply> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    const text = `no reply within ${seconds} seconds`;
    timer = setTimeout(() => reject(new CommandError(explain(text, "no-reply"))), seconds * 1000);
  });
  // Where the connection ends normally, it was this command that was to end.
  const broken = channel.closed.then(() => late);
  try {
    return await Promise.race([reply, late, broken]);
  } finally {
    clearTimeout(timer);
  }
}

function show({ src, data, encoding }: Reply, hex: boolean, json: boolean): void {
  if (json) console.log(JSON.stringify({ src, data, encoding }));
  else if (hex) console.log(data);
  else process.stdout.write(Buffer.concat([Buffer.from(data, encoding), Buffer.from("\n")]));
}
