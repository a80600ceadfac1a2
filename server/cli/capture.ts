import { once } from "node:events";
import type { CapturedItem } from "../capture/pcapng-reader.ts";
import { CaptureCounts } from "./capture-counts.ts";
import { CaptureFile } from "./capture-file.ts";
import type { CaptureScope } from "./capture-source.ts";
import { followCapture, gapText, isBreak } from "./capture-source.ts";
import type { ClientFlags } from "./client.ts";
import { CommandError, exitCode } from "./command-error.ts";
import { stopSignal } from "./signals.ts";
import { count } from "./terminal.ts";

interface CaptureFlags extends ClientFlags, CaptureScope {
  write: string;
  /** Bytes. */
  fileSize?: number;
  files?: number;
  onFull: "stop" | "drop";
  count?: number;
}

/** Where a capture goes. */
interface Output {
  readonly counts: CaptureCounts;
  write(item: CapturedItem): void | Promise<void>;
  finish(): void;
}

/** Writes what goes through the rings to a file, until it is told to stop, or the bridge ends and no other one goes on. */
export async function capture(flags: CaptureFlags): Promise<void> {
  if (flags.files !== undefined && flags.fileSize === undefined) {
    throw new CommandError("--files needs --file-size: without it there is one file", exitCode.usage);
  }
  const stop = new AbortController();
  let done = false;
  let begun = false;
  let gaps = 0;
  void stopSignal().then(() => {
    done = true;
    stop.abort();
  });
  // The file first: what cannot be written need not be asked for.
  const output = outputOf(flags);
  try {
    for await (const item of followCapture(flags, flags, stop.signal)) {
      begun = true;
      if (item.kind === "gap") {
        gaps++;
        tell(gapText(item));
        continue;
      }
      await output.write(item);
      done ||= flags.count !== undefined && output.counts.messages >= flags.count;
      if (done) break;
    }
  } catch (error) {
    if (error instanceof CommandError ? !done : !isBreak(error)) throw error;
    // Else the connection broke off, which is told below.
  } finally {
    stop.abort();
    output.finish();
    // Where the bridge has refused, its words are enough.
    if (begun || done) tellSummary(output.counts, gaps, flags);
  }
  if (!done)
    throw new CommandError(`the bridge at ${flags.url} has ended, or the way to it: the capture ends there`);
}

function outputOf({ write, fileSize, files, onFull }: CaptureFlags): Output {
  if (write === "-") return standardOutput();
  return new CaptureFile({ path: write, fileSize, files, onFull, tell });
}

function tell(text: string): void {
  console.error(`rpmsg-bridge: ${text}`);
}

function tellSummary(
  { messages, dropped }: CaptureCounts,
  gaps: number,
  { json = false, write }: CaptureFlags,
): void {
  if (json && write !== "-") console.log(JSON.stringify({ messages, dropped, gaps }));
  else {
    const missing = gaps === 0 ? "" : `; ${count(gaps, "gap")}, of which nobody knows what went through`;
    console.error(`${count(messages, "message")} captured, ${dropped} left out${missing}`);
  }
}

function standardOutput(): Output {
  const counts = new CaptureCounts();
  return {
    counts,
    async write(item) {
      counts.count(item);
      if (!process.stdout.write(item.block)) await once(process.stdout, "drain");
    },
    finish() {
      for (const block of counts.statistics()) process.stdout.write(block);
    },
  };
}
