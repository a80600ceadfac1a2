import { readFileSync } from "node:fs";

/**
 * File descriptors that the process may have; NaN where the system does not tell (not Linux). Read once: when none are
 * left, nothing can be read.
 */
export const mostDescriptors = readLimit();

/**
 * That of a listening or connected socket of Node, which has no public way to it; -1 where there is none. The system
 * gives the lowest free number (open(2)): one of a new socket tells how many there are at least.
 */
export function descriptorOf(socket: object): number {
  return (socket as { _handle?: { fd?: number } | null })._handle?.fd ?? -1;
}

function readLimit(): number {
  try {
    const [, most] = /^Max open files\s+(\S+)/m.exec(readFileSync("/proc/self/limits", "utf8")) ?? [];
    return most === "unlimited" ? Number.POSITIVE_INFINITY : Number(most);
  } catch {
    return Number.NaN;
  }
}
