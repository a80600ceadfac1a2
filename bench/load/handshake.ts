import { randomBytes } from "node:crypto";

export interface Target {
  host: string;
  port: number;
  path: string;
  subprotocol?: string | undefined;
}

/** A client's request for a WebSocket (RFC 6455, 4.1). */
export function upgradeRequest({ host, port, path, subprotocol }: Target): string {
  const lines = [
    `GET ${path} HTTP/1.1`,
    `Host: ${host}:${port}`,
    "Upgrade: websocket",
    "Connection: Upgrade",
    `Sec-WebSocket-Key: ${randomBytes(16).toString("base64")}`,
    "Sec-WebSocket-Version: 13",
  ];
  if (subprotocol !== undefined) lines.push(`Sec-WebSocket-Protocol: ${subprotocol}`);
  return `${lines.join("\r\n")}\r\n\r\n`;
}
