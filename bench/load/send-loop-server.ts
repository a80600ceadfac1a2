import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import type { WebSocket } from "ws";
import { WebSocketServer } from "ws";

/** As the bridge's slowReaderBytes: from here on the stream waits for the client that has most to read. */
const MOST_WAITING = 1 << 20;
/** Messages in a turn of the event loop, so that clients are heard meanwhile. */
const TURN = 32;

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
  let waiting = Buffer.alloc(0);
  let stepping = false;
  const goOn = () => {
    if (stepping) return;
    stepping = true;
    setImmediate(step);
  };
  const step = () => {
    stepping = false;
    if (size === 0) return;
    if ([...server.clients].some(busy)) return goOn();
    if (waiting.length < size) return void source.resume();
    const end = Math.min(TURN, Math.floor(waiting.length / size)) * size;
    for (let at = 0; at < end; at += size) {
      const message = waiting.subarray(at, at + size);
      for (const ws of server.clients) ws.send(message);
    }
    waiting = waiting.subarray(end);
    goOn();
  };
  source.on("data", (chunk) => {
    source.pause();
    waiting = Buffer.concat([waiting, chunk]);
    goOn();
  });
  server.on("connection", (ws) => {
    ws.on("close", () => {
      if (server.clients.size === 0) size = 0;
    });
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
