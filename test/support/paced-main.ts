/**
 * The process of a guest that sends at a pace: `paced-main.js SOCKET`. Whoever sends it anything gets messages from then
 * on, of all in turn; the parent says how many a second there are in all, `null` for as many as go, 0 for none. A
 * message begins with the time at which it was sent, or could have been if there had been a buffer, in nanoseconds of
 * the system's monotonic clock.
 */
import type { Service, ServiceContext } from "../../guest/index.ts";
import { EmulatedGuest } from "../../guest/index.ts";

/** Bytes. */
const SIZE = 64;
/** Most messages in a turn of the event loop, a millisecond: more than any bridge takes. */
const BURST = 2048;
const PER_SECOND = 1e9;

let rate: number | null = 0;
let wake = (): void => {};

function paced(context: ServiceContext): Service {
  const peers: number[] = [];
  const message = new Uint8Array(SIZE);
  const view = new DataView(message.buffer);
  let turn = 0;
  /** When the next message is due. */
  let due = 0;
  /** Since when there was no buffer for what was due. */
  let blocked: number | undefined;
  let scheduled = false;
  const send = (time: number): boolean => {
    view.setFloat64(0, time, true);
    if (!context.send(peers[turn % peers.length] as number, message)) return false;
    turn++;
    return true;
  };
  const go = (): void => {
    scheduled = false;
    if (rate === 0 || peers.length === 0) return;
    const now = clock();
    if (rate === null) {
      for (let i = 0; i < BURST; i++) {
        // It goes on when there is a buffer.
        if (!send(now)) return;
      }
    } else {
      // That this process was late is no delay of the bridge; that there was no buffer is.
      for (let i = 0; i < BURST && due <= now; i++) {
        if (!send(blocked === undefined ? now : Math.max(due, blocked))) {
          blocked ??= now;
          return;
        }
        due += PER_SECOND / rate;
      }
      if (due > now) blocked = undefined;
    }
    later();
  };
  const later = (): void => {
    if (scheduled) return;
    scheduled = true;
    // Where there was no buffer, it goes on as soon as there is one: a millisecond's messages may be more than a ring has.
    if (rate === null || blocked !== undefined) setImmediate(go);
    // A timer's millisecond: a guest that turns all the time would take a core from the others.
    else setTimeout(go, 1);
  };
  wake = () => {
    due = clock();
    blocked = undefined;
    later();
  };
  return {
    onMessage(src) {
      if (!peers.includes(src)) peers.push(src);
      later();
      return true;
    },
    onWritable() {
      if (rate === null || blocked !== undefined) later();
    },
  };
}

function clock(): number {
  return Number(process.hrtime.bigint());
}

process.on("message", (next: { rate: number | null }) => {
  rate = next.rate;
  wake();
});
process.once("disconnect", () => process.exit());
const [, , socket = ""] = process.argv;
new EmulatedGuest({ services: { paced } }).connect(socket, {
  onAttached: () => process.send?.("attached"),
  onError: () => {},
});
