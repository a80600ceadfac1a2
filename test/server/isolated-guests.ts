import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { TruncatableGuest } from "../support/truncatable-guest.ts";
import { testDirectory } from "./support.ts";

/** Processes of isolated guests that this process has started, by the path of the guest's socket. */
export function guestProcesses(): Map<string, number> {
  const found = new Map<string, number>();
  for (const task of readdirSync("/proc/self/task")) {
    let children: string;
    try {
      children = readFileSync(`/proc/self/task/${task}/children`, "utf8");
    } catch {
      // The thread has ended.
      continue;
    }
    for (const pid of children.trim().split(" ")) {
      const [, , options = ""] = commandLine(pid);
      if (!options.startsWith("{")) continue;
      found.set((JSON.parse(options) as { path: string }).path, Number(pid));
    }
  }
  return found;
}

/** The process of an isolated guest, whoever has started it; undefined where there is none. */
export function guestProcess(path: string): number | undefined {
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  const found = pids.find((pid) => {
    const [, , options = ""] = commandLine(pid);
    return options.startsWith("{") && (JSON.parse(options) as { path?: string }).path === path;
  });
  return found === undefined ? undefined : Number(found);
}

function commandLine(pid: string): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
  } catch {
    return [];
  }
}

/** Open descriptors of this process, without the pollers that tests keep until their end. */
export function openDescriptors(): number {
  const targets = readdirSync("/proc/self/fd").map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return "";
    }
  });
  return targets.filter((target) => target !== "" && !target.includes("eventpoll")).length;
}

/** Mappings of memory that this process shares with a relay. */
export function relayMappings(): number {
  return readFileSync("/proc/self/maps", "utf8").match(/rpmsg-relay/g)?.length ?? 0;
}

/** A guest whose memory may shrink, until the end of the test. */
export async function truncatableGuest(path: string, service: string): Promise<TruncatableGuest> {
  const guest = await TruncatableGuest.attach(path, service, join(testDirectory(), "memory"));
  onTestFinished(() => guest.close());
  return guest;
}
