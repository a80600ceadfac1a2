import type { Service, ServiceContext } from "../service.ts";
import { textOf } from "./text.ts";

const DEFAULT_HZ = 10;
const MOST_HZ = 1000;
/** Senders that get readings at a time; one more, and the oldest gets none any more: it may have left. */
const MOST_LISTENERS = 256;

/**
 * JSON readings to whoever said "start [hz]", until it says "stop". A reading that finds no buffer is left out, as a
 * sensor does; its `seq` shows the gap.
 */
export function sensor(context: ServiceContext): Service {
  const timers = new Map<number, NodeJS.Timeout>();
  const started = performance.now();
  const stop = (src: number): void => {
    clearInterval(timers.get(src));
    timers.delete(src);
  };
  const start = (src: number, hz: number): void => {
    stop(src);
    let seq = 0;
    const read = (): void => {
      const t = (performance.now() - started) / 1000;
      const reading = {
        seq: seq++,
        t: round(t),
        temperature: round(21 + 4 * Math.sin(t / 7)),
        pressure: round(1013 + 6 * Math.sin(t / 31)),
      };
      context.send(src, Buffer.from(JSON.stringify(reading)));
    };
    timers.set(src, setInterval(read, 1000 / hz).unref());
    read();
  };
  const error = (src: number, text: string): boolean =>
    context.send(src, Buffer.from(JSON.stringify({ error: text })));
  return {
    onMessage(src, bytes, offset, length) {
      const [command, argument, ...more] = textOf(bytes, offset, length).split(/\s+/);
      const hz = argument === undefined ? DEFAULT_HZ : Number(argument);
      if (command === "stop" && argument === undefined) {
        stop(src);
      } else if (command !== "start" || more.length > 0 || !(hz >= 0.1 && hz <= MOST_HZ)) {
        return error(src, `want "start [hz]", 0.1 to ${MOST_HZ}, or "stop"`);
      } else {
        const [oldest] = timers.keys();
        if (!timers.has(src) && timers.size >= MOST_LISTENERS && oldest !== undefined) stop(oldest);
        start(src, hz);
      }
      return true;
    },
    close() {
      for (const src of [...timers.keys()]) stop(src);
    },
  };
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}
