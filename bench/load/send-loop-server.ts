import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import type { WebSocket } from "ws";
import { WebSocketServer } from "ws";

/** As the bridge's slowReaderBytes: from here on the stream waits for the client that has most to read. */
const MOST_WAITING = 1 << 20;

/**
 * Fan-out as a user would write it: a stream of messages comes from another process over a Unix socket, and each goes
 * to all clients in a loop of `ws.send`. It starts when a client sends the size of a message, and ends with "stop".
 */
const path = process.argv[2] ?? "";
const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: false });
let size = 0;

const busy = (ws: WebSocket) => ws.bufferedAmount > MOST_WAITING;

const input = createServer((source) => {
  source.pause();
  let rest = Buffer.alloc(0);
  const goOn = () => {
    if (size === 0) return;
    if ([...server.clients].some(busy)) setImmediate(goOn);
    else source.resume();
  };
  source.on("data", (chunk) => {
    const bytes = Buffer.concat([rest, chunk]);
    let at = 0;
    for (; size > 0 && at + size <= bytes.length; at += size) {
      const message = bytes.subarray(at, at + size);
      for (const ws of server.clients) ws.send(message);
    }
    rest = bytes.subarray(at);
    source.pause();
    goOn();
  });
  server.on("connection", (ws) => {
    ws.on("message", (data: Buffer) => {
      const text = data.toString();
      size = text === "stop" ? 0 : Number(text);
      if (size > 0) source.write(`${text}\n`);
      goOn();
    });
  });
});

input.listen(path, () => {
  const { port } = server.address() as AddressInfo;
  process.stdout.write(`${JSON.stringify({ port })}\n`);
});
