import type { ReadMessage } from "../capture/message.ts";
import { messagesOfGuest } from "../capture/message.ts";
import type { CapturedItem } from "../capture/pcapng-reader.ts";
import { PcapngError } from "../capture/pcapng-reader.ts";
import { LONGEST_TIMER } from "../longest-timer.ts";
import { explain } from "./advice.ts";
import { readCapture } from "./capture-source.ts";
import { Channel } from "./channel.ts";
import { getGuest, listEndpoints } from "./client.ts";
import { CommandError, exitCode } from "./command-error.ts";
import type { ChannelFlags } from "./dial.ts";
import { stopSignal } from "./signals.ts";
import { count } from "./terminal.ts";

/** Results that may be open: with --fast the guest sets the pace. */
const MOST_OPEN = 256;

export interface ReplayFlags extends ChannelFlags {
  /** The guest that the clients' messages go to. */
  to?: string;
  /** The vhost-user socket of the bridge, for the guest's messages. */
  socket?: string;
  listen?: boolean;
  /** The guest of the capture. */
  from?: string;
  fast?: boolean;
}

/** Plays what clients sent to a guest of a running bridge, or what the guest sent, as an emulated guest. */
export async function replay(path: string, flags: ReplayFlags): Promise<void> {
  if ((flags.to === undefined) === (flags.socket === undefined)) {
    throw new CommandError("want --to GUEST, or --socket PATH to play the guest", exitCode.usage);
  }
  if (flags.socket === undefined) await playClients(path, flags.to ?? "", flags);
  else await playGuest(path, flags.socket, flags);
}

/** The messages of one guest of the capture. */
async function messagesOf(path: string, { from }: ReplayFlags): Promise<ReadMessage[]> {
  const items: CapturedItem[] = [];
  for await (const item of readCapture(path)) items.push(item);
  try {
    return messagesOfGuest(items, from);
  } catch (error) {
    if (!(error instanceof PcapngError)) throw error;
    const advice = from === undefined && error.message.includes("several") ? " (say which with --from)" : "";
    throw new CommandError(`${path}: ${error.message}${advice}`);
  }
}

async function playClients(path: string, guest: string, flags: ReplayFlags): Promise<void> {
  const all = await messagesOf(path, flags);
  const messages = all.filter(({ toGuest, endpoint, nameService }) => toGuest && endpoint && !nameService);
  if (messages.length === 0) throw new CommandError(`${path} has no messages of clients`);
  // Says so where there is none.
  await getGuest(guest, flags);
  const listed = await listEndpoints(flags, { guest });
  const channels = new Map<string, Channel>();
  const failures: string[] = [];
  let milliseconds: number;
  try {
    // All before the first message, so that its time is its own.
    for (const { endpoint = "", origin } of messages) {
      if (channels.has(endpoint)) continue;
      const found = listed.find((each) => each.name === endpoint && each.origin === (origin ?? each.origin));
      if (found === undefined) {
        throw new CommandError(explain(`guest "${guest}" has no endpoint "${endpoint}"`, "endpoint-unknown"));
      }
      channels.set(endpoint, await Channel.open(`${guest}/~${found.id}`, flags));
    }
    milliseconds = await send(messages, channels, flags.fast === true, failures);
  } finally {
    await Promise.all([...channels.values()].map((channel) => channel.end()));
  }
  const [first] = failures;
  if (first !== undefined) {
    throw new CommandError(
      `${failures.length} of ${count(messages.length, "message")} not delivered: ${first}`,
    );
  }
  const [sent, endpoints] = [messages.length, channels.size];
  if (flags.json === true) console.log(JSON.stringify({ sent, endpoints, milliseconds }));
  else
    console.log(
      `${count(messages.length, "message")} sent to ${count(channels.size, "endpoint")} of ${guest}`,
    );
}

/** @returns milliseconds from the first message to the result of the last one */
async function send(
  messages: readonly ReadMessage[],
  channels: ReadonlyMap<string, Channel>,
  fast: boolean,
  failures: string[],
): Promise<number> {
  const open = new Set<Promise<void>>();
  const start = performance.now();
  const [first] = messages;
  for (const { endpoint = "", payload, time } of messages) {
    const due = Number(time - (first?.time ?? time)) / 1e6;
    if (!fast) await until(start + due);
    const channel = channels.get(endpoint) as Channel;
    const result = channel.send(payload).then((failure) => {
      open.delete(result);
      if (failure !== undefined) failures.push(failure);
    });
    // Whoever waits for it below hears of an error.
    result.catch(() => {});
    open.add(result);
    while (open.size >= MOST_OPEN) await Promise.race(open);
  }
  await Promise.all(open);
  return Math.round(performance.now() - start);
}

/** Waits for a moment of `performance.now()`; a timer may be early by a millisecond. */
async function until(moment: number): Promise<void> {
  for (let left = moment - performance.now(); left > 0; left = moment - performance.now()) {
    await new Promise((resolve) => setTimeout(resolve, Math.min(left, LONGEST_TIMER)));
  }
}

async function playGuest(path: string, socket: string, flags: ReplayFlags): Promise<void> {
  const messages = await messagesOf(path, flags);
  const { runReplayGuest } = await import("../guests/replay-guest.ts");
  const stopped = stopSignal();
  let running: { close(): void };
  try {
    running = runReplayGuest(messages, {
      ...{ socket, mode: flags.listen === true ? "listen" : "connect", fast: flags.fast === true },
      onAttached: () => tell({ event: "attached", socket }),
      onPlayed: (endpoint, played) => tell({ event: "played", endpoint, messages: played }),
      onError: (error) => console.error(`rpmsg-bridge: ${error.message}`),
    });
  } catch (error) {
    throw new CommandError((error as Error).message);
  }
  await stopped;
  running.close();
}

/** A line of JSON for whoever started it. */
function tell(event: object): void {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}
