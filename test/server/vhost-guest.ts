import { join } from "node:path";
import { onTestFinished } from "vitest";
import type { EmulatedGuestOptions } from "../../guest/emulated-guest.ts";
import { EmulatedGuest } from "../../guest/emulated-guest.ts";
import type { Service, ServiceContext } from "../../guest/service.ts";
import { VhostUserGuest } from "../../guest/vhost-user-guest.ts";
import { Poller } from "../../rpmsg/index.ts";
import { connectUnix } from "../../rpmsg/posix/unix-socket.ts";
import type { ConfigInput } from "../../schemas/index.ts";
import type { LogLine, RunningBridge } from "./support.ts";
import { testBridge, testDirectory } from "./support.ts";

type VhostUserConfig = Extract<NonNullable<ConfigInput["guests"]>[string], { kind: "vhost-user" }>;

/** Suites of guests behind a socket run twice: with the attachment in the bridge, and in a process of its own. */
export const isolation: "none" | "process" =
  process.env["RPMSG_TEST_ISOLATION"] === "process" ? "process" : "none";

/** A bridge with the guest `vm`, which waits for its frontend. */
export interface VhostBridge extends RunningBridge {
  /** Attaches an emulated guest in this process; it is gone at the end of the test. */
  readonly attach: (options?: EmulatedGuestOptions) => Promise<AttachedGuest>;
}

export interface AttachedGuest {
  readonly guest: EmulatedGuest;
  readonly vm: VhostUserGuest;
  /** The connection with the bridge is over. */
  readonly closed: Promise<void>;
}

export async function vhostBridge(
  input: Omit<ConfigInput, "guests"> = {},
  guest: Partial<VhostUserConfig> = {},
  onLog?: (line: LogLine) => void,
): Promise<VhostBridge> {
  const path = join(testDirectory(), "vm.sock");
  const config = { kind: "vhost-user" as const, path, isolation, endpoints: [], ...guest };
  const running = await testBridge({ ...input, guests: { vm: config } }, onLog);
  return { ...running, attach: (options) => attachGuest(path, options) };
}

/** Attaches an emulated guest of this process to the bridge that listens there. */
export async function attachGuest(path: string, options: EmulatedGuestOptions = {}): Promise<AttachedGuest> {
  const fd = connectUnix(path);
  if (fd < 0) throw new Error(`cannot connect to ${path}: ${fd}`);
  const poller = new Poller();
  const guest = new EmulatedGuest(options);
  let gone: () => void = () => {};
  const closed = new Promise<void>((resolve) => {
    gone = resolve;
  });
  const vm = new VhostUserGuest(guest, fd, poller, gone);
  onTestFinished(() => {
    vm.close();
    poller.close();
  });
  await vm.attach();
  return { guest, vm, closed };
}

/** A service that takes messages only while it is open, and keeps them. */
export class Valve {
  readonly taken: Buffer[] = [];
  /** Addresses that the messages came from. */
  readonly sources: number[] = [];
  open: boolean;
  context: ServiceContext | undefined;

  constructor(open = false) {
    this.open = open;
  }

  readonly factory = (context: ServiceContext): Service => {
    this.context = context;
    return {
      onMessage: (src, bytes, offset, length) => {
        if (!this.open) return false;
        this.taken.push(Buffer.from(bytes.subarray(offset, offset + length)));
        this.sources.push(src);
        return true;
      },
    };
  };

  /** The guest takes what waited. */
  release({ guest }: AttachedGuest): void {
    this.open = true;
    guest.called();
  }
}
