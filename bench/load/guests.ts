import type { Service, ServiceContext, ServiceFactory } from "../../guest/index.ts";
import { EmulatedGuest, echo } from "../../guest/index.ts";
import { ADDRESS_ANY } from "../../rpmsg/index.ts";

/** A guest to run; it announces `echo`, or echo0, echo1, ... when there are several, or `stream`. */
export interface GuestOptions {
  /** Of a bridge that listens. */
  socket: string;
  /** How many echo services. Default: 1. */
  echoes?: number;
  stream?: boolean;
}

/** Sends messages of so many bytes to who sent that number, numbered from 0 on, until somebody sends "stop". */
function stream(context: ServiceContext): Service {
  const message = new Uint8Array(context.mtu);
  const view = new DataView(message.buffer);
  let to = ADDRESS_ANY;
  let size = 0;
  let next = 0;
  const run = (): void => {
    while (size > 0) {
      view.setUint32(0, next, true);
      if (!context.send(to, message, 0, size)) return;
      next = (next + 1) >>> 0;
    }
  };
  return {
    onMessage(src, bytes, offset, length) {
      const text = Buffer.from(bytes.buffer, bytes.byteOffset + offset, length).toString("latin1");
      size = text === "stop" ? 0 : Number(text);
      to = src;
      next = 0;
      run();
      return true;
    },
    onWritable: run,
  };
}

function servicesOf({ echoes = 1, stream: streams = false }: GuestOptions): Record<string, ServiceFactory> {
  if (streams) return { stream };
  if (echoes === 1) return { echo };
  return Object.fromEntries(Array.from({ length: echoes }, (_, i) => [`echo${i}`, echo]));
}

/** Emulated guests in one process, on the vhost-user sockets of a bridge. Prints a line once all are attached: when they
 * began to connect, in milliseconds since 1970. */
const options = JSON.parse(process.argv[2] ?? "[]") as GuestOptions[];
const startedAt = performance.timeOrigin + performance.now();
const connections = options.map((each) =>
  new EmulatedGuest({ services: servicesOf(each) }).connect(each.socket),
);
await Promise.all(connections.map((connection) => connection.attached()));
process.stdout.write(`${JSON.stringify({ startedAt })}\n`);
