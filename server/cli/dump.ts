import { interfaceAddress, interfaceFacts } from "../capture/interface-name.ts";
import { readMessage } from "../capture/message.ts";
import type { CapturedInterface, CapturedItem, CapturedMessage } from "../capture/pcapng-reader.ts";
import type { CaptureScope } from "./capture-source.ts";
import { followCapture, gapText, isBreak, readCapture, scopeReference } from "./capture-source.ts";
import type { ClientFlags } from "./client.ts";
import { CommandError, exitCode } from "./command-error.ts";
import { hexDump } from "./hex-dump.ts";
import { stopSignal } from "./signals.ts";
import { count, printable } from "./terminal.ts";

interface DumpFlags extends ClientFlags, CaptureScope {
  read?: string;
  count?: number;
}

/** Prints what goes through the rings, or what a file has of it. */
export async function dump(flags: DumpFlags): Promise<void> {
  const fits = filterOf(flags);
  const stop = new AbortController();
  let done = flags.read !== undefined;
  void stopSignal().then(() => {
    done = true;
    stop.abort();
  });
  const items = flags.read === undefined ? followCapture(flags, flags, stop.signal) : readCapture(flags.read);
  const leftOut = new Map<CapturedInterface, number>();
  let messages = 0;
  try {
    for await (const item of items) {
      if (item.kind === "gap") console.error(`rpmsg-bridge: ${gapText(item)}`);
      if (item.kind === "statistics") tellLeftOut(item, leftOut);
      if (item.kind !== "message" || !fits(item.message)) continue;
      show(item.message, flags.json === true);
      if (++messages !== flags.count) continue;
      done = true;
      break;
    }
  } catch (error) {
    if (flags.read !== undefined) throw error;
    if (error instanceof CommandError ? !done : !isBreak(error)) throw error;
    // The connection broke off, which is told below; or it was to end.
  } finally {
    stop.abort();
  }
  if (!done) throw new CommandError(`the bridge at ${flags.url} has ended, or the way to it`);
}

/**
 * Of a file, what is asked for, as a bridge understands it; a bridge sends nothing else.
 * @throws CommandError
 */
function filterOf(flags: DumpFlags): (captured: CapturedMessage) => boolean {
  const { read, guest } = flags;
  if (read === undefined) return () => true;
  const reference = scopeReference(flags);
  if (reference?.id !== undefined) {
    throw new CommandError("--read: a file has names and addresses of endpoints, no ids", exitCode.usage);
  }
  return (captured) => {
    const { interface: own } = captured;
    const about = interfaceFacts(own);
    if (reference === undefined) return guest === undefined || about.guest === guest;
    const { name, address } = reference;
    // Announcements of the name are of it too, unless it is told from others by its address.
    const subject = about.endpoint ?? readMessage(captured)?.nameService?.name;
    if (about.guest !== reference.guest || subject !== name) return false;
    return address === undefined || interfaceAddress(own) === address;
  };
}

function tellLeftOut(
  { interface: own, dropped = 0 }: CapturedItem & { kind: "statistics" },
  told: Map<CapturedInterface, number>,
): void {
  const news = dropped - (told.get(own) ?? 0);
  told.set(own, dropped);
  if (news > 0) console.error(`${count(news, "message")} of ${printable(own.name)} left out: read faster`);
}

function show(captured: CapturedMessage, json: boolean): void {
  const { interface: own, toGuest, time, packet, comments } = captured;
  const message = readMessage(captured);
  if (json) {
    const { guest = own.name, endpoint, src, dst, payload = packet, nameService } = message ?? {};
    const data = payload.toString("hex");
    console.log(
      JSON.stringify({
        ...{ time: isoTime(time), guest, endpoint: endpoint ?? null, to: toGuest ? "guest" : "host" },
        ...{ src: src ?? null, dst: dst ?? null, data, comments },
        ...(nameService && { nameService }),
      }),
    );
    return;
  }
  const head = [clock(time), printable(own.name), toGuest ? "to guest" : "from guest"];
  if (message === undefined) head.push(`malformed, ${packet.length} bytes`);
  else head.push(`${message.src} > ${message.dst}`, `${message.payload.length} bytes`);
  const { name = "", address, created } = message?.nameService ?? {};
  if (created !== undefined) head.push(`${created ? "create" : "destroy"} ${printable(name)} at ${address}`);
  console.log([head.join("  "), ...comments.map((each) => `  # ${printable(each)}`)].join("\n"));
  for (const line of hexDump(message?.payload ?? packet)) console.log(`  ${line}`);
}

/** Local time of day, with microseconds. */
function clock(time: bigint): string {
  const date = new Date(Number(time / 1_000_000n));
  const micros = String((time / 1000n) % 1_000_000n).padStart(6, "0");
  return `${date.toTimeString().slice(0, 8)}.${micros}`;
}

function isoTime(time: bigint): string {
  const date = new Date(Number(time / 1_000_000n)).toISOString();
  return `${date.slice(0, 19)}.${String(time % 1_000_000_000n).padStart(9, "0")}Z`;
}
