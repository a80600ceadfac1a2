import type { ChannelFlags } from "./client.ts";
import { channelPath, closed, listEndpoints, openEndpoint, parseHex, showMessage } from "./client.ts";
import { CommandError } from "./command-error.ts";

const DEFAULT_WAIT = 15;

interface SendFlags extends ChannelFlags {
  hex?: boolean;
  /** Seconds, or true for the default. */
  wait?: number | true;
}

/** Sends one message, and prints the first reply if that is asked for. */
export async function send(endpoint: string, data: string, flags: SendFlags): Promise<void> {
  const message = flags.hex === true ? parseHex(data) : Buffer.from(data);
  const socket = await openEndpoint(endpoint, flags);
  const end = closed(socket);
  let timer: NodeJS.Timeout | undefined;
  const reply = new Promise<Buffer>((resolve, reject) => {
    socket.once("message", (received: Buffer) => resolve(received));
    if (flags.wait === undefined) return;
    const seconds = flags.wait === true ? DEFAULT_WAIT : flags.wait;
    timer = setTimeout(() => {
      socket.terminate();
      reject(new CommandError(`no reply within ${seconds} seconds`));
    }, seconds * 1000);
  });
  socket.resume();
  socket.send(message, { binary: true });
  if (flags.wait !== undefined) {
    // Whichever comes first: the end of the connection is an error here.
    const received = await Promise.race([
      reply,
      end.then(() => Promise.reject(new CommandError("the connection ended without a reply"))),
    ]).finally(() => clearTimeout(timer));
    console.log(showMessage(received, flags));
  }
  socket.close(1000);
  await end;
  if (flags.wait === undefined) await noteWaiting(endpoint, flags);
}

/** Says so where the message was taken by the bridge, but the guest is not there to take it. */
async function noteWaiting(reference: string, flags: SendFlags): Promise<void> {
  const path = channelPath(reference);
  const endpoint = (await listEndpoints(flags)).find((each) => each.path === path);
  if (endpoint === undefined || endpoint.state === "connected") return;
  console.error(
    `rpmsg-bridge: the guest has not spoken at ${reference} yet: the message waits, 15 seconds at most`,
  );
}
