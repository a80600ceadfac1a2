import { randomBytes } from "node:crypto";
import { once } from "node:events";
import type { Socket } from "node:net";
import { connect } from "node:net";

/** A WebSocket client on a bare socket, which does nothing by itself, and reads only for as long as it is let. */
export class PlainClient {
  readonly socket: Socket;
  /** Bytes after the handshake. */
  received = 0;
  closed = false;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on("error", () => {});
    socket.once("close", () => {
      this.closed = true;
    });
  }

  /**
   * Connects and sends what is given, whatever it is.
   * @param allowHalfOpen it does not close its side when the bridge has closed its own
   */
  static async dial(
    url: string,
    text: string | Uint8Array = "",
    allowHalfOpen = false,
  ): Promise<PlainClient> {
    const { hostname, port } = new URL(url);
    const target = url.startsWith("unix:")
      ? { path: url.slice("unix:".length) }
      : { host: hostname, port: Number(port) };
    const client = new PlainClient(connect({ ...target, allowHalfOpen }));
    await once(client.socket, "connect");
    if (text.length > 0) client.socket.write(text);
    return client;
  }

  /** Becomes a WebSocket; otherwise as `dial`. @throws Error the bridge refuses */
  static async open(url: string, path: string, allowHalfOpen = false): Promise<PlainClient> {
    const key = randomBytes(16).toString("base64");
    const client = await PlainClient.dial(
      url,
      `GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\n\r\n`,
      allowHalfOpen,
    );
    const [head] = (await once(client.socket, "data")) as [Buffer];
    if (!head.toString("latin1").startsWith("HTTP/1.1 101")) throw new Error(head.toString("latin1"));
    client.socket.on("data", (part: Buffer) => {
      client.received += part.length;
    });
    return client;
  }

  /** Sends one frame of less than 126 bytes, masked with zeros. */
  send(opcode: number, payload: Uint8Array = Buffer.alloc(0), fin = true): boolean {
    const head = [(fin ? 0x80 : 0) | opcode, 0x80 | payload.length, 0, 0, 0, 0];
    return this.socket.write(Buffer.concat([Buffer.from(head), payload]));
  }
}
