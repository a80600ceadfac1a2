import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  closeFd,
  createEventfd,
  createMemory,
  errnoName,
  listenUnix,
  mappedRegion,
  Poller,
  socketPair,
} from "../../rpmsg/index.ts";

/** Bytes of the memory that is tried. */
const SIZE = 65_536;

/** What guests behind a socket need of the system, each tried for real; all others need koffi. @returns why it cannot be had */
export const nativeChecks: Readonly<
  Record<"koffi" | "memory" | "poller" | "sockets", () => string | undefined>
> = {
  /** The native library, and the C library through it. */
  koffi: () => attempt(() => closeAll(...socketPair())),
  /** Memory as a virtual machine shares it: a sealed memory file, mapped. */
  memory: () =>
    attempt(() => {
      const fd = open(`a memory file of ${SIZE} bytes`, createMemory("rpmsg-doctor", SIZE));
      const region = mappedRegion(fd, 0, 0, 0, SIZE);
      region.close();
    }),
  /** Kicks and calls: eventfds in an epoll. */
  poller: () =>
    attempt(() => {
      const poller = new Poller();
      try {
        const fd = open("an eventfd", createEventfd());
        open(
          "watching an eventfd",
          poller.add(fd, () => {}),
        );
        poller.remove(fd);
        closeFd(fd);
      } finally {
        poller.close();
      }
    }),
  /** A socket for frontends, in a file. */
  sockets: () =>
    attempt(() => {
      const directory = mkdtempSync(join(tmpdir(), "rpmsg-doctor-"));
      try {
        closeAll(open("a Unix socket", listenUnix(join(directory, "vm.sock"))));
      } finally {
        rmSync(directory, { recursive: true, force: true });
      }
    }),
};

function attempt(action: () => void): string | undefined {
  try {
    action();
    return undefined;
  } catch (error) {
    return error instanceof Error ? (error.message.split("\n")[0] ?? "") : String(error);
  }
}

/** @throws Error where the result is an error number */
function open(what: string, result: number): number {
  if (result < 0) throw new Error(`${what}: ${errnoName(result)}`);
  return result;
}

function closeAll(...fds: number[]): void {
  for (const fd of fds) closeFd(fd);
}
