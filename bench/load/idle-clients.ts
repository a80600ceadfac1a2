import { once } from "node:events";
import { WebSocket } from "ws";

/** How many connections are being opened at a time. */
const AT_A_TIME = 100;

/** Clients that connect, answer pings and do nothing else. Prints a line once all are there. */
const { url, clients } = JSON.parse(process.argv[2] ?? "{}") as { url: string; clients: number };
let opened = 0;
async function openSome(): Promise<void> {
  while (opened < clients) {
    opened++;
    const socket = new WebSocket(url, { perMessageDeflate: false });
    await once(socket, "open");
  }
}
await Promise.all(Array.from({ length: AT_A_TIME }, openSome));
process.stdout.write(`${JSON.stringify({ clients })}\n`);
