import { createHash } from "node:crypto";
import type { AddressInfo, Socket } from "node:net";
import { createServer } from "node:net";
import { FIN_CLOSE, frameBytes } from "./frames.ts";

const ACCEPT_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/**
 * The least that an echo over a socket can do in Node: no `ws`, no streams in the way of the bytes. What one read
 * brought is unmasked in place and leaves in one write. It is the limit that the bridge is measured against, and shows
 * what the load generator can do.
 */
class EchoConnection {
  readonly #socket: Socket;
  #rest = Buffer.alloc(0);
  #open = false;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on("data", (chunk) => (this.#open ? this.#take(chunk) : this.#upgrade(chunk)));
    socket.on("error", () => socket.destroy());
  }

  #upgrade(chunk: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    const end = this.#rest.indexOf("\r\n\r\n");
    if (end < 0) return;
    const key = /^sec-websocket-key:\s*(\S+)/im.exec(this.#rest.toString("latin1", 0, end))?.[1] ?? "";
    const accept = createHash("sha1").update(`${key}${ACCEPT_GUID}`).digest("base64");
    this.#socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
    );
    this.#open = true;
    const first = this.#rest.subarray(end + 4);
    this.#rest = Buffer.alloc(0);
    if (first.length > 0) this.#take(first);
  }

  /** An answer is 4 bytes shorter than its question, which has a key: frames move towards the front. */
  #take(chunk: Buffer): void {
    const bytes = this.#rest.length > 0 ? Buffer.concat([this.#rest, chunk]) : chunk;
    let at = 0;
    let out = 0;
    for (;;) {
      const length = frameBytes(bytes, at, bytes.length - at) + 4;
      if (at + length > bytes.length) break;
      if (bytes[at] === FIN_CLOSE) {
        this.#socket.end();
        return;
      }
      const short = (bytes[at + 1] as number) & 0x7f;
      const headerLength = short < 126 ? 2 : short === 126 ? 4 : 10;
      const keyAt = at + headerLength;
      bytes[out] = bytes[at] as number;
      bytes[out + 1] = short;
      for (let i = 2; i < headerLength; i++) bytes[out + i] = bytes[at + i] as number;
      const key0 = bytes[keyAt] as number;
      const key1 = bytes[keyAt + 1] as number;
      const key2 = bytes[keyAt + 2] as number;
      const key3 = bytes[keyAt + 3] as number;
      out += headerLength;
      const end = at + length;
      let from = keyAt + 4;
      for (; from + 4 <= end; from += 4, out += 4) {
        bytes[out] = (bytes[from] as number) ^ key0;
        bytes[out + 1] = (bytes[from + 1] as number) ^ key1;
        bytes[out + 2] = (bytes[from + 2] as number) ^ key2;
        bytes[out + 3] = (bytes[from + 3] as number) ^ key3;
      }
      if (from < end) bytes[out++] = (bytes[from++] as number) ^ key0;
      if (from < end) bytes[out++] = (bytes[from++] as number) ^ key1;
      if (from < end) bytes[out++] = (bytes[from++] as number) ^ key2;
      at = end;
    }
    // Copied: what was answered stands before it in the same memory until it is written.
    this.#rest = Buffer.from(bytes.subarray(at));
    if (out > 0) this.#socket.write(bytes.subarray(0, out));
  }
}

const server = createServer((socket) => new EchoConnection(socket));
server.listen(0, "127.0.0.1", () => {
  const { port } = server.address() as AddressInfo;
  process.stdout.write(`${JSON.stringify({ port })}\n`);
});
