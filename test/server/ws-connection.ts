import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { onTestFinished } from "vitest";
import { WebSocket, WebSocketServer } from "ws";

/** A connection: the bridge's end as a socket and as ws has it, and a client of ws that reads. */
export class Connection {
  readonly near: Socket;
  readonly server: WebSocket;
  readonly client: WebSocket;
  readonly messages: Buffer[] = [];
  readonly pings: string[] = [];
  #wake: () => void = () => {};

  private constructor(near: Socket, server: WebSocket, client: WebSocket) {
    this.near = near;
    this.server = server;
    this.client = client;
    client.on("message", (data: Buffer, isBinary: boolean) => {
      if (!isBinary) throw new Error("not binary");
      this.messages.push(data);
      this.#wake();
    });
    client.on("ping", (data: Buffer) => this.pings.push(data.toString()));
  }

  static async open(): Promise<Connection> {
    const http = createServer().listen(0, "127.0.0.1");
    const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false });
    await once(http, "listening");
    const accepted = new Promise<[Socket, WebSocket]>((resolve) => {
      http.once("upgrade", (request, stream: Socket, head) => {
        sockets.handleUpgrade(request, stream, head, (socket) => resolve([stream, socket]));
      });
    });
    const client = new WebSocket(`ws://127.0.0.1:${(http.address() as AddressInfo).port}`);
    await once(client, "open");
    const [near, server] = await accepted;
    http.close();
    onTestFinished(() => {
      near.destroy();
      client.terminate();
    });
    return new Connection(near, server, client);
  }

  async until(count: number): Promise<void> {
    while (this.messages.length < count) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}
