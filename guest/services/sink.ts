import type { Service, ServiceContext } from "../service.ts";
import { textOf } from "./text.ts";

/** Counts what it gets; "stat" is answered with the counts so far, itself not counted. */
export function sink(context: ServiceContext): Service {
  let messages = 0;
  let byteCount = 0;
  return {
    onMessage(src, bytes, offset, length) {
      if (textOf(bytes, offset, length) === "stat") {
        return context.send(src, Buffer.from(JSON.stringify({ messages, bytes: byteCount })));
      }
      messages++;
      byteCount += length;
      return true;
    },
  };
}
