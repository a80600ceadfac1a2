import type { Service, ServiceContext } from "../service.ts";
import { textOf } from "./text.ts";

const MOST_MESSAGES = 10_000_000;

/** Bursts at a time. */
const MOST_BURSTS = 64;

interface Burst {
  dst: number;
  count: number;
  size: number;
  sent: number;
}

/**
 * Sends a counted burst on "<count> <size>": message n, from 0 on, holds n as 32 bits little endian, as far as it has
 * room, and then its low byte. As fast as buffers come back, all bursts in turn.
 */
export function source(context: ServiceContext): Service {
  const bursts: Burst[] = [];
  const message = new Uint8Array(context.mtu);
  const view = new DataView(message.buffer);
  let turn = 0;
  /** One message of each burst in turn: who has left holds nobody up. */
  const run = (): void => {
    while (bursts.length > 0) {
      turn %= bursts.length;
      const burst = bursts[turn] as Burst;
      message.fill(burst.sent, 0, burst.size);
      if (burst.size >= 4) view.setUint32(0, burst.sent, true);
      if (!context.send(burst.dst, message, 0, burst.size)) return;
      burst.sent++;
      if (burst.sent === burst.count) bursts.splice(turn, 1);
      else turn++;
    }
  };
  return {
    onMessage(src, bytes, offset, length) {
      const [, count, size] = /^(\d{1,9})\s+(\d{1,5})$/.exec(textOf(bytes, offset, length)) ?? [];
      const burst = { dst: src, count: Number(count), size: Number(size), sent: 0 };
      if (!(burst.count > 0 && burst.count <= MOST_MESSAGES && burst.size > 0 && burst.size <= context.mtu)) {
        const usage = `error: want "<count> <size>", 1 to ${MOST_MESSAGES} messages of 1 to ${context.mtu} bytes`;
        return context.send(src, Buffer.from(usage));
      }
      if (bursts.length >= MOST_BURSTS) return context.send(src, Buffer.from("error: too many bursts"));
      bursts.push(burst);
      if (bursts.length === 1) run();
      return true;
    },
    onWritable: run,
    close: () => bursts.splice(0),
  };
}
