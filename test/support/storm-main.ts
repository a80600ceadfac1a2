/**
 * The process of a guest that gives its bridge no rest: `storm-main.js SOCKET`. It keeps its request queue full of
 * messages, kicks both queues all the time, and says `attached` when it has begun.
 */
import type { GuestLink } from "../../guest/emulated-guest.ts";
import type { Service, ServiceContext } from "../../guest/index.ts";
import { EmulatedGuest } from "../../guest/index.ts";

/** Kicks of each queue in a turn of the event loop. */
const KICKS = 200;
/** Nobody has it: what is sent there costs the bridge all that a message costs before it is thrown away. */
const NOBODY = 0x7fff;

class StormGuest extends EmulatedGuest {
  override boot(link: GuestLink): void {
    super.boot(link);
    const storm = (): void => {
      for (let i = 0; i < KICKS; i++) for (const queue of [0, 1]) link.kick(queue);
      setImmediate(storm);
    };
    storm();
  }
}

/** Sends whenever there is room. */
function flood(context: ServiceContext): Service {
  const message = new Uint8Array(16);
  const fill = (): void => {
    while (context.send(NOBODY, message, 0, message.length));
  };
  setImmediate(fill);
  return { onMessage: () => true, onWritable: fill };
}

const [, , socket = ""] = process.argv;
new StormGuest({ services: { flood } }).connect(socket, {
  onAttached: () => process.send?.("attached"),
  onError: () => {},
});
process.once("disconnect", () => process.exit());
