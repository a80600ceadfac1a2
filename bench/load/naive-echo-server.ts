import type { AddressInfo } from "node:net";
import { WebSocketServer } from "ws";

/** The plainest echo that `ws` allows: what a user would write, and the yardstick of the other figures. */
const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: false });

server.on("connection", (ws) => {
  ws.on("message", (data, isBinary) => ws.send(data, { binary: isBinary }));
});

server.on("listening", () => {
  const { port } = server.address() as AddressInfo;
  process.stdout.write(`${JSON.stringify({ port })}\n`);
});
