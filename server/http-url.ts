import type { AddressInfo } from "node:net";

/** The URL of a server that listens there. */
export function httpUrl({ address, family, port }: AddressInfo, secure = false): string {
  return `http${secure ? "s" : ""}://${family === "IPv6" ? `[${address}]` : address}:${port}`;
}
