/** What the client needs of a WebSocket: browsers, Node from 22 on and the package `ws` have it. */
export interface WebSocketLike {
  readonly readyState: number;
  send(data: string): void;
  close(code?: number, reason?: string): void;
  addEventListener(type: "message", listener: (event: { data: unknown }) => void): void;
  addEventListener(type: "close", listener: (event: { code: number; reason: string }) => void): void;
  addEventListener(type: "error", listener: (event: object) => void): void;
}

/** The third argument is for `ws`: a browser's WebSocket takes no headers. */
export type WebSocketConstructor = new (
  url: string,
  protocols: string[],
  options?: { headers?: Record<string, string> },
) => WebSocketLike;

/** Whether it is that of `ws`, or made of it: that takes header fields. A browser's has no `on`. */
export function takesHeaders(Socket: WebSocketConstructor): boolean {
  return "on" in (Socket as { prototype: object }).prototype;
}

/**
 * The WebSocket to use: the one that was given, or the global one.
 * @throws TypeError
 */
export function webSocketOf(given: WebSocketConstructor | undefined): WebSocketConstructor {
  const found = given ?? (globalThis as { WebSocket?: WebSocketConstructor }).WebSocket;
  if (found === undefined) {
    throw new TypeError(
      'there is no global WebSocket before Node 22: give one, connect(url, { WebSocket }), such as that of "ws"',
    );
  }
  return found;
}
