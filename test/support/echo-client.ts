import { once } from "node:events";
import { WebSocket } from "ws";

/** A raw client of an endpoint that echoes. */
export class EchoClient {
  readonly socket: WebSocket;
  /** The close code. */
  readonly closed: Promise<number>;

  private constructor(socket: WebSocket) {
    this.socket = socket;
    this.closed = once(socket, "close").then(([code]) => code as number);
    socket.on("error", () => {});
  }

  /** @throws Error the bridge refuses, as it does while the endpoint is not there */
  static async open(url: string, path: string): Promise<EchoClient> {
    const target = url.startsWith("unix:") ? `ws+${url}:${path}` : url.replace("http", "ws") + path;
    const socket = new WebSocket(target, { perMessageDeflate: false });
    const client = new EchoClient(socket);
    await Promise.race([
      once(socket, "open"),
      client.closed.then((code) => Promise.reject(new Error(`closed with ${code} before it was open`))),
    ]);
    return client;
  }

  /** Sends a message and waits for its echo. @throws Error it comes back as another one, or the socket closes */
  async echo(text: string): Promise<void> {
    const answer = once(this.socket, "message");
    this.socket.send(Buffer.from(text));
    const over = this.closed.then((code) => Promise.reject(new Error(`closed with ${code}`)));
    const [data] = (await Promise.race([answer, over])) as [Buffer];
    if (data.toString() !== text) throw new Error(`${data.toString()} came back, not ${text}`);
  }
}
