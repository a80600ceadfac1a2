import type { RpmsgDevice } from "../../../rpmsg/device.ts";
import type { Endpoint } from "../../../rpmsg/endpoint.ts";
import type { SendQueue, SendQueueEvents } from "../../../rpmsg/send-queue.ts";

export interface Received {
  src: number;
  bytes: Buffer;
}

/** An endpoint that keeps copies of what it gets. */
export function openEndpoint(
  device: RpmsgDevice,
  address?: number,
): { endpoint: Endpoint; received: Received[] } {
  const received: Received[] = [];
  const endpoint = device.createEndpoint(
    (src, bytes, offset, length) =>
      received.push({ src, bytes: Buffer.from(bytes.subarray(offset, offset + length)) }),
    address,
  );
  return { endpoint, received };
}

export function texts(messages: readonly Received[]): string[] {
  return messages.map(({ bytes }) => bytes.toString());
}

export interface Sender {
  queue: SendQueue<() => void>;
  /** What the events said, in order. */
  heard: string[];
  send(text: string | Uint8Array, dst?: number, published?: () => void): string;
}

/** A sender behind an endpoint; it sends to the endpoint's peer unless told otherwise. */
export function openSender(
  device: RpmsgDevice,
  endpoint: Endpoint,
  options: { peer?: number; limit?: number; timeout?: number; onWritable?: () => void } = {},
): Sender {
  const heard: string[] = [];
  const events: SendQueueEvents<() => void> = {
    onSent: (_length, published) => published?.(),
    onWritable: () => {
      heard.push("writable");
      options.onWritable?.();
    },
    onUndelivered: (code) => heard.push(code),
  };
  const queue = device.createSendQueue(
    endpoint,
    options.peer === undefined ? endpoint : { peer: options.peer },
    events,
    { limit: options.limit ?? 100_000, timeout: options.timeout ?? 15_000 },
  );
  return {
    queue,
    heard,
    send: (text, dst, published) => {
      const bytes = Buffer.from(text);
      return queue.send(dst, bytes, 0, bytes.length, published);
    },
  };
}
