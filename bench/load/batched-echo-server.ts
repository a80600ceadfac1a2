import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { WebSocketServer } from "ws";

/** What one gets from `ws` with some care: the answers of a turn of the event loop leave in one write. */
const http = createServer();
const server = new WebSocketServer({ noServer: true, perMessageDeflate: false });
let corked: Duplex[] = [];

function uncorkAll(): void {
  const sockets = corked;
  corked = [];
  for (const socket of sockets) socket.uncork();
}

http.on("upgrade", (request, socket, head) => {
  server.handleUpgrade(request, socket, head, (ws) => {
    ws.on("message", (data, isBinary) => {
      if (socket.writableCorked === 0) {
        socket.cork();
        if (corked.push(socket) === 1) setImmediate(uncorkAll);
      }
      ws.send(data, { binary: isBinary });
    });
  });
});

http.listen(0, "127.0.0.1", () => {
  const { port } = http.address() as AddressInfo;
  process.stdout.write(`${JSON.stringify({ port })}\n`);
});
