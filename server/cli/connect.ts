import { createInterface } from "node:readline";
import type { WebSocket } from "ws";
import type { ChannelFlags } from "./client.ts";
import { closed, openEndpoint, parseHex, showMessage } from "./client.ts";
import { CommandError } from "./command-error.ts";

/** Milliseconds without a message after which replies to piped input are over. */
const LINGER = 500;
/** Ctrl-], as telnet and picocom's users know it. */
const LEAVE = 0x1d;
/** Bytes of a piece of piped input in raw mode: they fit the customary buffer. */
const RAW_CHUNK = 496;

interface ConnectFlags extends ChannelFlags {
  hex?: boolean;
  raw?: boolean;
}

/** Talks to an endpoint: lines or, for terminals, keys. */
export async function connect(endpoint: string, flags: ConnectFlags): Promise<void> {
  const interactive = process.stdin.isTTY;
  const raw =
    flags.raw ?? (interactive && /tty(@|$)/.test(endpoint) && flags.hex !== true && flags.json !== true);
  const socket = await openEndpoint(endpoint, flags);
  const end = closed(socket);
  if (interactive) process.stderr.write(`connected to ${endpoint}, ${raw ? "ctrl-]" : "ctrl-d"} leaves\n`);
  try {
    const talk = raw ? keys(socket) : lines(socket, flags);
    socket.resume();
    await Promise.all([end, talk]);
  } finally {
    if (raw && interactive) process.stdin.setRawMode(false);
    process.stdin.destroy();
    socket.terminate();
  }
}

/** A line is a message, without its end; a message is a line. */
async function lines(socket: WebSocket, flags: ConnectFlags): Promise<void> {
  socket.on("message", (data: Buffer) => console.log(showMessage(data, flags)));
  const input = createInterface({ input: process.stdin, terminal: false });
  socket.once("close", () => input.close());
  for await (const line of input) {
    if (socket.readyState !== socket.OPEN) return;
    try {
      socket.send(flags.hex === true ? parseHex(line) : Buffer.from(line), { binary: true });
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      console.error(`rpmsg-bridge: ${error.message}`);
    }
  }
  if (process.stdin.isTTY) socket.close(1000);
  else closeWhenQuiet(socket);
}

/** Every key goes to the guest as it is typed. */
async function keys(socket: WebSocket): Promise<void> {
  const { stdin } = process;
  if (stdin.isTTY) stdin.setRawMode(true);
  socket.on("message", (data: Buffer) => process.stdout.write(data));
  socket.once("close", () => stdin.pause());
  await new Promise<void>((resolve) => {
    socket.once("close", resolve);
    stdin.once("end", resolve);
    stdin.on("data", (data: Buffer) => {
      const leave = stdin.isTTY ? data.indexOf(LEAVE) : -1;
      const bytes = leave === -1 ? data : data.subarray(0, leave);
      for (let at = 0; at < bytes.length; at += RAW_CHUNK) {
        socket.send(bytes.subarray(at, at + RAW_CHUNK), { binary: true });
      }
      if (leave !== -1) resolve();
    });
  });
  if (!stdin.isTTY && socket.readyState === socket.OPEN) closeWhenQuiet(socket);
  else socket.close(1000);
}

/** What was asked by a pipe may still be answered: closes when no more answers come. */
function closeWhenQuiet(socket: WebSocket): void {
  const timer = setTimeout(() => socket.close(1000), LINGER);
  socket.on("message", () => timer.refresh());
  socket.once("close", () => clearTimeout(timer));
}
