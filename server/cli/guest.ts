import type { GuestProcessOptions } from "../guests/guest-process.ts";
import { runGuestProcess } from "../guests/guest-process.ts";
import { CommandError } from "./command-error.ts";
import { stopSignal } from "./signals.ts";

interface GuestFlags {
  socket: string;
  listen?: boolean;
  profile: GuestProcessOptions["profile"];
}

/** Runs an emulated guest until it is told to stop. A JSON line on standard output tells each attachment. */
export async function guest({ socket, listen, profile }: GuestFlags): Promise<void> {
  const stopped = stopSignal();
  let running: { close(): void };
  try {
    running = runGuestProcess({
      socket,
      mode: listen === true ? "listen" : "connect",
      profile,
      onAttached: () => process.stdout.write(`${JSON.stringify({ event: "attached", socket })}\n`),
      onError: (error) => console.error(`rpmsg-bridge: ${error.message}`),
    });
  } catch (error) {
    throw new CommandError((error as Error).message);
  }
  await stopped;
  running.close();
}
