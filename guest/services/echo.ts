import type { Service, ServiceContext } from "../service.ts";

/** Replies to the sender with what it sent. */
export function echo(context: ServiceContext): Service {
  return {
    onMessage: (src, bytes, offset, length) => context.send(src, bytes, offset, length),
  };
}
