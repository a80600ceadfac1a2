import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

/** What any server on Node takes: the yardstick of memory and of start. */
const server = createServer((_request, response) => response.end());
server.listen(0, "127.0.0.1", () => {
  process.stdout.write(`${JSON.stringify({ port: (server.address() as AddressInfo).port })}\n`);
});
