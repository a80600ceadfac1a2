/**
 * The process of an isolated guest (`isolation: process`): the connection with the untrusted frontend and the guest's
 * memory are here, and what kills this process is the end of that guest's attachment and of nothing else. The bridge
 * starts it with its control socket and, where it listens, the listening socket; it ends when the bridge lets go of the
 * former.
 */
import process from "node:process";
import type { DeviceConfig } from "../../rpmsg/index.ts";
import { closeFd, openTransport, Poller, relayConnection, socketPair } from "../../rpmsg/index.ts";
import { ProcessControl } from "./isolation-control.ts";

/** Its only argument, as JSON. */
export interface IsolationOptions {
  mode: "listen" | "connect";
  path: string;
  bufferSizes?: DeviceConfig;
}

/** Where the bridge puts the descriptors that it gives. */
const CONTROL_FD = 3;
const LISTENER_FD = 4;

function main({ mode, path, bufferSizes }: IsolationOptions): void {
  // What a callback throws is a fault of ours: the bridge starts another process.
  const poller = new Poller();
  const relays = new Set<{ close(): void }>();
  const control = new ProcessControl(CONTROL_FD, poller, () => {
    // What the bridge has sent goes to the guest before.
    for (const relay of relays) relay.close();
    process.exit(0);
  });
  const failed = (error: Error): void => control.report("transport", error);

  const serve = (fd: number, closed: () => void): { close(): void } => {
    const [ours, theirs] = pairOrClose(fd);
    control.connection(theirs);
    const relay = relayConnection(
      fd,
      ours,
      poller,
      {
        onRefused: (error) => control.report("refused", error),
        onUnsealed: () => control.unsealed(),
        onRings: (sizes) => control.rings(sizes),
        onBroken: (queue, error) => control.report("broken", error, queue),
        onClose(error) {
          relays.delete(relay);
          if (error !== undefined) control.report("closed", error);
          closed();
        },
      },
      bufferSizes === undefined ? {} : { bufferSizes },
    );
    relays.add(relay);
    return relay;
  };

  if (mode === "connect") {
    openTransport(mode, path, poller, serve, failed);
  } else {
    // The bridge's: connections wait in it while there is no process, or another frontend's turn.
    openTransport(mode, path, poller, serve, failed, {
      listener: LISTENER_FD,
      connection: undefined,
    }).resume();
  }
}

/** A connection of our own with the bridge; the frontend's is closed where there is none to be had. */
function pairOrClose(frontend: number): [number, number] {
  try {
    return socketPair();
  } catch (error) {
    closeFd(frontend);
    throw error;
  }
}

main(JSON.parse(process.argv[2] as string) as IsolationOptions);
