import { ftruncateSync, openSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import {
  bits,
  encodeNameService,
  feature,
  mappedRegion,
  Poller,
  RPMSG_F_NS,
  VhostUserFrontend,
} from "../../rpmsg/index.ts";
import { connectUnix } from "../../rpmsg/posix/unix-socket.ts";
import { DriverRings } from "../rpmsg/support/device-driver.ts";
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

const BASE = 0x4000_0000;
const SIZE = 64 * 4096;

/**
 * A guest whose memory is a file that cannot be sealed: it may shrink at any time. It announces a service, and nobody
 * in this process touches its memory after `truncate`.
 */
export class TruncatableGuest {
  readonly #file: number;
  readonly #rings: DriverRings;
  readonly #frontend: VhostUserFrontend;
  readonly closed: Promise<void>;

  private constructor(path: string, poller: Poller) {
    this.#file = openSync(join(testDirectory(), "memory"), "w+");
    ftruncateSync(this.#file, SIZE);
    const region = mappedRegion(this.#file, 0, BASE, BASE, SIZE);
    this.#rings = new DriverRings(region);
    const fd = connectUnix(path);
    if (fd < 0) throw new Error(`cannot connect: ${fd}`);
    let gone: () => void = () => {};
    this.closed = new Promise((resolve) => {
      gone = resolve;
    });
    this.#frontend = new VhostUserFrontend(
      fd,
      poller,
      {
        features: bits(RPMSG_F_NS, feature.VERSION_1),
        memory: [{ guestAddress: BASE, userAddress: BASE, size: SIZE, fileOffset: 0, fd: this.#file }],
        vrings: this.#rings.rings.map((addresses) => ({ size: 16, addresses })),
      },
      { onCall() {}, onClose: () => gone() },
    );
    onTestFinished(() => {
      this.#frontend.close();
      region.close();
      poller.close();
    });
  }

  static async attach(path: string, service: string): Promise<TruncatableGuest> {
    const guest = new TruncatableGuest(path, new Poller());
    await guest.#frontend.negotiate();
    for (let i = 0; i < 16; i++) guest.#rings.post(512);
    await guest.#frontend.start();
    guest.#frontend.kick(0);
    guest.#rings.offer(1024, 53, encodeNameService({ name: service, address: 1024, created: true }));
    guest.#frontend.kick(1);
    return guest;
  }

  truncate(): void {
    ftruncateSync(this.#file, 0);
  }

  kick(): void {
    this.#frontend.kick(1);
  }
}
