import { randomBytes } from "node:crypto";
import { once } from "node:events";
import type { Socket } from "node:net";
import { connect } from "node:net";
import { onTestFinished } from "vitest";

export const opcode = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

export interface Frame {
  opcode: number;
  payload: Buffer;
}

/** A WebSocket client on a bare socket, which does nothing by itself: it neither answers pings nor closes. */
export class RawClient {
  readonly socket: Socket;
  /** All that came after the handshake. */
  readonly frames: Frame[] = [];
  /** The connection is over. */
  readonly ended: Promise<void>;
  #buffer = Buffer.alloc(0);
  #wake: (() => void) | undefined;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on("error", () => {});
    this.ended = new Promise((resolve) => {
      socket.once("close", () => {
        resolve();
        this.#wake?.();
      });
    });
  }

  static async open(url: string, path: string): Promise<RawClient> {
    const { hostname, port } = new URL(url);
    const socket = connect(Number(port), hostname);
    onTestFinished(() => {
      socket.destroy();
    });
    const client = new RawClient(socket);
    await once(socket, "connect");
    const key = randomBytes(16).toString("base64");
    socket.write(
      `GET ${path} HTTP/1.1\r\nHost: ${hostname}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\n\r\n`,
    );
    let head = Buffer.alloc(0);
    while (!head.includes("\r\n\r\n")) {
      const [part] = (await once(socket, "data")) as [Buffer];
      head = Buffer.concat([head, part]);
    }
    if (!head.toString("latin1").startsWith("HTTP/1.1 101")) throw new Error(head.toString("latin1"));
    socket.on("data", (part: Buffer) => client.#take(part));
    client.#take(head.subarray(head.indexOf("\r\n\r\n") + 4));
    return client;
  }

  /** Sends one frame, masked with zeros. */
  send(code: number, payload: Uint8Array = Buffer.alloc(0), fin = true): void {
    this.socket.write(clientFrame(code, payload, fin));
  }

  /** The first frame from number `from` on that fits; rejects when the connection ends before. */
  async frame(fits: (frame: Frame) => boolean, from = 0): Promise<Frame> {
    for (let at = from; ; at++) {
      while (at >= this.frames.length) {
        if (this.socket.closed) throw new Error("the connection has ended");
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
      const frame = this.frames[at];
      if (frame !== undefined && fits(frame)) return frame;
    }
  }

  /** Code of the close frame. */
  async closeCode(): Promise<number> {
    return (await this.frame((each) => each.opcode === opcode.close)).payload.readUInt16BE(0);
  }

  #take(part: Buffer): void {
    this.#buffer = Buffer.concat([this.#buffer, part]);
    for (;;) {
      const buffer = this.#buffer;
      const short = (buffer[1] ?? 0) & 0x7f;
      const head = short === 126 ? 4 : 2;
      if (buffer.length < head) return;
      const length = short === 126 ? buffer.readUInt16BE(2) : short;
      if (buffer.length < head + length) return;
      this.frames.push({ opcode: (buffer[0] ?? 0) & 0x0f, payload: buffer.subarray(head, head + length) });
      this.#buffer = buffer.subarray(head + length);
      this.#wake?.();
    }
  }
}

/** A frame of a client, at most 65535 bytes. */
export function clientFrame(code: number, payload: Uint8Array, fin = true): Buffer {
  const head =
    payload.length < 126 ? [0x80 | payload.length] : [0x80 | 126, payload.length >> 8, payload.length & 0xff];
  return Buffer.concat([Buffer.from([(fin ? 0x80 : 0) | code, ...head, 0, 0, 0, 0]), payload]);
}
